//! Checkpoints as kubelets write them.

use super::*;
use std::fs;
use std::path::PathBuf;

/// From a 1.29 kubelet; `AllocResp` shortened.
const BY_NODE: &str = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"a4ef52ec-2f4d-4d3b-a3f2-9e0c1f6f0d11","ContainerName":"trainer","ResourceName":"nvidia.com/gpu","DeviceIDs":{"0":["GPU-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d"],"1":["GPU-11111111-0d4f-4d8a-9b2e-1f6c7a8b9c0d::2"]},"AllocResp":"CkIKFk5W"},{"PodUID":"b","ContainerName":"net","ResourceName":"rdma/hca","DeviceIDs":{"-1":["0"]},"AllocResp":""}],"RegisteredDevices":{"nvidia.com/gpu":["GPU-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d"],"rdma/hca":["0"]}},"Checksum":2158459253}"#;

/// From a 1.18 one.
const LIST: &str = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"p","ContainerName":"c","ResourceName":"nvidia.com/mig-1g.10gb","DeviceIDs":["MIG-b","MIG-a"],"AllocResp":""}],"RegisteredDevices":{}},"Checksum":1}"#;

const NOTHING: &str = r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{"nvidia.com/gpu":null,"nvidia.com/mig-1g.10gb":[]}},"Checksum":3}"#;

fn kubelet(checkpoint: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(CHECKPOINT);
    fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
    fs::write(&path, checkpoint).expect("written");
    let kubelet = dir.path().to_owned();
    (dir, kubelet)
}

#[test]
fn allocations_of_nvidias_resources_are_read_from_both_forms() {
    let (_dir, path) = kubelet(BY_NODE);
    let found = allocations(&path).expect("read");
    assert_eq!(
        found,
        [Allocation {
            pod_uid: "a4ef52ec-2f4d-4d3b-a3f2-9e0c1f6f0d11".into(),
            container: "trainer".into(),
            resource: "nvidia.com/gpu".into(),
            devices: vec![
                "GPU-11111111-0d4f-4d8a-9b2e-1f6c7a8b9c0d::2".into(),
                "GPU-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d".into(),
            ],
        }]
    );
    let (_dir, path) = kubelet(LIST);
    assert_eq!(allocations(&path).expect("read")[0].devices, ["MIG-a", "MIG-b"]);
}

#[test]
fn a_device_plugin_with_devices_owns_the_gpus() {
    let (_dir, path) = kubelet(BY_NODE);
    let owner = owner_of_gpus(&path).expect("read");
    assert_eq!(owner.as_deref(), Some("the device plugin of nvidia.com/gpu"));
}

#[test]
fn nobody_owns_them_without_a_checkpoint_or_devices() {
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(owner_of_gpus(dir.path()).expect("nothing there"), None);
    assert!(allocations(dir.path()).expect("nothing there").is_empty());
    let (_dir, path) = kubelet(NOTHING);
    assert_eq!(owner_of_gpus(&path).expect("read"), None);
    assert!(allocations(&path).expect("read").is_empty());
}

#[test]
fn either_trace_of_the_dra_driver_owns_them() {
    for trace in DRA {
        let (_dir, path) = kubelet(NOTHING);
        fs::create_dir_all(path.join(trace)).expect("made");
        let owner = owner_of_gpus(&path).expect("read");
        assert_eq!(owner.as_deref(), Some("the DRA driver gpu.nvidia.com"), "{trace}");
    }
}

#[test]
fn a_checkpoint_that_cannot_be_read_is_never_taken_for_empty() {
    for bad in [
        "",
        "{",
        "{}",
        r#"{"Data":[]}"#,
        r#"{"Data":{"PodDeviceEntries":null}}"#,
        r#"{"Data":{"PodDeviceEntries":[{"PodUID":1}]}}"#,
    ] {
        let (_dir, path) = kubelet(bad);
        for error in [allocations(&path).err(), owner_of_gpus(&path).err()] {
            let error = error.expect("not a checkpoint").to_string();
            assert!(error.contains(CHECKPOINT), "{bad:?}: {error}");
        }
    }
}

#[test]
fn exclusive_cpus_are_those_of_that_container() {
    let dir = tempfile::tempdir().expect("a directory");
    let read = |container: &str| exclusive_cpus(dir.path(), "u1", container);
    assert_eq!(read("main").expect("no state, nothing given"), None);
    let write = |text: &str| fs::write(dir.path().join(CPU_MANAGER), text).expect("written");
    write(r#"{"policyName":"none","defaultCpuSet":"","checksum":1353318690}"#);
    assert_eq!(read("main").expect("read"), None);
    write(
        r#"{"policyName":"static","defaultCpuSet":"0,4-7","entries":{"u1":{"main":"1-3"},"u2":{"side":"4"}},"checksum":1}"#,
    );
    let given = read("main").expect("read").map(|cpus| cpus.to_string());
    assert_eq!(given.as_deref(), Some("1-3"));
    assert_eq!(read("side").expect("read"), None, "another pod's");
    write("{");
    assert!(read("main").expect_err("broken").to_string().contains(CPU_MANAGER));
}

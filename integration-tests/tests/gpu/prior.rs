//! What others have allocated before Berth is asked: found in each form, recorded, completed, never second-guessed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::cri::given::{Device, KeyValue};
use integration_tests::cri::messages::{ContainerConfig, Mount};
use integration_tests::cri::pod::Pod;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use serde_json::{Value, json};

/// Node and control node of a GPU, as a caller of CRI injects them.
pub fn inject(config: &mut ContainerConfig, kubelet: &Kubelet, minors: &[u32]) {
    let nodes = minors.iter().map(|minor| format!("nvidia{minor}")).chain(["nvidiactl".to_owned()]);
    config.devices.extend(nodes.map(|name| Device {
        host_path: kubelet.node.root().join("dev").join(&name).to_string_lossy().into_owned(),
        container_path: format!("/dev/{name}"),
        permissions: "rw".to_owned(),
    }));
}

/// What an image, a pod's author or a device plugin says by the variable.
pub fn set_env(config: &mut ContainerConfig, value: &str) {
    config
        .envs
        .push(KeyValue { key: "NVIDIA_VISIBLE_DEVICES".to_owned(), value: value.to_owned() });
}

/// Marks as the device plugin's `volume-mounts` strategy makes them.
pub fn set_marks(config: &mut ContainerConfig, devices: &[&str]) {
    set_env(config, "/var/run/nvidia-container-devices");
    config.mounts.extend(devices.iter().map(|device| Mount {
        container_path: format!("/var/run/nvidia-container-devices/{device}"),
        host_path: "/dev/null".to_owned(),
    }));
}

/// An entry of the checkpoint as kubelets since 1.20 write it.
fn entry(pod: &Pod<'_>, container: &str, devices: &[&str]) -> Value {
    entry_of("nvidia.com/gpu", pod, container, devices)
}

/// The same of another of the plugin's resources.
pub fn entry_of(resource: &str, pod: &Pod<'_>, container: &str, devices: &[&str]) -> Value {
    json!({
        "PodUID": pod.name(), "ContainerName": container, "ResourceName": resource,
        "DeviceIDs": { "0": devices }, "AllocResp": "",
    })
}

/// The kubelet's checkpoint, with these entries.
pub fn checkpoint(kubelet: &Kubelet, entries: &[Value]) -> Result<()> {
    let all: Vec<String> = kubelet.node.sim.state()?.gpus.into_iter().map(|gpu| gpu.uuid).collect();
    kubelet.checkpoint(&json!({
        "PodDeviceEntries": entries, "RegisteredDevices": { "nvidia.com/gpu": all },
    }))
}

/// That the container has exactly the GPUs with these indices, found in this way; the driver's files complete them.
fn is_recorded(kubelet: &Kubelet, id: &str, by: &str, indices: &[usize]) -> Result<Value> {
    let grant = kubelet.grant_of(id)?;
    ensure!(grant["decided_by"] == by && grant["state"] == "applied", "{grant:#}");
    let given: Vec<&Value> =
        grant["gpus"].as_array().into_iter().flatten().map(|gpu| &gpu["uuid"]).collect();
    let wanted = indices.iter().map(|index| kubelet.uuid(*index)).collect::<Result<Vec<_>>>()?;
    ensure!(given == wanted.iter().collect::<Vec<_>>(), "{given:?} is not {wanted:?}");
    let inside = kubelet.has_exactly(id, &grant)?;
    ensure!(inside.libraries.contains("libcuda.so.1"), "completed: {inside:#?}");
    Ok(grant)
}

/// No policy, no annotation of Berth's: what is injected is recorded and completed, and given back with the pod.
pub fn injected_nodes_are_a_grant_that_another_decided(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    let pod = kubelet.pod(&[])?;
    let id = pod.run_adjusted("main", &SLEEP, |config| inject(config, &kubelet, &[1, 3]))?;
    let grant = is_recorded(&kubelet, &id, "injected", &[1, 3])?;
    ensure!(grant["owner"] == format!("tests/{}/main", pod.name()), "{grant:#}");
    let other = pod.run("other", &SLEEP)?;
    kubelet.has_nothing(&other)?;
    let shown = kubelet.node.berth(&["ps"])?.out;
    ensure!(shown.contains("injected"), "{shown}");
    pod.remove(&[&id, &other])?;
    kubelet.node.is_free()
}

/// `void` tells NVIDIA's own tools that all is done; it stays.
pub fn the_void_marker_of_an_injected_container_stays(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    let pod = kubelet.pod(&[])?;
    let id = pod.run_adjusted("main", &SLEEP, |config| {
        inject(config, &kubelet, &[2]);
        set_env(config, "void");
    })?;
    let grant = is_recorded(&kubelet, &id, "injected", &[2])?;
    let env = kubelet.has_exactly(&id, &grant)?.env;
    ensure!(env.get("NVIDIA_VISIBLE_DEVICES").is_some_and(|value| value == "void"), "{env:?}");
    // Alone it means nothing at all.
    let bare = pod.run_adjusted("bare", &SLEEP, |config| set_env(config, "void"))?;
    kubelet.has_nothing(&bare)?;
    pod.remove(&[&id, &bare])?;
    kubelet.node.is_free()
}

/// Libraries that another's edits have mounted are not brought a second time, and no node is there twice.
pub fn what_is_injected_already_is_not_injected_again(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    let pod = kubelet.pod(&[])?;
    let library = kubelet.node.root().join("usr/lib/x86_64-linux-gnu/libcuda.so.1");
    let place = "/usr/lib64/libcuda.so.1";
    let id = pod.run_adjusted("main", &SLEEP, |config| {
        inject(config, &kubelet, &[0]);
        let host_path = library.to_string_lossy().into_owned();
        config.mounts.push(Mount { container_path: place.to_owned(), host_path });
    })?;
    let grant = kubelet.only_grant()?;
    let inside = kubelet.has_exactly(&id, &grant)?;
    ensure!(inside.libraries.is_empty(), "brought again: {inside:#?}");
    let spec: Value = serde_json::from_slice(&fs::read(pod.bundle(&id).join("config.json"))?)?;
    let count = |list: &Value, field: &str, wanted: &str| {
        list.as_array().into_iter().flatten().filter(|one| one[field] == wanted).count()
    };
    for node in ["/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"] {
        ensure!(
            count(&spec["linux"]["devices"], "path", node) == 1,
            "{node}: {}",
            spec["linux"]["devices"]
        );
    }
    ensure!(count(&spec["mounts"], "destination", place) == 1, "{}", spec["mounts"]);
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// The device plugin's variable counts where the kubelet's checkpoint says the same of this very container.
pub fn the_variable_counts_with_the_checkpoint_in_both_of_its_forms(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    let (first, second) = (kubelet.uuid(1)?, kubelet.uuid(2)?);
    let pod = kubelet.pod(&[])?;
    let old = json!({
        "PodUID": pod.name(), "ContainerName": "old", "ResourceName": "nvidia.com/gpu",
        "DeviceIDs": [second], "AllocResp": "",
    });
    checkpoint(&kubelet, &[entry(&pod, "new", &[&first, &second]), old])?;
    let new =
        pod.run_adjusted("new", &SLEEP, |config| set_env(config, &format!("{first},{second}")))?;
    is_recorded(&kubelet, &new, "device plugin (env)", &[1, 2])?;
    // By index, as the plugin's `device-id-strategy: index` has it, and sharing a GPU that the plugin gives out twice.
    let old = pod.run_adjusted("old", &SLEEP, |config| set_env(config, "2"))?;
    is_recorded(&kubelet, &old, "device plugin (env)", &[2])?;
    pod.remove(&[&new, &old])?;
    // Replicas of a time-sliced GPU have a number behind.
    let sliced = kubelet.pod(&[])?;
    checkpoint(&kubelet, &[entry(&sliced, "main", &[&format!("{first}::3")])])?;
    let main = sliced.run_adjusted("main", &SLEEP, |config| set_env(config, &first))?;
    is_recorded(&kubelet, &main, "device plugin (env)", &[1])?;
    sliced.remove(&[&main])?;
    kubelet.node.is_free()
}

/// The device plugin's mounts, with the checkpoint.
pub fn the_mounts_count_with_the_checkpoint(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    let uuid = kubelet.uuid(3)?;
    let pod = kubelet.pod(&[])?;
    checkpoint(&kubelet, &[entry(&pod, "main", &[&uuid])])?;
    let id = pod.run_adjusted("main", &SLEEP, |config| set_marks(config, &[&uuid]))?;
    is_recorded(&kubelet, &id, "device plugin (mounts)", &[3])?;
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// What a pod's author can write by itself gets nothing: no checkpoint, another pod's, another container's, more than was given.
pub fn forged_marks_give_nothing(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(
        stage,
        "l40s",
        "[policy]\nenv-requests = \"non-cri\"\nnamespaces = [\"tests\"]",
    )?;
    let all = (0..4).map(|index| kubelet.uuid(index)).collect::<Result<Vec<_>>>()?;
    let (pod, victim) = (kubelet.pod(&[])?, kubelet.pod(&[])?);
    let mut ids = Vec::new();
    let mut forge = |name: &str, adjust: &dyn Fn(&mut ContainerConfig)| -> Result<()> {
        let id = pod.run_adjusted(name, &SLEEP, |config| adjust(config))?;
        let outcome = kubelet.has_nothing(&id).map(drop);
        ids.push(id);
        outcome.with_context(|| name.to_owned())
    };
    forge("all-without-checkpoint", &|config| set_env(config, "all"))?;
    forge("uuid-without-checkpoint", &|config| set_env(config, &all[0]))?;
    forge("mounts-without-checkpoint", &|config| set_marks(config, &[&all[0]]))?;
    checkpoint(
        &kubelet,
        &[
            entry(&victim, "main", &[&all[0]]),
            entry(&pod, "other", &[&all[0]]),
            entry(&pod, "more", &[&all[1]]),
        ],
    )?;
    forge("main", &|config| set_env(config, &all[0]))?;
    forge("more", &|config| set_env(config, &format!("{},{}", all[1], all[2])))?;
    forge("another", &|config| set_marks(config, &[&all[0]]))?;
    kubelet.node.is_free()?;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    pod.remove(&ids)?;
    victim.remove(&[])
}

/// What others give out may overlap; what Berth gave out is nobody else's, and what others gave out is not Berth's to give.
pub fn external_grants_may_overlap_each_other_but_never_berths_own(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let (one, two) = (kubelet.pod(&[])?, kubelet.pod(&[])?);
    let a = one.run_adjusted("main", &SLEEP, |config| inject(config, &kubelet, &[0]))?;
    let b = two.run_adjusted("main", &SLEEP, |config| inject(config, &kubelet, &[0]))?;
    for id in [&a, &b] {
        is_recorded(&kubelet, id, "injected", &[0])?;
    }
    let ours = kubelet.pod(&[("berth.dev/gpus", "4"), ("fits.berth.dev/gpus", "3")])?;
    let words = kubelet.refused(&ours, "main", |_| ())?;
    let holders =
        [&one, &two].map(|pod| format!("held by tests/{}/main (another allocator's)", pod.name()));
    let free = (1..4).map(|index| Ok(format!("{}: free", kubelet.uuid(index)?)));
    let expected = format!(
        "berth: no room for gpus 4: {}: {} and {}; {}; nearest fit: gpus 3",
        kubelet.uuid(0)?,
        holders[0],
        holders[1],
        free.collect::<Result<Vec<_>>>()?.join("; ")
    );
    ensure!(words == expected, "{words}\n  is not\n{expected}");
    let fits = ours.run("fits", &SLEEP)?;
    let third = kubelet.pod(&[])?;
    let words = kubelet.refused(&third, "main", |config| inject(config, &kubelet, &[1]))?;
    let expected = format!(
        "berth: injected gave this container {}, which Berth has given to tests/{}/fits; let one of the two allocate: \
         set node.gpus so that Berth leaves the other's GPUs alone",
        kubelet.uuid(1)?,
        ours.name()
    );
    ensure!(words == expected, "{words}\n  is not\n{expected}");
    one.remove(&[&a])?;
    two.remove(&[&b])?;
    ours.remove(&[&fits])?;
    third.remove(&[])?;
    kubelet.node.is_free()
}

/// Annotations on top of an allocation: the same number or devices agree, another is refused, and one that names none says how.
pub fn annotations_must_agree_with_what_was_allocated(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let pod = kubelet.pod(&[
        ("same.berth.dev/gpus", "1"),
        ("other.berth.dev/gpus", "2"),
        ("named.berth.dev/devices", &kubelet.uuid(1)?),
        ("how.berth.dev/driver-capabilities", "utility"),
    ])?;
    let words = kubelet.refused(&pod, "other", |config| inject(config, &kubelet, &[0]))?;
    let expected = format!(
        "berth: annotation other.berth.dev/gpus=\"2\": injected has already given this container {}; ask for the same, or ask for nothing",
        kubelet.uuid(0)?
    );
    ensure!(words == expected, "{words}\n  is not\n{expected}");
    let words = kubelet.refused(&pod, "named", |config| inject(config, &kubelet, &[0]))?;
    let expected = format!(
        "berth: annotation named.berth.dev/devices={:?}: injected has already given this container {}; ask for the same, or ask for nothing",
        kubelet.uuid(1)?,
        kubelet.uuid(0)?
    );
    ensure!(words == expected, "{words}\n  is not\n{expected}");
    let same = pod.run_adjusted("same", &SLEEP, |config| inject(config, &kubelet, &[0]))?;
    let grant = is_recorded(&kubelet, &same, "injected", &[0])?;
    ensure!(grant["requested"]["same.berth.dev/gpus"] == "1", "{grant:#}");
    // Naming exact devices is not asking for any: policy.devices has no say here.
    let named = pod.run_adjusted("named", &SLEEP, |config| inject(config, &kubelet, &[1]))?;
    is_recorded(&kubelet, &named, "injected", &[1])?;
    let how = pod.run_adjusted("how", &SLEEP, |config| inject(config, &kubelet, &[2]))?;
    let inside = kubelet.has_exactly(&how, &kubelet.grant_of(&how)?)?;
    ensure!(!inside.libraries.contains("libcuda.so.1"), "utility alone: {inside:#?}");
    pod.remove(&[&same, &named, &how])?;
    kubelet.node.is_free()
}

/// A checkpoint that cannot be read is never taken for empty; who says nothing of GPUs is not concerned.
pub fn a_damaged_checkpoint_refuses_whom_it_may_be_about(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    checkpoint(&kubelet, &[])?;
    let path: PathBuf = kubelet.checkpoint_path();
    fs::write(&path, "{\"Data\":")?;
    let pod = kubelet.pod(&[("asks.berth.dev/gpus", "1")])?;
    let words = kubelet.refused(&pod, "asks", |_| ())?;
    ensure!(words.contains(&path.display().to_string()), "{words}");
    let words = kubelet.refused(&pod, "marked", |config| set_env(config, "all"))?;
    ensure!(words.contains(&path.display().to_string()), "{words}");
    let plain = pod.run("plain", &SLEEP)?;
    kubelet.has_nothing(&plain)?;
    pod.remove(&[&plain])?;
    kubelet.node.is_free()
}

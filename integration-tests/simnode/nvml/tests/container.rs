//! The library in a container, where no state file is: its answers come from `/proc/driver/nvidia` and the device nodes.
//!
//! A chroot stands in for the container; that a device rule hides a GPU is for the suites with a real cgroup.

mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lab::{Lab, text};
use simnode::code::Code;
use simnode::container;

/// A root with the C library, nvidia-smi, and what a container gets of `lab`'s node with these GPUs.
fn container(lab: &Lab, gpus: &[u32]) -> PathBuf {
    let (host, root) = (lab.node.root(), lab.beside().join("container"));
    let libraries = root.join("usr/local/nvidia/lib64");
    for folder in ["dev", "usr/bin", "proc/driver/nvidia/gpus", "lib64", "lib/x86_64-linux-gnu"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    fs::create_dir_all(&libraries).expect("a folder");
    let copy = |from: &Path, to: PathBuf| {
        let done = Command::new("cp").arg("-aL").arg(from).arg(to).status().expect("cp");
        assert!(done.success());
    };
    for file in ["/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6"] {
        copy(file.as_ref(), root.join(&file[1..]));
    }
    copy(&host.join("usr/bin/nvidia-smi"), root.join("usr/bin"));
    copy(&lab.node.nvml_path().expect("a path"), libraries);
    copy(&host.join("proc/driver/nvidia/version"), root.join("proc/driver/nvidia"));
    let node = |name: &str| {
        let done = Command::new("cp")
            .arg("-a")
            .arg(host.join("dev").join(name))
            .arg(root.join("dev"))
            .status();
        assert!(done.expect("cp").success());
    };
    node("nvidiactl");
    for gpu in &lab.node.state().expect("a state").gpus {
        if gpus.contains(&gpu.minor) {
            let entry = format!("proc/driver/nvidia/gpus/{}", gpu.route.device);
            copy(&host.join(entry), root.join("proc/driver/nvidia/gpus"));
            node(&format!("nvidia{}", gpu.minor));
        }
    }
    root
}

/// The driver library in such a root.
fn library(root: &Path) -> PathBuf {
    root.join("usr/local/nvidia/lib64/libnvidia-ml.so.1")
}

fn smi(root: &Path) -> Output {
    let mut command = Command::new("chroot");
    command.arg(root).args(["/usr/bin/nvidia-smi", "-L"]).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("LD_LIBRARY_PATH", "/usr/local/nvidia/lib64").output().expect("chroot")
}

#[test]
fn only_the_granted_gpus_are_there_and_are_what_they_are_on_the_host() {
    let lab = Lab::up("p5");
    let root = container(&lab, &[2, 5]);
    let output = smi(&root);
    let listed = text(&output.stdout);
    let gpus = lab.node.state().expect("a state").gpus;
    let expected = [(0, &gpus[2]), (1, &gpus[5])]
        .map(|(index, gpu)| format!("GPU {index}: {} (UUID: {})\n", gpu.model, gpu.uuid));
    assert_eq!(listed, expected.concat(), "{}", text(&output.stderr));
    let found = container::observe(&root, &library(&root)).expect("a state");
    assert_eq!(found.machine, lab.node.state().expect("a state").machine);
    assert_eq!(found.gpus, [gpus[2].clone(), gpus[5].clone()]);
}

#[test]
fn an_information_file_without_a_device_node_is_no_gpu() {
    let lab = Lab::up("a30");
    let root = container(&lab, &[0, 1]);
    fs::remove_file(root.join("dev/nvidia1")).expect("a node");
    assert_eq!(text(&smi(&root).stdout).lines().count(), 1);
    fs::remove_file(root.join("dev/nvidia0")).expect("a node");
    let output = smi(&root);
    assert_eq!(
        (output.status.code(), text(&output.stdout).trim()),
        (Some(6), "No devices were found")
    );
}

#[test]
fn without_the_driver_in_sight_the_library_says_so() {
    let lab = Lab::up("t4");
    let root = container(&lab, &[0]);
    fs::remove_file(root.join("dev/nvidiactl")).expect("a node");
    assert_eq!(
        container::observe(&root, &library(&root)).expect_err("no control node"),
        Code::DRIVER_NOT_LOADED
    );
    assert_eq!(smi(&root).status.code(), Some(9));
    fs::remove_dir_all(root.join("proc")).expect("a folder");
    assert_eq!(smi(&root).status.code(), Some(9));
    fs::remove_dir_all(root.join("usr/local")).expect("a folder");
    let output = smi(&root);
    assert_eq!(output.status.code(), Some(12), "{}", text(&output.stdout));
}

#[test]
fn a_gpu_of_no_profile_is_known_by_its_model() {
    let lab = Lab::up("one");
    let root = container(&lab, &[0]);
    let file = root.join("proc/driver/nvidia/gpus/0000:01:00.0/information");
    let uuid = &lab.node.state().expect("a state").gpus[0].uuid;
    let text = fs::read_to_string(&file).expect("a file");
    fs::write(&file, text.replace(uuid, "GPU-from-elsewhere")).expect("a file");
    let found = container::observe(&root, &library(&root)).expect("a state");
    assert_eq!(
        (found.gpus[0].uuid.as_str(), found.gpus[0].model().memory),
        ("GPU-from-elsewhere", 81559)
    );
}

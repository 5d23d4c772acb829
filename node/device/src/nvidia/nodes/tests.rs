//! Numbers as kernels list them, and nodes and links on a host.

use super::*;
use crate::nvidia::fake::{DEVICES, Fake, gpu};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::os::unix::fs::PermissionsExt;

fn names(nodes: &[DeviceNode]) -> Vec<String> {
    nodes.iter().map(|node| format!("{} {}:{}", node.path, node.major, node.minor)).collect()
}

/// Makes a character device below the fake root. Not everybody may.
fn make(fake: &Fake, path: &str, major: u64, minor: u64) -> Option<()> {
    let path = fake.host.path(path);
    fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
    let made = mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o660), makedev(major, minor));
    if let Err(errno) = made {
        eprintln!("skipped: no device node can be made here: {errno}");
        return None;
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).expect("ours");
    Some(())
}

#[test]
fn a_container_gets_its_gpus_by_minor_and_what_every_cuda_program_opens() {
    let fake = Fake::new();
    let odd = Gpu { minor: 7, ..gpu(1) };
    let nodes =
        device_nodes(&fake.host, &[&odd, &gpu(0)], &[], &Capabilities::default()).expect("known");
    assert_eq!(
        names(&nodes),
        [
            "/dev/nvidiactl 195:255",
            "/dev/nvidia-uvm 509:0",
            "/dev/nvidia-uvm-tools 509:1",
            "/dev/nvidia0 195:0",
            "/dev/nvidia7 195:7",
        ]
    );
    assert!(nodes.iter().all(|node| (node.mode, node.uid, node.gid) == (0o666, 0, 0)));
}

#[test]
fn majors_come_from_the_kernels_list_of_character_devices() {
    let fake = Fake::new();
    fake.write("/proc/devices", DEVICES.replace("195 nvidia\n", "194 nvidia-frontend\n"));
    assert_eq!(
        names(&device_nodes(&fake.host, &[], &[], &Capabilities::default()).expect("known"))[0],
        "/dev/nvidiactl 194:255"
    );
    fake.write("/proc/devices", DEVICES.replace("509 nvidia-uvm", ""));
    // 510 is a block device's.
    assert_eq!(
        device_nodes(&fake.host, &[], &[], &Capabilities::default()).expect("known").len(),
        1
    );
    fake.write("/proc/devices", "Character devices:\n  1 mem\n\nBlock devices:\n195 nvidia\n");
    let error = device_nodes(&fake.host, &[], &[], &Capabilities::default())
        .expect_err("no driver")
        .to_string();
    assert!(error.contains("/proc/devices lists no device \"nvidia\""), "{error}");
}

#[test]
fn a_node_on_the_host_gives_its_mode() {
    let fake = Fake::new();
    let Some(()) = make(&fake, "/dev/nvidia0", 195, 0) else { return };
    let nodes = device_nodes(&fake.host, &[&gpu(0)], &[], &Capabilities::default()).expect("known");
    let node = nodes.last().expect("the GPU's");
    assert_eq!((node.mode, node.minor), (0o660, 0));
}

#[test]
fn a_node_that_is_another_device_is_refused() {
    let fake = Fake::new();
    let Some(()) = make(&fake, "/dev/nvidia0", 195, 1) else { return };
    let error = device_nodes(&fake.host, &[&gpu(0)], &[], &Capabilities::default())
        .expect_err("GPU 1's")
        .to_string();
    assert!(error.contains("/dev/nvidia0 is character device 195:1, not"), "{error}");
}

#[test]
fn a_file_or_link_in_a_nodes_place_is_refused() {
    let fake = Fake::new();
    fake.write("/dev/nvidia0", "");
    assert!(device_nodes(&fake.host, &[&gpu(0)], &[], &Capabilities::default()).is_err());
    fake.link("/dev/nvidia1", "/dev/null");
    assert!(device_nodes(&fake.host, &[&gpu(1)], &[], &Capabilities::default()).is_err());
}

#[test]
fn links_are_made_for_nodes_that_stand_and_left_alone_when_they_do() {
    let fake = Fake::new();
    let Some(()) = make(&fake, "/dev/nvidia0", 195, 0) else { return };
    fs::create_dir_all(fake.host.path("/dev/char")).expect("made");
    let nodes = device_nodes(&fake.host, &[&gpu(0), &gpu(1)], &[], &Capabilities::default())
        .expect("known");
    assert_eq!(missing_char_links(&fake.host, &nodes), ["/dev/char/195:0"]);
    for _ in 0..2 {
        assert!(char_links(&fake.host, &nodes).is_empty());
    }
    assert!(missing_char_links(&fake.host, &nodes).is_empty());
    let link = fake.host.path("/dev/char/195:0");
    assert_eq!(fs::read_link(&link).expect("a link"), Path::new("../nvidia0"));
    assert_eq!(fs::read_dir(fake.host.path("/dev/char")).expect("listed").count(), 1);
}

#[test]
fn a_link_that_is_in_the_way_or_cannot_be_made_is_reported_and_left() {
    let fake = Fake::new();
    let Some(()) = make(&fake, "/dev/nvidia0", 195, 0) else { return };
    let nodes = device_nodes(&fake.host, &[&gpu(0)], &[], &Capabilities::default()).expect("known");
    let problems = char_links(&fake.host, &nodes);
    assert!(problems[0].to_string().contains("195:0 -> ../nvidia0 is missing"), "no /dev/char");
    fake.link("/dev/char/195:0", "../nvidia9");
    let problems = char_links(&fake.host, &nodes);
    assert!(problems[0].to_string().ends_with("it leads to ../nvidia9"), "{}", problems[0]);
    let link = fake.host.path("/dev/char/195:0");
    assert_eq!(fs::read_link(link).expect("still there"), Path::new("../nvidia9"));
}

#[test]
fn a_mig_device_comes_with_what_lets_a_process_use_it() {
    let fake = Fake::new();
    // 3 + 135 * GPU + 9 * GPU instance; one more and the compute instance's id for the compute instance (NVIDIA's mig-minors).
    let folder = "/proc/driver/nvidia/capabilities/gpu1/mig/gi9";
    let access = |minor: u32| {
        format!("DeviceFileMinor: {minor}\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
    };
    fake.write(&format!("{folder}/access"), access(219));
    fake.write(&format!("{folder}/ci0/access"), access(220));
    let mig = MigDevice { gpu: 1, gpu_instance: 9, compute_instance: 0 };
    let nodes =
        device_nodes(&fake.host, &[&gpu(1)], &[mig, mig], &Capabilities::default()).expect("known");
    let last: Vec<_> = names(&nodes).into_iter().rev().take(3).collect();
    assert_eq!(
        last,
        [
            "/dev/nvidia-caps/nvidia-cap220 236:220",
            "/dev/nvidia-caps/nvidia-cap219 236:219",
            "/dev/nvidia1 195:1"
        ]
    );
    assert!(nodes.iter().rev().take(2).all(|node| node.mode == 0o444));
    let gone = MigDevice { gpu_instance: 10, ..mig };
    let error = device_nodes(&fake.host, &[&gpu(1)], &[gone], &Capabilities::default())
        .expect_err("none")
        .to_string();
    assert!(error.contains("gpu1/mig/gi10/access"), "{error}");
}

#[test]
fn what_draws_has_the_nodes_of_its_own_gpus_by_their_addresses() {
    let fake = Fake::new();
    let graphics = "compute,graphics".parse().expect("names");
    // As many drivers count: not in the order of the GPUs, and another's in between.
    for (pci, card, render) in
        [("0000:53:00.0", 2, 129), ("0000:54:00.0", 0, 128), ("0000:02:00.0", 1, 130)]
    {
        let drm = format!("/sys/bus/pci/devices/{pci}/drm");
        fake.write(&format!("{drm}/card{card}/dev"), format!("226:{card}\n"));
        fake.write(&format!("{drm}/renderD{render}/dev"), format!("226:{render}\n"));
        fake.write(&format!("{drm}/card{card}-DP-1/status"), "disconnected\n");
    }
    let nodes = device_nodes(&fake.host, &[&gpu(0)], &[], &graphics).expect("known");
    let drawing = |nodes: &[DeviceNode]| -> Vec<String> {
        names(nodes).into_iter().filter(|node| node.contains("/dri/")).collect()
    };
    assert_eq!(drawing(&nodes), ["/dev/dri/card2 226:2", "/dev/dri/renderD129 226:129"]);
    // The driver of this list has no modeset module.
    assert!(!names(&nodes).iter().any(|node| node.contains("modeset")));
    fake.write("/proc/devices", DEVICES.replace("195 nvidiactl\n", "195 nvidia-modeset\n"));
    let nodes = device_nodes(&fake.host, &[&gpu(0)], &[], &graphics).expect("known");
    assert!(names(&nodes).contains(&"/dev/nvidia-modeset 195:254".to_owned()));
    let nodes = device_nodes(&fake.host, &[&gpu(0)], &[], &Capabilities::default());
    let nodes = names(&nodes.expect("known"));
    assert!(
        !nodes.iter().any(|node| node.contains("dri") || node.contains("modeset")),
        "{nodes:?}"
    );
}

#[test]
fn a_mig_device_has_nothing_of_what_would_be_the_whole_gpu_s() {
    let fake = Fake::new();
    fake.write("/sys/bus/pci/devices/0000:53:00.0/drm/renderD128/dev", "226:128\n");
    for access in ["access", "ci0/access"] {
        let path = format!("/proc/driver/nvidia/capabilities/gpu0/mig/gi1/{access}");
        fake.write(&path, "DeviceFileMinor: 12\nDeviceFileMode: 292\n");
    }
    let mig = MigDevice { gpu: 0, gpu_instance: 1, compute_instance: 0 };
    let graphics = "graphics".parse().expect("a name");
    let nodes = device_nodes(&fake.host, &[&gpu(0)], &[mig], &graphics).expect("known");
    assert!(names(&nodes).iter().all(|node| !node.contains("/dri/")), "{nodes:?}");
}

#[test]
fn a_drawing_node_without_a_number_is_told_of() {
    let fake = Fake::new();
    fake.write("/sys/bus/pci/devices/0000:53:00.0/drm/card0/dev", "none\n");
    let graphics = "graphics".parse().expect("a name");
    let error = device_nodes(&fake.host, &[&gpu(0)], &[], &graphics).expect_err("no number");
    assert!(error.to_string().contains("holds \"none\", which is no device number"), "{error}");
}

//! What a container is shown.

use super::*;
use crate::nvidia::fake::{Fake, gpu};
use std::collections::BTreeSet;

fn files(dir: &Path) -> BTreeSet<String> {
    fn walk(dir: &Path, below: &Path, found: &mut BTreeSet<String>) {
        for name in keep::names(dir).expect("listed") {
            let (path, below) = (dir.join(&name), below.join(&name));
            found.insert(below.display().to_string());
            if path.is_dir() {
                walk(&path, &below, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(dir, Path::new(""), &mut found);
    found
}

#[test]
fn the_tree_shows_the_driver_and_the_granted_gpus_alone() {
    let fake = Fake::new();
    let tree = proc_tree(&fake.host, &[&gpu(1)], &[]).expect("made");
    let shown: Vec<String> = files(&tree).into_iter().collect();
    assert_eq!(
        shown,
        [
            "nvidia",
            "nvidia/gpus",
            "nvidia/gpus/0000:54:00.0",
            "nvidia/gpus/0000:54:00.0/information",
            "nvidia/gpus/0000:54:00.0/registry",
            "nvidia/params",
            "nvidia/registry",
            "nvidia/version",
        ]
    );
    for name in &shown {
        let path = tree.join(name);
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o555 } else { 0o444 }, "{name}");
    }
    let real = |path: &str| fs::read(fake.host.path(path)).expect("there");
    let information = "gpus/0000:54:00.0/information";
    assert_eq!(
        fs::read(tree.join("nvidia").join(information)).expect("there"),
        real(&format!("/proc/driver/nvidia/{information}"))
    );
    assert_eq!(
        fs::read(tree.join("nvidia/version")).expect("there"),
        real("/proc/driver/nvidia/version")
    );
}

#[test]
fn tools_in_the_container_are_told_to_leave_device_nodes_alone() {
    let params = "ResmanDebugLevel: 1\nModifyDeviceFiles: 1\nDeviceFileMode: 438\n";
    assert_eq!(masked(params), "ModifyDeviceFiles: 0\nResmanDebugLevel: 1\nDeviceFileMode: 438\n");
    assert_eq!(masked("ModifyDeviceFiles:1"), "ModifyDeviceFiles: 0\n");
    assert_eq!(masked(""), "ModifyDeviceFiles: 0\n");
}

#[test]
fn one_tree_serves_the_same_gpus_in_any_order() {
    let fake = Fake::new();
    let tree = |gpus: &[&Gpu]| proc_tree(&fake.host, gpus, &[]).expect("made");
    let both = tree(&[&gpu(0), &gpu(1)]);
    assert_eq!(tree(&[&gpu(1), &gpu(0)]), both);
    assert_ne!(tree(&[&gpu(0)]), both);
    let trees = both.parent().expect("in a folder");
    assert_eq!(keep::names(trees).expect("listed").len(), 2, "and nothing unfinished");
}

#[test]
fn admissions_at_once_make_one_tree() {
    let fake = Fake::new();
    let made: BTreeSet<PathBuf> = std::thread::scope(|scope| {
        let make = || proc_tree(&fake.host, &[&gpu(0)], &[]).expect("made");
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().expect("made")).collect()
    });
    assert_eq!(made.len(), 1);
    let trees = fake.host.run.join(fake.host.boot_id().expect("one")).join("proc");
    assert_eq!(keep::names(&trees).expect("listed").len(), 1);
}

#[test]
fn a_driver_that_was_loaded_anew_gets_a_tree_of_its_own() {
    let fake = Fake::new();
    let old = proc_tree(&fake.host, &[&gpu(0)], &[]).expect("made");
    let module = fake.host.path("/sys/module/nvidia");
    // Both stand for a moment, so that they cannot have one inode.
    fs::create_dir(module.with_file_name("anew")).expect("made");
    fs::remove_dir(&module).expect("removed");
    fs::rename(module.with_file_name("anew"), &module).expect("renamed");
    assert_ne!(proc_tree(&fake.host, &[&gpu(0)], &[]).expect("made"), old);
}

#[test]
fn without_the_driver_there_is_nothing_to_show() {
    let fake = Fake::bare();
    let error = proc_tree(&fake.host, &[&gpu(0)], &[]).expect_err("no driver").to_string();
    assert!(error.contains("/proc/driver/nvidia/version"), "{error}");
    let trees = fake.host.run.join(fake.host.boot_id().expect("one")).join("proc");
    assert!(keep::names(&trees).expect("listed").is_empty(), "nothing unfinished is left");
}

#[test]
fn what_was_kept_of_a_gpu_spares_asking_the_driver() {
    let fake = Fake::new();
    capture(&fake.host).expect("kept");
    let information = fake.host.path("/proc/driver/nvidia/gpus/0000:54:00.0/information");
    let said = fs::read(&information).expect("there");
    // Whoever opened this would wait for ever, as for a driver that hangs.
    fs::remove_file(&information).expect("removed");
    nix::unistd::mkfifo(&information, nix::sys::stat::Mode::S_IRWXU).expect("made");
    let tree = proc_tree(&fake.host, &[&gpu(1)], &[]).expect("made");
    let shown = tree.join("nvidia/gpus/0000:54:00.0/information");
    assert_eq!(fs::read(shown).expect("there"), said);
    capture(&fake.host).expect("kept anew");
    let boot = fake.host.run.join(fake.host.boot_id().expect("one"));
    let left = keep::names(&boot).expect("listed");
    assert!(left.iter().all(|name| !name.starts_with('.')), "unfinished: {left:?}");
}

#[test]
fn what_was_kept_of_another_driver_is_not_shown() {
    let fake = Fake::new();
    capture(&fake.host).expect("kept");
    let version = fake.host.path("/proc/driver/nvidia/version");
    fs::write(&version, "NVRM version: another\n").expect("written");
    let tree = proc_tree(&fake.host, &[&gpu(1)], &[]).expect("made");
    assert_eq!(fs::read(tree.join("nvidia/version")).expect("there"), b"NVRM version: another\n");
}

#[test]
fn of_the_capabilities_those_of_its_mig_devices_are_shown() {
    let fake = Fake::new();
    for (path, minor) in [("gi9", 219), ("gi9/ci0", 220), ("gi10", 228), ("gi10/ci0", 229)] {
        let path = format!("/proc/driver/nvidia/capabilities/gpu1/mig/{path}/access");
        fake.write(&path, format!("DeviceFileMinor: {minor}\n"));
    }
    let mig = |gpu_instance| MigDevice { gpu: 1, gpu_instance, compute_instance: 0 };
    let tree = |mig| proc_tree(&fake.host, &[&gpu(1)], &[mig]).expect("made");
    let (one, other) = (tree(mig(9)), tree(mig(10)));
    assert_ne!(one, other);
    let shown = one.join("nvidia/capabilities/gpu1/mig");
    assert_eq!(
        fs::read_to_string(shown.join("gi9/ci0/access")).expect("there"),
        "DeviceFileMinor: 220\n"
    );
    assert!(shown.join("gi9/access").exists() && !shown.join("gi10").exists());
    assert_eq!(fs::metadata(&shown).expect("there").permissions().mode() & 0o777, 0o555);
}

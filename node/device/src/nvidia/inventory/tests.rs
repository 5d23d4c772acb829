//! When the node is looked at, and when what was seen is believed.

use super::*;
use crate::cache::Seen;
use crate::nvidia::fake::{Fake, driver, gpu};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

fn seen() -> Inventory {
    Inventory { driver: Some(driver()), gpus: vec![gpu(0), gpu(1)], ..Inventory::default() }
}

/// A node, and a stand-in for `berth observe` that counts its runs and remembers what a look would have.
fn node() -> (Fake, Tool, PathBuf) {
    node_that_is(false)
}

fn node_that_is(incomplete: bool) -> (Fake, Tool, PathBuf) {
    let fake = Fake::new();
    let key = Key::now(&fake.host).expect("read").expect("a driver");
    let problems = vec!["GPU 2 is lost".into()];
    let found = Seen { inventory: seen(), incomplete, problems };
    cache::store(&fake.host, key, found).expect("stored");
    let cached = cached(&fake);
    let observed = cached.with_file_name("observed");
    fs::rename(&cached, &observed).expect("moved");
    let runs = fake.dir.path().join("runs");
    let script = format!(
        "echo \"$@\" >> {runs}\ncp {observed} {cached}.new && mv {cached}.new {cached}",
        runs = runs.display(),
        observed = observed.display(),
        cached = cached.display()
    );
    let tool = fake.tool(&script);
    (fake, tool, runs)
}

fn cached(fake: &Fake) -> PathBuf {
    fake.host.run.join(fake.host.boot_id().expect("one")).join("inventory.json")
}

fn runs(path: &PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_node_without_the_driver_has_nothing_and_starts_no_child() {
    let fake = Fake::bare();
    let nowhere = Tool { program: "/nowhere/berth".into(), ..fake.tool("") };
    assert_eq!(inventory(&fake.host, &nowhere, |_| false).expect("nothing"), Inventory::default());
    assert!(!fake.host.run.exists(), "and leaves nothing behind");
}

#[test]
fn the_node_is_looked_at_once() {
    let (fake, tool, count) = node();
    for _ in 0..3 {
        assert_eq!(inventory(&fake.host, &tool, |_| false).expect("seen"), seen());
    }
    assert_eq!(runs(&count), "observe\n");
    assert_eq!(cache::problems(&fake.host), ["GPU 2 is lost"]);
}

#[test]
fn many_at_once_wait_for_one_look() {
    let (fake, tool, count) = node();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                assert_eq!(inventory(&fake.host, &tool, |_| false).expect("seen"), seen())
            });
        }
    });
    assert_eq!(runs(&count), "observe\n");
}

#[test]
fn whatever_is_wrong_with_the_cache_the_node_is_looked_at_anew() {
    let (fake, tool, count) = node();
    inventory(&fake.host, &tool, |_| false).expect("seen");
    let good = fs::read_to_string(cached(&fake)).expect("there");
    let newer = good.replace("\"format\":2", "\"format\":3");
    for bad in ["", "{", "null", &good[..good.len() / 2], &newer] {
        fs::write(cached(&fake), bad).expect("written");
        fs::write(&count, "").expect("written");
        assert_eq!(inventory(&fake.host, &tool, |_| false).expect("seen"), seen(), "{bad}");
        assert_eq!(runs(&count), "observe\n", "{bad}");
    }
}

type Change = fn(&mut Fake);

#[test]
fn any_change_of_the_driver_or_its_gpus_voids_the_cache() {
    let changes: [(&str, Change); 6] = [
        ("a GPU", |fake| fake.write("/proc/driver/nvidia/gpus/0000:99:00.0/information", "")),
        ("a MIG instance", |fake| {
            fake.write("/proc/driver/nvidia/capabilities/gpu0/mig/gi1/access", "");
        }),
        ("the version", |fake| fake.write("/proc/driver/nvidia/version", "NVRM version: 1.2.3\n")),
        ("the module", |fake| {
            let module = fake.host.path("/sys/module/nvidia");
            fs::create_dir(module.with_file_name("anew")).expect("made");
            fs::remove_dir(&module).expect("removed");
            fs::rename(module.with_file_name("anew"), &module).expect("renamed");
        }),
        ("the boot", |fake| fake.write("/proc/sys/kernel/random/boot_id", "0a0b-0c0d\n")),
        ("the library", |fake| fake.host.nvml = "/opt/libnvidia-ml.so.1".into()),
    ];
    for (what, change) in changes {
        let (mut fake, tool, _) = node();
        inventory(&fake.host, &tool, |_| false).expect("seen");
        change(&mut fake);
        // The stand-in brings what was before, which must not be believed any more.
        let error = inventory(&fake.host, &tool, |_| false).expect_err(what).to_string();
        assert!(error.contains("left no answer"), "{what}: {error}");
        assert!(cache::problems(&fake.host).is_empty(), "{what}");
    }
}

#[test]
fn an_inventory_without_one_of_the_gpus_is_believed_for_a_while_only() {
    for (incomplete, looks) in [(false, "observe\n"), (true, "observe\nobserve\n")] {
        let (fake, tool, count) = node_that_is(incomplete);
        inventory(&fake.host, &tool, |_| false).expect("seen");
        inventory(&fake.host, &tool, |_| false).expect("seen");
        assert_eq!(runs(&count), "observe\n", "fresh");
        let file = fs::File::options().write(true).open(cached(&fake)).expect("there");
        file.set_modified(SystemTime::now() - Duration::from_secs(301)).expect("ours");
        inventory(&fake.host, &tool, |_| false).expect("seen");
        assert_eq!(runs(&count), looks, "incomplete: {incomplete}");
    }
}

#[test]
fn a_look_that_fails_says_why_and_is_not_remembered() {
    let (fake, tool, _) = node();
    let failing = fake.tool("echo 'berth: libnvidia-ml.so.1: cannot start NVML' >&2; exit 1");
    let error = inventory(&fake.host, &failing, |_| false).expect_err("it failed").to_string();
    assert!(error.contains("look at the node's GPUs: libnvidia-ml.so.1: cannot start"), "{error}");
    drop(tool);
    assert!(!cached(&fake).exists());
}

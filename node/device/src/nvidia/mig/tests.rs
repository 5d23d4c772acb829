//! When what is kept of a GPU's instances is believed.

use super::*;
use crate::nvidia::fake::{Fake, driver, gpu};
use plan::mig::ComputeInstance;

const GI: &str = "/proc/driver/nvidia/capabilities/gpu1/mig/gi9";

/// A node whose second GPU is in MIG mode, with one instance of which all is known.
fn node() -> (Fake, Inventory, Instance) {
    let fake = Fake::new();
    fake.write(&format!("{GI}/access"), "DeviceFileMinor: 219\n");
    fake.write(&format!("{GI}/ci0/access"), "DeviceFileMinor: 220\n");
    let split = Gpu { mig: true, ..gpu(1) };
    let instance = Instance {
        gpu_instance: 9,
        profile: 19,
        start: 2,
        size: 1,
        compute_instances: vec![ComputeInstance { id: 0, uuid: None }],
    };
    let listing = Listing::now(&fake.host, &split).expect("read");
    store(&fake.host, &split.uuid, listing, vec![instance.clone()]).expect("kept");
    let inventory =
        Inventory { driver: Some(driver()), gpus: vec![gpu(0), split], ..Inventory::default() };
    (fake, inventory, instance)
}

fn filled(fake: &Fake, inventory: &Inventory, is_busy: bool) -> (bool, Vec<Instance>) {
    let mut filled = inventory.clone();
    let known = fill(&fake.host, &mut filled, |_| is_busy).expect("read");
    (known, filled.gpus.remove(1).instances)
}

#[test]
fn what_is_kept_holds_as_long_as_the_driver_lists_the_same() {
    let (fake, inventory, instance) = node();
    assert_eq!(filled(&fake, &inventory, false), (true, vec![instance]));
}

#[test]
fn an_instance_that_has_come_makes_it_unknown() {
    let (fake, inventory, instance) = node();
    fake.write("/proc/driver/nvidia/capabilities/gpu1/mig/gi10/access", "");
    assert_eq!(filled(&fake, &inventory, false), (false, vec![instance.clone()]));
    // Whoever holds the GPU's lock will say what it is; until then the ledger does.
    assert_eq!(filled(&fake, &inventory, true), (true, vec![instance]));
}

#[test]
fn an_instance_that_was_made_anew_is_another_one() {
    let (fake, inventory, instance) = node();
    let old = fake.host.path(&format!("{GI}/ci0"));
    // Kept beside, so that its inode is not given to the new one.
    fs::rename(&old, fake.dir.path().join("old")).expect("moved");
    fake.write(&format!("{GI}/ci0/access"), "DeviceFileMinor: 220\n");
    assert!(!filled(&fake, &inventory, false).0);
    // Until it is known what it is, it is in the way, and nobody's to name.
    let in_the_way = Instance { compute_instances: Vec::new(), ..instance };
    assert_eq!(filled(&fake, &inventory, true), (true, vec![in_the_way]));
}

#[test]
fn an_instance_that_has_gone_is_not_there_whoever_is_busy() {
    let (fake, inventory, _) = node();
    fs::remove_dir_all(fake.host.path(GI)).expect("removed");
    assert_eq!(filled(&fake, &inventory, true), (true, Vec::new()));
    // Where nothing is listed, there is nothing to be learned.
    assert_eq!(filled(&fake, &inventory, false), (true, Vec::new()));
}

#[test]
fn a_gpu_that_is_whole_has_none() {
    let (fake, mut inventory, _) = node();
    inventory.gpus[1].mig = false;
    assert_eq!(filled(&fake, &inventory, false), (true, Vec::new()));
}

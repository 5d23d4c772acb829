//! MIG instances for tests: GPUs in MIG mode, and what is on them.
//!
//! Decides nothing. The expectations stand in the tests.

use plan::mig::{ComputeInstance, Instance};
use plan::*;

use super::geometry::Model;
use super::{holder, node, numbers, uuid};

/// So many GPUs of the model, all in MIG mode, on one NUMA node.
pub fn split(model: &Model, number: usize) -> Inventory {
    let mut inventory = node(&vec![Some(0); number], |_, _| (12, Ancestor::Node));
    inventory.gpus = inventory.gpus.into_iter().map(|gpu| model.split(gpu)).collect();
    inventory
}

/// The driver's id of a profile, and its memory slices.
pub fn profile(inventory: &Inventory, gpu: u32, name: &str) -> (u32, u32) {
    let gpu = inventory.gpu(&uuid(gpu)).expect("a GPU");
    let profile = gpu.profile(&name.parse().expect("a name")).expect("a profile");
    (profile.id, profile.slices)
}

/// Instances that are held: GPU, profile, start, by whom.
pub fn sliced(
    inventory: &Inventory,
    held: &[(u32, &str, u32, &'static str)],
) -> Occupancy<'static> {
    let mut occupancy = Occupancy::default();
    for (gpu, name, start, label) in held {
        let (profile, size) = profile(inventory, *gpu, name);
        let slice = Slice { profile, start: *start, size, holder: holder(label) };
        occupancy.add_slice(&uuid(*gpu), slice);
    }
    occupancy
}

/// Adds an instance that is there.
pub fn observed(inventory: &mut Inventory, gpu: u32, id: u32, name: &str, start: u32) {
    let (profile, size) = profile(inventory, gpu, name);
    let gpu = inventory.gpus.iter_mut().find(|one| one.uuid == uuid(gpu)).expect("a GPU");
    let mig = format!("MIG-{id:08x}-0000-4000-8000-00000000000{}", gpu.index);
    let device = ComputeInstance { id: 0, uuid: Some(mig.parse().expect("a name")) };
    let compute_instances = vec![device];
    gpu.instances.push(Instance { gpu_instance: id, profile, start, size, compute_instances });
}

/// GPU and start of each instance.
pub fn places(placement: &Placement) -> Vec<(u32, u32)> {
    placement
        .slots
        .iter()
        .map(|slot| (numbers(std::slice::from_ref(&slot.gpu))[0], slot.start))
        .collect()
}

//! Nodes for tests: inventories written down from real machines' topologies, and who holds what on them.
//!
//! Decides nothing. The expectations stand in the tests.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod geometry;
pub mod instances;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use plan::*;

/// The UUID of a test's GPU: its number is its order.
pub fn uuid(number: u32) -> GpuUuid {
    format!("GPU-{number:08x}-0000-4000-8000-000000000000").parse().expect("a UUID")
}

/// A GPU without peers.
pub fn gpu(index: u32, uuid: GpuUuid, numa_node: Option<u32>) -> Gpu {
    Gpu {
        index,
        uuid,
        pci: PciAddress { domain: 0, bus: 0x10 + index as u8, device: 0, function: 0 },
        minor: index,
        model: "NVIDIA H100 80GB HBM3".into(),
        brand: "nvidia".into(),
        compute_capability: CudaVersion { major: 9, minor: 0 },
        memory: Mib(81_559),
        numa_node,
        mig: false,
        mig_capable: true,
        profiles: Vec::new(),
        instances: Vec::new(),
        peers: BTreeMap::new(),
    }
}

/// A driver of today.
pub fn driver() -> Driver {
    Driver { version: "550.163.01".into(), cuda: CudaVersion { major: 12, minor: 4 } }
}

/// GPUs 0 to `numa.len()`, each on its NUMA node, with the way between any two as `way` says.
pub fn node(numa: &[Option<u32>], way: impl Fn(u32, u32) -> (u32, Ancestor)) -> Inventory {
    let gpus = (0..).zip(numa).map(|(i, node)| gpu(i, uuid(i), *node));
    let mut inventory =
        Inventory { driver: Some(driver()), gpus: gpus.collect(), ..Inventory::default() };
    connect(&mut inventory, way);
    inventory
}

/// Tells every GPU its way to every other one; `way` is asked with the lower index first.
pub fn connect(inventory: &mut Inventory, way: impl Fn(u32, u32) -> (u32, Ancestor)) {
    let names: Vec<(u32, GpuUuid)> =
        inventory.gpus.iter().map(|gpu| (gpu.index, gpu.uuid.clone())).collect();
    for gpu in &mut inventory.gpus {
        let others = names.iter().filter(|(index, _)| *index != gpu.index);
        gpu.peers = others
            .map(|(index, uuid)| {
                let (nvlinks, ancestor) = way(gpu.index.min(*index), gpu.index.max(*index));
                (uuid.clone(), Peer { nvlinks, ancestor })
            })
            .collect();
    }
}

/// Two halves of four: NUMA nodes 0 and 1.
fn halves() -> Vec<Option<u32>> {
    (0..8).map(|i| Some(i / 4)).collect()
}

fn half(a: u32, b: u32) -> Ancestor {
    if a / 4 == b / 4 { Ancestor::Node } else { Ancestor::System }
}

fn paired(a: u32, b: u32) -> Ancestor {
    if a / 2 == b / 2 { Ancestor::SingleSwitch } else { half(a, b) }
}

/// 8×H100: NVSwitch between all, a PCIe switch each.
pub fn p5() -> Inventory {
    node(&halves(), |a, b| (18, half(a, b)))
}

/// 8×A100: NVSwitch between all, PCIe switches of two.
pub fn p4d() -> Inventory {
    node(&halves(), |a, b| (12, paired(a, b)))
}

/// 8 GPUs on PCIe alone, switches of two.
pub fn pcie() -> Inventory {
    node(&halves(), |a, b| (0, paired(a, b)))
}

/// 4 GPUs on one NUMA node, NVLink bridges across its PCIe switches: 0 with 2, 1 with 3.
pub fn bridged() -> Inventory {
    let bridge = |a, b| if b - a == 2 { 4 } else { 0 };
    let switch = |a, b| if a / 2 == b / 2 { Ancestor::SingleSwitch } else { Ancestor::HostBridge };
    node(&[Some(0); 4], move |a, b| (bridge(a, b), switch(a, b)))
}

/// So many whole GPUs.
pub fn whole(number: u32) -> Want {
    Want::Whole(NonZeroU32::new(number).expect("not zero"))
}

/// Somebody's hold.
pub fn holder(label: &str) -> Holder<'static> {
    Holder { label: label.to_owned().into(), external: false, releasing: false }
}

/// These GPUs are held, each by `ns/pod-<n>/c`.
pub fn held(gpus: &[u32]) -> Occupancy<'static> {
    let hold = |i: &u32| (uuid(*i), vec![holder(&format!("ns/pod-{i}/c"))]);
    Occupancy { holders: gpus.iter().map(hold).collect(), ..Occupancy::default() }
}

/// The numbers of GPUs that [`uuid`] named.
pub fn numbers(gpus: &[GpuUuid]) -> Vec<u32> {
    let number = |gpu: &GpuUuid| u32::from_str_radix(&gpu.as_str()[4..12], 16).expect("hex");
    gpus.iter().map(number).collect()
}

/// Annotations.
pub fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

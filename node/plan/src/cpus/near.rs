//! The near set: which CPUs and which memory are next to a set of GPUs.
//!
//! A GPU's own node, and where that is only a part of a processor (sub-NUMA clustering, NPS), the nodes of the same processor that are
//! nearest to it. Nodes of memory alone are never where CPUs are looked for: a GPU that names its own HBM is next to the processor that
//! is nearest to that.
//!
//! Decides what is near, and in which order. Must not know who holds what.

use std::collections::BTreeMap;

use super::{CpuSet, NodeSet, NumaNode, Topology};
use crate::ids::GpuUuid;
use crate::inventory::Gpu;

/// What is next to a set of GPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Near {
    /// Nodes that the GPUs themselves are on; they have CPUs.
    pub own: NodeSet,
    /// Further nodes of the same processors, at the least distance.
    pub mates: NodeSet,
    /// CPUs of all these nodes.
    pub cpus: CpuSet,
    /// Nodes that are the GPUs' own memory.
    pub gpu_memory: NodeSet,
    /// CPUs near each GPU, by itself.
    pub of_gpu: BTreeMap<GpuUuid, CpuSet>,
}

impl Near {
    /// What is near these GPUs. `None` where one of them has no node, or the machine tells nothing: then there is no preference, and
    /// pinning for the others' sake could put that one far away.
    pub fn of(gpus: &[&Gpu], topology: &Topology) -> Option<Self> {
        let mut near = Self::default();
        for gpu in gpus {
            let home = home(topology, gpu.numa_node?)?;
            let mates = mates(topology, home);
            let mut cpus = home.cpus.clone();
            cpus.extend(mates.iter().flat_map(|mate| mate.cpus.iter()));
            near.own.extend([home.id]);
            near.mates.extend(mates.iter().map(|mate| mate.id));
            near.cpus = near.cpus.or(&cpus);
            near.of_gpu.insert(gpu.uuid.clone(), cpus);
            near.gpu_memory.extend(topology.gpu_memory.get(&gpu.pci).copied());
        }
        near.mates = near.mates.without(&near.own);
        (!near.own.is_empty()).then_some(near)
    }

    /// The nodes with CPUs.
    pub fn nodes(&self) -> NodeSet {
        self.own.or(&self.mates)
    }

    /// Whether the GPUs are next to different CPUs, so that one wide set says little.
    pub fn is_spread(&self) -> bool {
        let mut sets = self.of_gpu.values();
        let first = sets.next();
        sets.any(|set| Some(set) != first)
    }
}

/// The node with CPUs that a GPU on node `id` belongs to: that one, or the nearest to it.
fn home(topology: &Topology, id: u32) -> Option<&NumaNode> {
    let named = topology.node(id)?;
    if !named.cpus.is_empty() {
        return Some(named);
    }
    let with_cpus = topology.nodes.iter().filter(|node| !node.cpus.is_empty());
    with_cpus.min_by_key(|node| (topology.distance(named, node.id), node.id))
}

/// Other nodes of the same processor at the least distance.
fn mates<'a>(topology: &'a Topology, home: &NumaNode) -> Vec<&'a NumaNode> {
    let Some(package) = topology.package_of(home) else { return Vec::new() };
    let is_mate = |node: &&NumaNode| node.id != home.id && node.cpus.meets(package);
    let distance = |node: &NumaNode| topology.distance(home, node.id);
    let least = topology.nodes.iter().filter(is_mate).map(distance).min();
    let nearest = |node: &&NumaNode| Some(distance(node)) == least;
    topology.nodes.iter().filter(is_mate).filter(nearest).collect()
}

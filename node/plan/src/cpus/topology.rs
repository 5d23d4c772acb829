//! The machine's CPUs and NUMA nodes: which CPU is where, and how far nodes are from each other.
//!
//! Decides nothing: a value that `device` observes and that tests write by hand. It is a part of the inventory, so groups are kept as
//! lists rather than a record for each of hundreds of CPUs: every launch reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CpuSet, NodeSet};
use crate::ids::PciAddress;

/// CPUs, caches and NUMA nodes. Empty on a machine that does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// NUMA nodes, ascending.
    pub nodes: Vec<NumaNode>,
    /// CPUs of each processor (`topology/core_siblings_list`).
    pub packages: Vec<CpuSet>,
    /// CPUs of each last-level cache (`cache/index3/shared_cpu_list`); none where the machine does not say.
    pub caches: Vec<CpuSet>,
    /// CPUs of each core: its threads (`topology/thread_siblings_list`).
    pub cores: Vec<CpuSet>,
    /// CPUs that the kernel was told to leave alone (`cpu/isolated`).
    pub isolated: CpuSet,
    /// CPUs without a periodic tick (`cpu/nohz_full`), shown, and given like others.
    pub nohz_full: CpuSet,
    /// The NUMA node that a GPU's own memory is, where it is one (`numa_status` of the driver's listing).
    pub gpu_memory: BTreeMap<PciAddress, u32>,
}

/// One NUMA node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    /// The kernel's number.
    pub id: u32,
    /// Its CPUs that are online; none on a node of memory alone.
    pub cpus: CpuSet,
    /// Whether it has memory (`has_memory`).
    pub memory: bool,
    /// How far each node of the machine is, in the order of the nodes: 10 is itself (ACPI 6.5, 5.2.17).
    pub distances: Vec<u32>,
}

impl Topology {
    /// Whether nothing is known, so that nothing can be decided.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The node of this number.
    pub fn node(&self, id: u32) -> Option<&NumaNode> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// All CPUs.
    pub fn cpus(&self) -> CpuSet {
        self.nodes.iter().flat_map(|node| node.cpus.iter()).collect()
    }

    /// How far `to` is from `from`; as far as can be where the machine does not say.
    pub fn distance(&self, from: &NumaNode, to: u32) -> u32 {
        let at = self.nodes.iter().position(|node| node.id == to);
        at.and_then(|at| from.distances.get(at).copied()).unwrap_or(u32::MAX)
    }

    /// Those of `nodes` that have memory.
    pub fn with_memory(&self, nodes: &NodeSet) -> NodeSet {
        let has = |id: &u32| self.node(*id).is_some_and(|node| node.memory);
        nodes.iter().filter(has).collect()
    }

    /// CPUs that no container gets unless the operator gives them out by name: the kernel runs nothing there that was not put there. Those without a
    /// tick (`nohz_full`) alone are not among them: it schedules on them as on others.
    pub fn set_aside(&self) -> &CpuSet {
        &self.isolated
    }

    /// The processor of a node: its CPUs, where the machine says.
    pub(super) fn package_of(&self, node: &NumaNode) -> Option<&CpuSet> {
        self.packages.iter().find(|package| package.meets(&node.cpus))
    }
}

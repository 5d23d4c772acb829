//! What the node has: the driver, its GPUs, and how close they are to each other.
//!
//! Decides nothing: a value that `device` observes, that is cached as JSON, and that tests write by hand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{GpuUuid, Mib, PciAddress};

/// Everything that placement may look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The loaded driver; `None` on a node without one, which then has no GPUs either.
    pub driver: Option<Driver>,
    /// GPUs in the driver's own order (`nvidia-smi`'s index).
    pub gpus: Vec<Gpu>,
}

/// The loaded kernel driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// `550.163.01`: also the suffix of its libraries.
    pub version: String,
    /// The newest CUDA that it supports.
    pub cuda: CudaVersion,
}

/// A CUDA version, or a compute capability: major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CudaVersion {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
}

impl std::fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// The driver's own index, as `nvidia-smi` shows it.
    pub index: u32,
    /// Identity.
    pub uuid: GpuUuid,
    /// Where it sits.
    pub pci: PciAddress,
    /// Minor of `/dev/nvidiaN` (major 195), which need not be the index.
    pub minor: u32,
    /// Product name: `NVIDIA H100 80GB HBM3`.
    pub model: String,
    /// Brand as `NVIDIA_REQUIRE_BRAND` spells it, in lower case: `tesla`, `nvidia`, `geforce`, …
    pub brand: String,
    /// Compute capability (`NVIDIA_REQUIRE_ARCH`): 9.0 for an H100.
    pub compute_capability: CudaVersion,
    /// Device memory, all of it.
    pub memory: Mib,
    /// NUMA node of its PCI slot; `None` where the machine does not say (-1 in sysfs).
    pub numa_node: Option<u32>,
    /// Whether MIG mode is on: such a GPU is not given as a whole.
    pub mig: bool,
    /// The way to each other GPU.
    pub peers: BTreeMap<GpuUuid, Peer>,
}

/// How two GPUs are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// NVLinks between the two, through a switch or directly; 0 for none.
    pub nvlinks: u32,
    /// Their nearest common PCI ancestor.
    pub ancestor: Ancestor,
}

/// Nearest common PCI ancestor, nearest first (`nvmlGpuTopologyLevel_t`; `nvidia-smi topo -m` has the short names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ancestor {
    /// Two GPUs on one board (0).
    Internal,
    /// One PCIe switch: PIX (10).
    SingleSwitch,
    /// Several PCIe switches: PXB (20).
    MultipleSwitches,
    /// The same host bridge: PHB (30).
    HostBridge,
    /// The same NUMA node: NODE (40).
    Node,
    /// Across the machine: SYS (50).
    System,
}

impl Inventory {
    /// The GPU with this UUID.
    pub fn gpu(&self, uuid: &GpuUuid) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.uuid == *uuid)
    }
}

//! What the node has: the driver, its GPUs, and how close they are to each other.
//!
//! Decides nothing: a value that `device` observes, that is cached as JSON, and that tests write by hand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cpus::Topology;
use crate::ids::{GpuUuid, Mib, MigUuid, PciAddress};
use crate::mig::{Instance, Place, Profile, ProfileName, Slot};

/// Everything that placement may look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The loaded driver; `None` on a node without one, which then has no GPUs either.
    pub driver: Option<Driver>,
    /// GPUs in the driver's own order (`nvidia-smi`'s index).
    pub gpus: Vec<Gpu>,
    /// CPUs and memory around them.
    #[serde(default)]
    pub topology: Topology,
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
    /// Whether it could be switched on.
    #[serde(default)]
    pub mig_capable: bool,
    /// What the driver would make on it, in the driver's order; none where MIG mode is off.
    #[serde(default)]
    pub profiles: Vec<Profile>,
    /// The GPU instances that are on it, whoever made them.
    #[serde(default)]
    pub instances: Vec<Instance>,
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

    /// What is known by this place, whether or not it is observed; `None` where the GPU is not there or does not have the profile.
    pub fn slot(&self, place: &Place) -> Option<Slot> {
        let gpu = self.gpu(&place.gpu)?;
        Some(gpu.profile_by_id(place.profile)?.slot(&place.gpu, place.start, false))
    }

    /// The instance that this MIG device is on, as a slot; `None` where it is not observed.
    pub fn mig_device(&self, uuid: &MigUuid) -> Option<Slot> {
        let legacy = uuid.legacy();
        let is_on = |gpu: &Gpu, instance: &Instance| {
            let mut devices = instance.compute_instances.iter();
            devices.any(|device| match (&legacy, &device.uuid) {
                (_, Some(own)) if own == uuid => true,
                (Some((parent, gi, ci)), _) => {
                    (parent, *gi, *ci) == (&gpu.uuid, instance.gpu_instance, device.id)
                }
                _ => false,
            })
        };
        self.gpus.iter().find_map(|gpu| {
            let instance = gpu.instances.iter().find(|instance| is_on(gpu, instance))?;
            gpu.slot(instance)
        })
    }
}

impl Gpu {
    /// What the driver makes on this GPU under that name.
    pub fn profile(&self, name: &ProfileName) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.name == *name)
    }

    /// The profile that the driver knows by this id.
    pub fn profile_by_id(&self, id: u32) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.id == id)
    }

    /// The instance of a profile that begins at a slice, as it is observed.
    pub fn instance_at(&self, profile: u32, start: u32) -> Option<&Instance> {
        self.instances.iter().find(|one| (one.profile, one.start) == (profile, start))
    }

    /// An instance as the slot that it fills; `None` where the driver does not tell its profile.
    pub fn slot(&self, instance: &Instance) -> Option<Slot> {
        let profile = self.profile_by_id(instance.profile)?;
        Some(Slot { size: instance.size, ..profile.slot(&self.uuid, instance.start, false) })
    }
}

//! What the GPUs of a node are and do at this moment: what the driver library answers from.
//!
//! Decides the shape of the state file. Must not know the C ABI.

use serde::{Deserialize, Serialize};

use crate::error::NodeError;
use crate::fault::Fault;
use crate::layout::Layout;
use crate::machine::Machine;
use crate::mig::GpuInstance;
use crate::model::{self, Model};
use crate::pci::{Ancestor, PciAddress, Route};

/// The whole node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Name of the profile that it was made from.
    pub profile: String,
    /// Where the driver's files lie.
    pub layout: Layout,
    /// Whether calls take the time that they take on a real machine.
    pub latency: Latency,
    /// The driver; absent while it is not loaded.
    pub driver: Option<Driver>,
    /// CPUs and memory.
    pub machine: Machine,
    /// In the order of their PCI addresses, as the driver counts them.
    pub gpus: Vec<Gpu>,
    /// NVSwitches.
    pub switches: Vec<PciAddress>,
    /// What is to go wrong.
    pub faults: Vec<Fault>,
    /// How many MIG instances there ever were, over all GPUs.
    pub instances_made: u64,
    /// Whether a device node is made for each MIG instance. On many hosts there is none until somebody asks nvidia-modprobe.
    pub capability_nodes: bool,
}

/// Whether calls take their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Latency {
    /// They do not.
    None,
    /// They do, as on a real machine.
    Real,
}

/// A driver's versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Driver {
    /// `550.163.01`.
    pub version: String,
    /// As `nvmlSystemGetCudaDriverVersion` has it: 12040 is 12.4.
    pub cuda: i32,
    /// Whether it is the open kernel module.
    pub open: bool,
}

impl Driver {
    /// `550` of `550.163.01`.
    #[must_use]
    pub fn branch(&self) -> u32 {
        self.version.split('.').next().and_then(|branch| branch.parse().ok()).unwrap_or(0)
    }

    /// As `nvmlSystemGetNVMLVersion` has it.
    #[must_use]
    pub fn nvml_version(&self) -> String {
        format!("{}.{}", self.cuda / 1000, self.version)
    }
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Product name: the key of its [`Model`].
    pub model: String,
    /// Of `/dev/nvidiaN`.
    pub minor: u32,
    /// `GPU-…`.
    pub uuid: String,
    /// Thirteen digits.
    pub serial: String,
    /// Where it hangs.
    pub route: Route,
    /// NUMA node of the PCI device; none is −1 in sysfs.
    pub node: Option<u32>,
    /// NUMA node of its own memory, where it has one.
    pub memory_node: Option<u32>,
    /// Its NVLinks.
    pub links: Vec<Link>,
    /// MIG mode, where the card has one.
    pub mig: Option<MigMode>,
    /// Its GPU instances, in the order of their ids.
    pub instances: Vec<GpuInstance>,
    /// Persistence mode.
    pub persistence: bool,
    /// `nvmlComputeMode_t`: 0 default, 2 prohibited, 3 exclusive process.
    pub compute_mode: u32,
    /// What runs on it.
    pub processes: Vec<Process>,
    /// Per cent of time that the SMs, and the memory, were busy.
    pub utilisation: (u32, u32),
    /// Degrees Celsius.
    pub temperature: u32,
    /// Fallen off the bus: every call answers so.
    pub lost: bool,
}

/// Where an NVLink leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// To another GPU.
    Gpu(PciAddress),
    /// To an NVSwitch; a switch outside this machine has no address here.
    Switch(Option<PciAddress>),
    /// To nowhere.
    Down,
}

/// MIG mode now, and after the next reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigMode {
    /// Now.
    pub current: bool,
    /// After the next reset.
    pub pending: bool,
}

/// How a process uses a GPU: NVML has a list for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// CUDA.
    Compute,
    /// OpenGL, Vulkan.
    Graphics,
    /// CUDA through an MPS server.
    Mps,
}

/// A process on a GPU, as the host numbers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// On the host.
    pub pid: u32,
    /// How.
    pub r#use: Use,
    /// Bytes; none where the driver cannot say.
    pub memory: Option<u64>,
    /// GPU instance, under MIG.
    pub gpu_instance: Option<u32>,
    /// Compute instance, under MIG.
    pub compute_instance: Option<u32>,
}

impl State {
    /// The index of the GPU with this index, UUID or PCI address.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, gpu: &str) -> Result<usize, NodeError> {
        let address = gpu.parse::<PciAddress>().ok();
        let found = match gpu.parse::<usize>() {
            Ok(index) => Some(index).filter(|index| *index < self.gpus.len()),
            Err(_) => self
                .gpus
                .iter()
                .position(|known| known.uuid == gpu || Some(known.route.device) == address),
        };
        found.ok_or_else(|| NodeError::UnknownGpu { gpu: gpu.to_owned(), count: self.gpus.len() })
    }

    /// The GPU with this index, UUID or PCI address.
    pub(crate) fn gpu_mut(&mut self, gpu: &str) -> Result<&mut Gpu, NodeError> {
        let index = self.find(gpu)?;
        Ok(&mut self.gpus[index])
    }

    /// A GPU to cut, and the count of instances.
    pub fn to_cut(&mut self, index: usize) -> Option<(&mut Gpu, &mut u64)> {
        self.gpus.get_mut(index).map(|gpu| (gpu, &mut self.instances_made))
    }
}

impl Gpu {
    /// What is the same for every card of its kind.
    #[must_use]
    pub fn model(&self) -> &'static Model {
        model::named(&self.model).unwrap_or(&model::T4)
    }

    /// What two GPUs have in common on the PCI bus.
    #[must_use]
    pub fn ancestor(&self, other: &Self) -> Ancestor {
        self.route.ancestor(&other.route, self.node.is_some() && self.node == other.node)
    }

    /// How many NVLinks lead from one GPU to another, directly or through switches.
    #[must_use]
    pub fn links_to(&self, other: &Self) -> usize {
        let through =
            |gpu: &Self| gpu.links.iter().filter(|link| matches!(link, Link::Switch(_))).count();
        let to = Link::Gpu(other.route.device);
        let direct = self.links.iter().filter(|link| **link == to).count();
        if direct > 0 { direct } else { through(self).min(through(other)) }
    }

    /// Bytes that its processes use.
    #[must_use]
    pub fn used(&self) -> u64 {
        // A client of an MPS server is on the list of both.
        let own = self.processes.iter().filter(|process| process.r#use != Use::Mps);
        own.filter_map(|process| process.memory).sum()
    }
}

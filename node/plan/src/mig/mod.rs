//! MIG: what a GPU can be cut into, and what it is cut into.
//!
//! A GPU in MIG mode is a row of memory slices. An instance is of one of the profiles that the driver offers on that GPU, and fills
//! slices next to each other from one of the starts that the profile has. Instances are together on a GPU where
//!
//! - no slice is in two of them,
//! - of no profile there are more than its `max`,
//! - at most one brings the media engines (`+me`), and
//! - their compute slices are no more than those of the largest profile.
//!
//! Decides the words for all this (`name` how profiles are called, `cut` what fits, `options` what that is worth). Must not know NVML,
//! nor who asks. The facts are the driver's: NVML's `nvmlGpuInstanceProfileInfo_t`, `nvmlGpuInstancePlacement_t`.

pub(crate) mod cut;
mod name;
pub(crate) mod options;

use serde::{Deserialize, Serialize};

pub use self::name::ProfileName;
pub use self::options::Mix;
use crate::ids::{GpuUuid, Mib, MigUuid};
pub use crate::place::to_switch;

/// A kind of instance that the driver offers on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// NVML's id of the GPU instance profile (not the index of its enumeration).
    pub id: u32,
    /// `1g.10gb`.
    pub name: ProfileName,
    /// Memory slices that an instance fills: the size of its placement.
    pub slices: u32,
    /// Compute slices.
    pub compute: u32,
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Device memory of an instance.
    pub memory: Mib,
    /// The most instances of it on one GPU.
    pub max: u32,
    /// The slices at which one can begin.
    pub starts: Vec<u32>,
    /// Whether it brings the media engines that the GPU has only once (`+me`).
    pub media: bool,
}

/// A GPU instance that is on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The driver's id of it, which another may get after it.
    pub gpu_instance: u32,
    /// Id of its profile.
    pub profile: u32,
    /// Its first slice.
    pub start: u32,
    /// Its slices.
    pub size: u32,
    /// What is in it. Without any it is no MIG device, and holds its slices all the same.
    pub compute_instances: Vec<ComputeInstance>,
}

/// A compute instance in a GPU instance: a MIG device, which containers get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeInstance {
    /// The driver's id of it in its GPU instance.
    pub id: u32,
    /// Name of the device, where the driver tells it.
    pub uuid: Option<MigUuid>,
}

/// What an instance is known by for as long as the GPU's row of slices is: ids and UUIDs are new each time that one is made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The GPU.
    pub gpu: GpuUuid,
    /// Id of the profile.
    pub profile: u32,
    /// The first slice.
    pub start: u32,
}

/// Slices of a GPU that are given as one instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The GPU.
    pub gpu: GpuUuid,
    /// Id of the profile.
    pub profile: u32,
    /// Name of the profile.
    pub name: ProfileName,
    /// The first slice.
    pub start: u32,
    /// How many slices.
    pub size: u32,
    /// Whether the instance is there already, made by Berth and idle, and is taken as it is; else it is to be made.
    #[serde(default)]
    pub adopted: bool,
}

impl Profile {
    /// An instance of it.
    pub(crate) fn slot(&self, gpu: &GpuUuid, start: u32, adopted: bool) -> Slot {
        Slot {
            gpu: gpu.clone(),
            profile: self.id,
            name: self.name.clone(),
            start,
            size: self.slices,
            adopted,
        }
    }
}

impl Slot {
    /// What the instance is known by.
    pub fn place(&self) -> Place {
        Place { gpu: self.gpu.clone(), profile: self.profile, start: self.start }
    }

    /// Whether a slice is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.gpu == other.gpu && self.shares(other.start, other.size)
    }

    /// Whether it has one of the `size` slices from `start` on, of its own GPU.
    pub(crate) fn shares(&self, start: u32, size: u32) -> bool {
        let end = |start: u32, size: u32| start.saturating_add(size);
        self.start < end(start, size) && start < end(self.start, self.size)
    }
}

/// Things that were given: whole GPUs, instances on others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// GPUs that are given as a whole, in the driver's order.
    pub gpus: Vec<GpuUuid>,
    /// Instances, in the driver's order of their GPUs and by start.
    pub slots: Vec<Slot>,
}

impl Devices {
    /// Whether the same is in both, in whatever order.
    pub fn is_same(&self, other: &Self) -> bool {
        fn all<T: PartialEq>(one: &[T], other: &[T]) -> bool {
            one.len() == other.len() && one.iter().all(|it| other.contains(it))
        }
        let places = |devices: &Self| devices.slots.iter().map(Slot::place).collect::<Vec<_>>();
        all(&self.gpus, &other.gpus) && all(&places(self), &places(other))
    }
}

impl From<Vec<GpuUuid>> for Devices {
    fn from(gpus: Vec<GpuUuid>) -> Self {
        Self { gpus, slots: Vec::new() }
    }
}

impl std::fmt::Display for Devices {
    /// `GPU-…,3g.40gb at 4 of GPU-…`; `no GPU` where there is nothing.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gpus = self.gpus.iter().map(ToString::to_string);
        let slot = |slot: &Slot| format!("{} at {} of {}", slot.name, slot.start, slot.gpu);
        let all: Vec<String> = gpus.chain(self.slots.iter().map(slot)).collect();
        f.write_str(if all.is_empty() { "no GPU" } else { "" })?;
        f.write_str(&all.join(","))
    }
}

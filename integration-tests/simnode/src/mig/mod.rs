//! MIG: what a GPU can be cut into, and the instances that it has been cut into.
//!
//! Decides the shape of instances in the state. Words are the driver's: a *GPU instance* holds memory slices, a *compute
//! instance* within it holds compute slices, and the two together are a *MIG device* with a UUID.

pub mod admin;
pub mod change;
pub mod compute;
pub mod minors;
pub mod place;
pub mod profile;
pub mod record;
pub(crate) mod tables;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::state::{Gpu, Process, Use};
use profile::GpuProfile;

/// Slices from `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// The first one.
    pub start: u32,
    /// How many.
    pub size: u32,
}

impl Placement {
    /// Whether they share a slice.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.start + other.size && other.start < self.start + self.size
    }
}

/// A GPU instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuInstance {
    /// Which one of all that this node ever had: ids come back, this does not.
    pub serial: u64,
    /// As the driver counts them on one GPU: 0–14.
    pub id: u32,
    /// Id of its profile: 19 is the smallest of most cards.
    pub profile: u32,
    /// Its memory slices.
    pub placement: Placement,
    /// In the order of their ids.
    pub compute: Vec<ComputeInstance>,
}

/// A compute instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComputeInstance {
    /// As [`GpuInstance::serial`], from the same count.
    pub serial: u64,
    /// Counts within its GPU instance: 0–7.
    pub id: u32,
    /// Id of its profile.
    pub profile: u32,
    /// Its compute slices within the GPU instance.
    pub placement: Placement,
    /// `MIG-…`: another one each time.
    pub uuid: String,
}

/// A MIG device: a compute instance and what it is in.
#[derive(Debug, Clone, Copy)]
pub struct MigDevice<'a> {
    /// The GPU.
    pub gpu: &'a Gpu,
    /// Its GPU instance.
    pub instance: &'a GpuInstance,
    /// Its compute instance.
    pub compute: &'a ComputeInstance,
}

impl Gpu {
    /// Whether it is in MIG mode.
    #[must_use]
    pub fn in_mig_mode(&self) -> bool {
        self.mig.is_some_and(|mode| mode.current)
    }

    /// Its MIG devices, in the order of their indices.
    pub fn mig_devices(&self) -> impl Iterator<Item = MigDevice<'_>> {
        self.instances.iter().flat_map(move |instance| {
            let device = move |compute| MigDevice { gpu: self, instance, compute };
            instance.compute.iter().map(device)
        })
    }

    /// Its GPU instance of this id.
    #[must_use]
    pub fn instance(&self, id: u32) -> Option<&GpuInstance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    /// What it can be cut into.
    #[must_use]
    pub fn gpu_profiles(&self) -> &'static [GpuProfile] {
        self.model().profiles
    }
}

impl<'a> MigDevice<'a> {
    /// `1g.10gb`, or `1c.3g.40gb` where it does not have the GPU instance to itself.
    #[must_use]
    pub fn profile_name(&self) -> String {
        let profile = profile::by_id(self.gpu.gpu_profiles(), self.instance.profile);
        profile.map_or_else(String::new, |gpu| {
            compute::by_id(self.gpu, gpu, self.compute.profile)
                .map_or_else(|| gpu.name.to_owned(), |compute| compute.name(gpu))
        })
    }

    /// Bytes of memory of its GPU instance.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let profile = profile::by_id(self.gpu.gpu_profiles(), self.instance.profile);
        profile.map_or(0, |profile| profile.memory << 20)
    }

    /// Bytes that are used of it, by whoever shares the GPU instance.
    #[must_use]
    pub fn used(&self) -> u64 {
        let here = |process: &&Process| {
            process.gpu_instance == Some(self.instance.id) && process.r#use != Use::Mps
        };
        self.gpu.processes.iter().filter(here).filter_map(|process| process.memory).sum()
    }

    /// What runs in it.
    pub fn processes(self) -> impl Iterator<Item = &'a Process> {
        let (instance, compute) = (Some(self.instance.id), Some(self.compute.id));
        let own = move |process: &&'a Process| {
            process.gpu_instance == instance && process.compute_instance == compute
        };
        self.gpu.processes.iter().filter(own)
    }
}

/// The UUID of the compute instance with this serial number on this GPU: looks like chance, and is none, so that a node can be
/// played again.
fn uuid(gpu: &Gpu, serial: u64) -> String {
    let digest = Sha256::digest(format!("{}/{serial}", gpu.uuid));
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    // The driver's are of version 5: hashes.
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    uuid_text(bytes)
}

fn uuid_text(bytes: [u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("MIG-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

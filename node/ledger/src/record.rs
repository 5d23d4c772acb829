//! The records: what a grant is, and what can be asked of a set of them.
//!
//! Decides their fields and how those are written; a field that is not known here is an error when read. Must not touch files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use plan::mig::{Devices, Place, ProfileName, Slot};
use plan::occupancy::Slice;
use plan::{
    Candidate, Capabilities, CpuSet, Extras, GpuUuid, GrantId, Holder, Mib, MigUuid, Occupancy,
    PciAddress, Pinning,
};
use serde::{Deserialize, Serialize, Serializer};

/// Whose a claim is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Containerd's namespace.
    pub namespace: String,
    /// Containerd's id of the sandbox; outside pods, of the container.
    pub sandbox: String,
    /// Name in the pod, where the claim is that container's own.
    pub container: Option<String>,
}

/// How far a grant has come. In every state its GPUs are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Decided; its container is being made.
    Reserved,
    /// Its container was made.
    Applied,
    /// Being given back.
    Releasing,
}

/// Who decided a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Origin {
    /// Berth. No two of these overlap.
    Berth,
    /// Another allocator, which may share a GPU out among its own.
    External {
        /// How that was seen: `cdi edits`, `cdi annotation`, `device plugin (env)`.
        by: String,
    },
}

/// A process, told apart from a later one with the same PID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessId {
    /// PID on the host.
    pub pid: u32,
    /// When it started, in clock ticks after boot: field 22 of `/proc/<pid>/stat`, see proc(5).
    pub start_time: u64,
}

/// A container that uses a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Containerd's id.
    pub container: String,
    /// Name in the pod; empty outside pods.
    pub name: String,
    /// Its first process, once it is known.
    pub init: Option<ProcessId>,
    /// Its own cgroup's folder on the host, if it has one.
    pub cgroup: Option<PathBuf>,
    /// CPUs and memory that it is held to, or prefers.
    #[serde(default, skip_serializing_if = "Pinning::is_nothing")]
    pub pinning: Pinning,
    /// Device families beside the GPUs that it was given.
    #[serde(default, skip_serializing_if = "Extras::is_empty")]
    pub extras: Extras,
}

/// A GPU as it was when it was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenGpu {
    /// Its identity.
    pub uuid: GpuUuid,
    /// Where it is.
    pub pci: PciAddress,
    /// Minor number of its device node.
    pub minor: u32,
    /// The driver's index.
    pub index: u32,
    /// Product name.
    pub model: String,
    /// Its memory.
    pub memory: Mib,
    /// Its NUMA node, if it has one.
    pub numa_node: Option<u32>,
}

/// How far a MIG instance has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its place is decided. Whatever is found there is another's.
    Decided,
    /// Nothing was in its place, and it is being made: what is found there is ours.
    Begun,
    /// It stands.
    Made,
    /// It is being destroyed.
    Ending,
}

/// A MIG instance as it was given: its place, and what stands there once it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenSlot {
    /// The GPU, in MIG mode.
    pub gpu: GpuUuid,
    /// The driver's id of the profile.
    pub profile: u32,
    /// Its name.
    pub name: ProfileName,
    /// The first memory slice.
    pub start: u32,
    /// How many memory slices.
    pub size: u32,
    /// The instance's memory.
    pub memory: Mib,
    /// Its streaming multiprocessors.
    pub sms: u32,
    /// How far the instance has come.
    pub stage: Stage,
    /// The instance, from when it is made.
    pub instance: Option<GivenInstance>,
    /// Whether others made it, so that it stays when it is given back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
}

impl GivenSlot {
    /// What the instance is known by, whatever its ids are.
    pub fn place(&self) -> Place {
        Place { gpu: self.gpu.clone(), profile: self.profile, start: self.start }
    }

    /// The place as placement has it.
    pub fn slot(&self) -> Slot {
        Slot {
            gpu: self.gpu.clone(),
            profile: self.profile,
            name: self.name.clone(),
            start: self.start,
            size: self.size,
            adopted: false,
        }
    }
}

/// An instance as the driver numbers it, for as long as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenInstance {
    /// Id of the GPU instance on its GPU.
    pub gpu_instance: u32,
    /// Id of the compute instance in it.
    pub compute_instance: u32,
    /// The MIG device's UUID, where the driver tells it.
    pub uuid: Option<MigUuid>,
    /// Inode of the driver's file of the GPU instance: one that is made anew with the same ids, and so perhaps the same UUID, has another.
    pub inode: u64,
}

/// The answer to a claim. What many grants have in common is shared by them: whoever has the node's lock copies and drops hundreds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// Its identity.
    pub id: GrantId,
    /// Whose it is.
    pub owner: Owner,
    /// `namespace/pod/container`, as refusals and lists name the holder.
    pub label: String,
    /// The pod's Kubernetes namespace.
    pub kubernetes_namespace: Option<String>,
    /// Who decided it.
    pub origin: Origin,
    /// How far it has come.
    pub state: State,
    /// The fields that asked for it, as they were written.
    pub requested: BTreeMap<String, String>,
    /// The GPUs that were given, in the driver's order: as a whole, or those on which `slots` are.
    #[serde(serialize_with = "as_slice")]
    pub gpus: Arc<[GivenGpu]>,
    /// The MIG instances that were given; empty where GPUs were given as a whole.
    pub slots: Vec<GivenSlot>,
    /// Parts of the driver that were brought.
    pub capabilities: Capabilities,
    /// Whether its container can reach past it (it is privileged).
    pub unconfined: bool,
    /// What was thought about each GPU of the node.
    #[serde(serialize_with = "as_slice")]
    pub candidates: Arc<[Candidate]>,
    /// How close the GPUs are, in words.
    pub closeness: String,
    /// CPUs of the exclusive pool, by the name of the container that asked for its own; without a name, for all that share the grant.
    pub exclusive: BTreeMap<String, CpuSet>,
    /// First process of the owner's sandbox, where there is a pod.
    pub sandbox_init: Option<ProcessId>,
    /// The containers that use it.
    pub members: Vec<Member>,
    /// What its containers run without, in words.
    pub notes: Vec<String>,
    /// When it was decided, in seconds of Unix time.
    pub created: u64,
}

fn as_slice<T: Serialize, S: Serializer>(list: &Arc<[T]>, to: S) -> Result<S::Ok, S::Error> {
    list.as_ref().serialize(to)
}

impl Grant {
    /// Whether the GPU, or an instance on it, is among those given.
    pub fn holds(&self, gpu: &GpuUuid) -> bool {
        self.gpus.iter().any(|given| given.uuid == *gpu)
    }

    /// What was given: GPUs as a whole, or instances.
    pub fn devices(&self) -> Devices {
        let whole = self.gpus.iter().filter(|_| self.slots.is_empty());
        Devices {
            gpus: whole.map(|gpu| gpu.uuid.clone()).collect(),
            slots: self.slots.iter().map(GivenSlot::slot).collect(),
        }
    }

    /// Device memory that was given.
    pub fn memory(&self) -> Mib {
        match self.slots.is_empty() {
            true => Mib(self.gpus.iter().map(|gpu| gpu.memory.0).sum()),
            false => Mib(self.slots.iter().map(|slot| slot.memory.0).sum()),
        }
    }

    /// Whether giving it back takes more than striking it out: instances that Berth made are to be destroyed.
    pub fn has_works(&self) -> bool {
        self.origin == Origin::Berth && self.slots.iter().any(|slot| !slot.foreign)
    }

    /// Whether the container with this containerd id uses it. Ids are unique in one containerd namespace only.
    pub fn is_member(&self, container: &str) -> bool {
        self.members.iter().any(|member| member.container == container)
    }
}

/// Who holds which GPU and which slices, whatever the state. An instance that stands unused until it is destroyed is idle.
pub fn occupancy(grants: &[Arc<Grant>]) -> Occupancy<'_> {
    let mut occupancy = Occupancy::default();
    for grant in grants {
        let holder = || Holder {
            label: Cow::Borrowed(&grant.label),
            external: matches!(grant.origin, Origin::External { .. }),
            releasing: grant.state == State::Releasing,
        };
        for slot in &grant.slots {
            if grant.state == State::Releasing && slot.stage == Stage::Made {
                occupancy.idle.push(slot.place());
                continue;
            }
            let (profile, start, size) = (slot.profile, slot.start, slot.size);
            occupancy.add_slice(&slot.gpu, Slice { profile, start, size, holder: holder() });
        }
        if grant.slots.is_empty() {
            grant.gpus.iter().for_each(|gpu| occupancy.add(&gpu.uuid, holder()));
        }
    }
    occupancy
}

/// All grants at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Counts the changes; 0 before the first.
    pub generation: u64,
    /// In the order in which they were made.
    pub grants: Vec<Arc<Grant>>,
}

#[cfg(test)]
pub(crate) mod tests;

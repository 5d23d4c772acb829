//! What one container is pinned to, at its start and whenever others change its resources.
//!
//! Decides what becomes of a request for CPUs and memory by whoever launches the container (a `cpuset` of ctr's, the kubelet's updates)
//! beside what is near its GPUs. The answer keeps what was requested, what is in effect and why, so that the next change can be decided
//! from it alone.

use serde::{Deserialize, Serialize};

use super::{CpuSet, Ground, NodeSet};
use crate::refusal::Refusal;
use crate::request::{Cpus, Numa};

/// What a container is pinned to. Default: nothing, all is left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pinning {
    /// CPUs that its launcher, or the last update, named; `None` for neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<CpuSet>,
    /// CPUs that it has; `None` where they are left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective: Option<CpuSet>,
    /// Why it has others than those near its GPUs, in words; empty where there is nothing to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Whether it has its CPUs for itself, from the pool.
    #[serde(skip_serializing_if = "is_false")]
    pub exclusive: bool,
    /// Near CPUs that it may share.
    #[serde(skip_serializing_if = "CpuSet::is_empty")]
    pub near: CpuSet,
    /// All CPUs that it may share, for a quota that needs more than are near.
    #[serde(skip_serializing_if = "CpuSet::is_empty")]
    pub wide: CpuSet,
    /// Memory nodes that its launcher, or the last update, named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_memory: Option<NodeSet>,
    /// Memory nodes that it is held to (`cpuset.mems`); `None` where they are left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<NodeSet>,
    /// Memory nodes that its processes prefer.
    #[serde(skip_serializing_if = "NodeSet::is_empty")]
    pub preferred: NodeSet,
    /// Why its memory is not what was asked for, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub memory_reason: String,
}

/// What a launcher or an update asks of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// `linux.resources.cpu.cpus`; `None` when absent or empty.
    pub cpus: Option<CpuSet>,
    /// `linux.resources.cpu.mems`, likewise.
    pub memory: Option<NodeSet>,
    /// CPUs that the quota is worth, rounded up; `None` without one.
    pub quota: Option<u64>,
    /// CPUs that the kubelet has given to this container alone.
    pub kubelet: Option<CpuSet>,
}

/// Pins a container that is about to be made. `own` are CPUs of the pool that it was given.
///
/// # Errors
/// [`Refusal::StrictMemory`] when `numa` is strict and cannot be; `key` is the annotation that says so.
pub fn pin(
    (cpus, numa): (Cpus, Numa),
    key: &str,
    ground: &Ground<'_>,
    asked: &Asked,
    own: Option<&CpuSet>,
) -> Result<Pinning, Refusal> {
    let mut pinning = Pinning { requested: asked.cpus.clone(), ..Pinning::default() };
    match cpus {
        Cpus::Off => {}
        Cpus::Auto | Cpus::Exclusively(_) => {
            (pinning.near, pinning.wide) = (ground.shared(), ground.wide());
            pinning.exclusive = own.is_some();
            pinning.effective = own.cloned();
            if pinning.near.is_empty() {
                pinning.reason = ground.why_none_near();
            }
            pinning = settled(pinning, asked, ground.pool);
        }
    }
    match numa {
        Numa::Off => {}
        Numa::Prefer => {
            pinning.preferred = ground.preferred();
            if pinning.preferred.is_empty() && ground.near.is_some() {
                pinning.memory_reason = "no memory near its GPUs can be had here".to_owned();
            }
        }
        Numa::Strict => {
            pinning.requested_memory.clone_from(&asked.memory);
            let strict = strict(ground, asked);
            let refused = |why| Refusal::StrictMemory { key: key.to_owned(), why };
            pinning.memory = Some(strict.map_err(refused)?);
        }
    }
    Ok(pinning)
}

/// What becomes of `kept` when its container's resources are changed. Memory is never narrowed: pages would migrate, and those that a
/// device has pinned cannot.
pub fn merge(kept: &Pinning, update: &Asked, pool: &CpuSet) -> Pinning {
    let mut next = Pinning { requested: update.cpus.clone(), ..kept.clone() };
    if kept.is_pinned() {
        next = settled(next, update, pool);
    }
    if let Some(ours) = &kept.memory {
        next.requested_memory.clone_from(&update.memory);
        next.memory_reason = match &update.memory {
            Some(asked) if asked != ours => {
                format!("memory nodes {asked} were requested; it is held to those near its GPUs")
            }
            _ => String::new(),
        };
    }
    next
}

impl Pinning {
    /// Whether its CPUs are Berth's to decide.
    pub fn is_pinned(&self) -> bool {
        self.exclusive || !self.near.is_empty() || !self.wide.is_empty()
    }

    /// Whether there is nothing to keep.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The CPUs in effect, decided from what is kept and what is asked now.
fn settled(kept: Pinning, asked: &Asked, pool: &CpuSet) -> Pinning {
    let (effective, reason) = if let Some(given) = &asked.kubelet {
        let exactly = asked.cpus.as_ref().unwrap_or(given);
        (Some(exactly.clone()), "the kubelet gave it these CPUs for itself".to_owned())
    } else if kept.exclusive {
        let asks_otherwise = asked.cpus.is_some() && asked.cpus != kept.effective;
        let reason =
            if asks_otherwise { "it has CPUs of the exclusive pool for itself" } else { "" };
        (kept.effective.clone(), reason.to_owned())
    } else {
        shared(&kept, asked, pool)
    };
    Pinning { effective, reason, ..kept }
}

/// CPUs that are shared with others: the near ones of those that were asked for, where they do.
fn shared(kept: &Pinning, asked: &Asked, pool: &CpuSet) -> (Option<CpuSet>, String) {
    // Without a request, everything that may be shared is requested.
    let requested = asked.cpus.as_ref().unwrap_or(&kept.wide);
    let near = requested.and(&kept.near).without(pool);
    let needs = asked.quota.filter(|needs| (near.len() as u64) < *needs);
    if !near.is_empty() && needs.is_none() {
        return (Some(near), String::new());
    }
    let reason = match needs {
        // Why there are none was said when it was made.
        _ if kept.near.is_empty() => kept.reason.clone(),
        Some(needs) if !near.is_empty() => format!(
            "its quota needs {needs} CPUs, and of CPUs {requested} only {} are near its GPUs ({near})",
            near.len()
        ),
        _ => format!("none of CPUs {requested} are near its GPUs ({})", kept.near),
    };
    // Whoever asks for CPUs of the pool without knowing it must not disturb those who have them for themselves.
    let others = requested.without(pool);
    let nothing_to_say = asked.cpus.is_none() && kept.near.is_empty() && pool.is_empty();
    let ours = [&others, &kept.near, &kept.wide].map(|cpus| cpus.without(pool));
    let first = ours.into_iter().find(|cpus| !cpus.is_empty());
    match first {
        _ if nothing_to_say => (None, reason),
        Some(cpus) => (Some(cpus), reason),
        None => (asked.cpus.clone(), reason),
    }
}

/// The nodes for `strict`, or why there are none.
fn strict(ground: &Ground<'_>, asked: &Asked) -> Result<NodeSet, String> {
    let Some(near) = ground.near else {
        return Err("the machine does not say which memory is near the container's GPUs".to_owned());
    };
    let cpu_nodes = ground.topology.with_memory(&near.nodes());
    if cpu_nodes.is_empty() {
        return Err(format!(
            "NUMA nodes {} near the container's GPUs have no memory",
            near.nodes()
        ));
    }
    let ours = cpu_nodes.or(&ground.topology.with_memory(&near.gpu_memory));
    let forbids = |allowed: &&NodeSet| !ours.is_within(allowed);
    if let Some(allowed) = ground.allowed_memory.filter(forbids) {
        return Err(format!(
            "memory of NUMA nodes {ours} is near the container's GPUs, and its cgroup can give only that of {allowed}"
        ));
    }
    match &asked.memory {
        Some(asked) if !ours.meets(asked) => Err(format!(
            "memory of NUMA nodes {ours} is near the container's GPUs, and it was made for that of {asked}"
        )),
        Some(asked) => Ok(ours.and(asked)),
        None => Ok(ours),
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

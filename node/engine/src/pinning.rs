//! Pinning: the CPUs and the memory of one container, when it is admitted.
//!
//! Decides, with `plan`, under the node's lock: CPUs of the exclusive pool are held by grants as GPUs are. What must be read for that is
//! read before. Must not write cgroups: what is decided goes into `config.json`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use device::Allowed;
use ledger::{Grant, State};
use oci_specs::{CpuView, Mount};
use plan::cpus::{Asked, Ground, Held, exclusive, pin};
use plan::trust::{Asker, may_have_exclusive_cpus};
use plan::words::{quoted, shown};
use plan::{CpuSet, Cpus, Gpu, GpuUuid, Inventory, Near, Numa, Pinning, Refusal, Request};

use crate::ask::Ask;
use crate::claim::Facts;
use crate::edits::bind;
use crate::{Fault, Node};

/// What is around a container that is to be made, as far as its pinning depends on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Around {
    /// What its cgroup can give.
    pub(crate) allowed: Allowed,
    /// What its launcher named.
    pub(crate) asked: Asked,
    /// Whether that can be understood; else the OCI runtime is left to refuse it.
    pub(crate) understood: bool,
}

/// What one container is held to, and the CPUs of the pool that its grant comes to hold for it.
#[derive(Debug, Default)]
pub(crate) struct Pinned {
    pub(crate) pinning: Pinning,
    pub(crate) exclusive: Option<(String, CpuSet)>,
}

impl Around {
    /// Reads it.
    pub(crate) fn of(node: &Node, ask: &Ask) -> Result<Self, Fault> {
        let pod = ask.asker.pod.as_ref();
        let kubelet = pod.map(|pod| (pod.uid.as_str(), pod.container.as_str()));
        let asked = match asked(node, &ask.cpu, kubelet) {
            // Whoever asks for no more than nearness is left alone rather than refused.
            Err(error) if !demands(ask) => {
                tracing::warn!(container = ask.container, %error, "not pinned");
                None
            }
            asked => asked?,
        };
        let understood = asked.is_some();
        let allowed = device::allowed(&ask.cgroups_path);
        Ok(Self { allowed, asked: asked.unwrap_or_default(), understood })
    }
}

/// Whether the container is rather not to start than without the CPUs or memory that it asks for.
fn demands(ask: &Ask) -> bool {
    ask.request.as_ref().is_some_and(|request| {
        matches!(request.cpus, Cpus::Exclusively(_)) || request.numa == Numa::Strict
    })
}

/// What `cpu` asks, with what the kubelet says of this very container. `None` where a list cannot be understood.
pub(crate) fn asked(
    node: &Node,
    cpu: &CpuView,
    pod: Option<(&str, &str)>,
) -> Result<Option<Asked>, Fault> {
    let list = |text: &str| text.parse::<CpuSet>().map(|set| (!set.is_empty()).then_some(set));
    let (Ok(cpus), Ok(memory)) = (list(&cpu.cpus), list(&cpu.mems)) else { return Ok(None) };
    let kubelet = match pod {
        Some((uid, name)) => device::kubelet::exclusive_cpus(&node.kubelet, uid, name)?,
        None => None,
    };
    Ok(Some(Asked { cpus, memory, quota: cpu.worth(), kubelet }))
}

/// Whether this asker may ask for what the request says of CPUs.
pub(crate) fn may_be_pinned(node: &Node, request: &Request, asker: &Asker) -> Result<(), Refusal> {
    let Cpus::Exclusively(number) = request.cpus else { return Ok(()) };
    let key = request.cpus_key();
    if node.exclusive_cpus.is_empty() {
        return Err(Refusal::NoPool { key, value: number.to_string() });
    }
    may_have_exclusive_cpus(&key, asker, &node.policy)
}

/// Decides about the container that `facts` describe as a member of `grant`, beside what other grants hold.
pub(crate) fn pinned(
    node: &Node,
    grants: &[Arc<Grant>],
    grant: &Grant,
    facts: Facts<'_>,
) -> Result<Pinned, Refusal> {
    let Facts { ask, inventory, around, .. } = facts;
    if !around.understood {
        return Ok(Pinned::default());
    }
    let request = ask.request.as_ref();
    let wish = request.map_or((Cpus::Auto, Numa::Prefer), |request| (request.cpus, request.numa));
    let gpus: Vec<&Gpu> =
        grant.gpus.iter().filter_map(|given| inventory.gpu(&given.uuid)).collect();
    let near = Near::of(&gpus, &inventory.topology);
    let ground = Ground {
        topology: &inventory.topology,
        near: near.as_ref(),
        pool: &node.exclusive_cpus,
        reserved: &node.reserved_cpus,
        allowed: around.allowed.cpus.as_ref(),
        allowed_memory: around.allowed.memory.as_ref(),
    };
    let own = match (wish.0, request) {
        (Cpus::Exclusively(number), Some(request)) => {
            if let Some(given) = &around.asked.kubelet {
                return Err(disagrees(request, "the kubelet's CPU manager", given));
            }
            // What is asked for all of the pod's containers is shared by them, as its GPUs are.
            let alone = request.own_cpus.then(|| ask.name().unwrap_or_default().to_owned());
            let name = alone.unwrap_or_default();
            let cpus = match grant.exclusive.get(&name) {
                Some(held) if held.len() == number.get() as usize => held.clone(),
                Some(held) => {
                    let by = format!("the grant {} that {} holds", grant.id, grant.label);
                    return Err(disagrees(request, &by, held));
                }
                None => {
                    let others = held(grants, grant);
                    exclusive(&request.cpus_key(), number, &ground, &others)?
                }
            };
            Some((name, cpus))
        }
        _ => None,
    };
    let key = request.map_or_else(String::new, Request::numa_key);
    let cpus = own.as_ref().map(|(_, cpus)| cpus);
    let pinning = pin(wish, &key, &ground, &around.asked, cpus)?;
    Ok(Pinned { pinning, exclusive: own })
}

/// CPUs of the pool that are somebody's: those of this grant's other containers, too.
fn held<'a>(grants: &'a [Arc<Grant>], grant: &'a Grant) -> Vec<Held<'a>> {
    let others = grants.iter().map(Arc::as_ref).filter(|other| other.id != grant.id);
    let of = |grant: &'a Grant| {
        grant.exclusive.values().map(|cpus| Held {
            label: &grant.label,
            cpus,
            releasing: grant.state == State::Releasing,
        })
    };
    others.chain([grant]).flat_map(of).collect()
}

fn disagrees(request: &Request, by: &str, given: &CpuSet) -> Refusal {
    let key = request.cpus_key();
    let value = request.written.get(&key).map_or("", String::as_str);
    Refusal::Disagrees {
        asked: format!("annotation {}={}", shown(&key), quoted(value)),
        by: by.to_owned(),
        allocated: format!("CPUs {given}"),
    }
}

/// What there is to note where CPUs or memory near the GPUs are known and cannot be had.
pub(crate) fn left_alone(pinning: &Pinning) -> Option<String> {
    let cpus =
        pinning.effective.is_none() && !pinning.wide.is_empty() && !pinning.reason.is_empty();
    let memory = !pinning.preferred.is_empty() || pinning.memory_reason.is_empty();
    match (cpus, memory) {
        (true, _) => Some(format!("its CPUs are left alone: {}", pinning.reason)),
        (false, false) => Some(format!("its memory is left alone: {}", pinning.memory_reason)),
        (false, true) => None,
    }
}

/// Where a container finds which CPUs are near each of its GPUs, where these differ.
#[derive(Debug)]
pub(crate) struct GpuCpus {
    text: String,
    file: Option<PathBuf>,
}

impl GpuCpus {
    /// `GPU-…=0-47;GPU-…=48-95`.
    pub(crate) fn variable(&self) -> (String, String) {
        ("BERTH_GPU_CPUS".to_owned(), self.text.clone())
    }

    /// The same with a line for each.
    pub(crate) fn mount(&self) -> Option<Mount> {
        self.file.as_ref().map(|file| bind(file, "/run/berth/gpu-cpus"))
    }
}

impl Node {
    /// The map from GPUs to CPUs of a grant whose GPUs are on several nodes, kept until the container is made.
    pub(crate) fn gpu_cpus(
        &self,
        grant: &Grant,
        container: &str,
        gpus: &[&Gpu],
        inventory: &Inventory,
        pinning: &Pinning,
    ) -> Option<GpuCpus> {
        let near = Near::of(gpus, &inventory.topology).filter(Near::is_spread);
        let (Some(near), true) = (near, pinning.is_pinned()) else { return None };
        let within = |cpus: &CpuSet| {
            pinning.effective.as_ref().map_or_else(|| cpus.clone(), |effective| cpus.and(effective))
        };
        let entries = |end: &str| {
            let write = |mut text: String, (gpu, cpus): (&GpuUuid, &CpuSet)| {
                // Writing to a String cannot fail.
                let _ = write!(text, "{gpu}={}{end}", within(cpus));
                text
            };
            near.of_gpu.iter().fold(String::new(), write)
        };
        let file = kept_name(&grant.id, container);
        // The variable says the same.
        let file = device::keep(&self.host, &file, entries("\n").as_bytes());
        let file = file.inspect_err(|error| tracing::warn!(container, %error, "best effort")).ok();
        Some(GpuCpus { text: entries(";").trim_end_matches(';').to_owned(), file })
    }
}

/// The name of the map from its admission until it is made.
pub(crate) fn kept_name(grant: &plan::GrantId, container: &str) -> String {
    format!("gpu-cpus.{grant}.{container}")
}

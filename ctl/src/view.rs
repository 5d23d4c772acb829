//! Grants as `--json` and the tables show them.
//!
//! Decides the stable field names (documented in docs/berth.md), which do not follow the ledger's own when those change.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{Grant, Origin, Pinning, Stage, State, Verdict};
use serde::Serialize;

/// One grant.
#[derive(Debug, Serialize)]
pub struct GrantView {
    /// Its id, as `BERTH_GRANT` says in the container.
    pub grant: String,
    /// `namespace/pod[/container]`, or `namespace/container` without a pod.
    pub owner: String,
    /// containerd namespace.
    pub containerd_namespace: String,
    /// Sandbox id; the container's own without a pod.
    pub sandbox: String,
    /// `reserved`, `applied` or `releasing`.
    pub state: &'static str,
    /// `berth`, or how another allocator's decision was found.
    pub decided_by: String,
    /// Annotations as written.
    pub requested: BTreeMap<String, String>,
    /// The GPUs that were given: as a whole, or those that `instances` are on.
    pub gpus: Vec<GpuView>,
    /// The MIG instances that were given; empty where GPUs were given as a whole.
    pub instances: Vec<InstanceView>,
    /// How close the GPUs are.
    pub closeness: String,
    /// Parts of the driver that were brought.
    pub driver_capabilities: String,
    /// Whether the container is privileged, so that nothing confines it to its GPUs.
    pub unconfined: bool,
    /// What its containers run without, in words.
    pub notes: Vec<String>,
    /// Containers that use the grant.
    pub members: Vec<MemberView>,
    /// When it was granted, in seconds since 1970.
    pub created: u64,
    /// Every GPU of the node and what was decided about it.
    pub candidates: Vec<CandidateView>,
}

/// One GPU of a grant.
#[derive(Debug, Serialize)]
pub struct GpuView {
    /// The driver's index.
    pub index: u32,
    /// UUID.
    pub uuid: String,
    /// PCI address.
    pub pci: String,
    /// Product name.
    pub model: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// NUMA node, if the machine says.
    pub numa_node: Option<u32>,
}

/// One MIG instance of a grant.
#[derive(Debug, Serialize)]
pub struct InstanceView {
    /// `1g.10gb`.
    pub profile: String,
    /// UUID of its GPU.
    pub gpu: String,
    /// First memory slice.
    pub start: u32,
    /// How many memory slices.
    pub slices: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Streaming multiprocessors.
    pub sms: u32,
    /// `decided`, `begun`, `made` or `ending`.
    pub stage: &'static str,
    /// The driver's id of the GPU instance, once it is made.
    pub gpu_instance: Option<u32>,
    /// The driver's id of the compute instance in it.
    pub compute_instance: Option<u32>,
    /// UUID of the MIG device, once it is made.
    pub mig_uuid: Option<String>,
}

/// One container of a grant.
#[derive(Debug, Serialize)]
pub struct MemberView {
    /// containerd id.
    pub container: String,
    /// Name in its pod.
    pub name: String,
    /// PID of its first process; absent until it is created.
    pub pid: Option<u32>,
    /// Its CPUs.
    pub cpus: CpusView,
    /// Its memory.
    pub memory: MemoryView,
    /// Device families beside the GPUs that it was given: `gds,rdma`, or empty.
    pub extras: String,
}

/// The CPUs of a container, as lists (`0-3,8`).
#[derive(Debug, Serialize)]
pub struct CpusView {
    /// What its launcher, or the last update, named.
    pub requested: Option<String>,
    /// What it has; absent where its CPUs are left alone.
    pub effective: Option<String>,
    /// Whether it has them for itself.
    pub exclusive: bool,
    /// Why it has others than those near its GPUs.
    pub reason: String,
}

/// The memory of a container, as lists of NUMA nodes.
#[derive(Debug, Serialize)]
pub struct MemoryView {
    /// What its launcher, or the last update, named, where it is held to nodes.
    pub requested: Option<String>,
    /// What it is held to; absent where its memory is left alone or preferred.
    pub effective: Option<String>,
    /// What its processes prefer.
    pub preferred: Option<String>,
    /// Why it is not what was asked for.
    pub reason: String,
}

/// One GPU as the decision saw it.
#[derive(Debug, Serialize)]
pub struct CandidateView {
    /// UUID.
    pub uuid: String,
    /// `chosen`, `passed` or `unavailable`.
    pub verdict: &'static str,
    /// Why.
    pub reason: String,
}

/// The grant as it is shown.
pub fn grant(grant: &Grant) -> GrantView {
    GrantView {
        grant: grant.id.to_string(),
        owner: grant.label.clone(),
        containerd_namespace: grant.owner.namespace.clone(),
        sandbox: grant.owner.sandbox.clone(),
        state: match grant.state {
            State::Reserved => "reserved",
            State::Applied => "applied",
            State::Releasing => "releasing",
        },
        decided_by: match &grant.origin {
            Origin::Berth => "berth".into(),
            Origin::External { by } => by.clone(),
        },
        requested: grant.requested.clone(),
        gpus: grant.gpus.iter().map(gpu).collect(),
        instances: grant.slots.iter().map(instance).collect(),
        closeness: grant.closeness.clone(),
        driver_capabilities: grant.capabilities.to_string(),
        unconfined: grant.unconfined,
        notes: grant.notes.clone(),
        members: grant
            .members
            .iter()
            .map(|member| {
                let (cpus, memory) = pinned(&member.pinning);
                let (container, name) = (member.container.clone(), member.name.clone());
                let (pid, extras) = (member.init.map(|init| init.pid), member.extras.to_string());
                MemberView { container, name, pid, cpus, memory, extras }
            })
            .collect(),
        created: grant.created,
        candidates: grant.candidates.iter().map(candidate).collect(),
    }
}

/// Grants as they are shown.
pub fn grants(all: &[Arc<Grant>]) -> Vec<GrantView> {
    all.iter().map(|one| grant(one)).collect()
}

/// A grant in a line: whose it is, and the UUIDs of its GPUs.
pub fn named(grant: &Grant) -> String {
    let gpus: Vec<&str> = grant.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    format!("{} of {}: {}", grant.id, grant.label, gpus.join(","))
}

impl GrantView {
    /// The driver's index of the GPU that an instance is on.
    pub fn index_of(&self, instance: &InstanceView) -> String {
        let gpu = self.gpus.iter().find(|gpu| gpu.uuid == instance.gpu);
        gpu.map_or_else(|| "?".to_owned(), |gpu| gpu.index.to_string())
    }
}

impl MemberView {
    /// Its name in the pod, else its id.
    pub fn shown(&self) -> &str {
        if self.name.is_empty() { &self.container } else { &self.name }
    }
}

/// A GPU as it is shown.
pub fn gpu(gpu: &engine::GivenGpu) -> GpuView {
    GpuView {
        index: gpu.index,
        uuid: gpu.uuid.to_string(),
        pci: gpu.pci.to_string(),
        model: gpu.model.clone(),
        memory_mib: gpu.memory.0,
        numa_node: gpu.numa_node,
    }
}

fn instance(slot: &engine::GivenSlot) -> InstanceView {
    let made = slot.instance.as_ref();
    InstanceView {
        profile: slot.name.to_string(),
        gpu: slot.gpu.to_string(),
        start: slot.start,
        slices: slot.size,
        memory_mib: slot.memory.0,
        sms: slot.sms,
        stage: match slot.stage {
            _ if slot.foreign => "foreign",
            Stage::Decided => "decided",
            Stage::Begun => "begun",
            Stage::Made => "made",
            Stage::Ending => "ending",
        },
        gpu_instance: made.map(|made| made.gpu_instance),
        compute_instance: made.map(|made| made.compute_instance),
        mig_uuid: made.and_then(|made| made.uuid.as_ref()).map(ToString::to_string),
    }
}

/// What a container is pinned to.
pub fn pinned(pinning: &Pinning) -> (CpusView, MemoryView) {
    (cpus(pinning), memory(pinning))
}

/// CPUs as they are shown.
pub fn cpus(pinning: &Pinning) -> CpusView {
    CpusView {
        requested: pinning.requested.as_ref().map(ToString::to_string),
        effective: pinning.effective.as_ref().map(ToString::to_string),
        exclusive: pinning.exclusive,
        reason: pinning.reason.clone(),
    }
}

/// Memory as it is shown.
pub fn memory(pinning: &Pinning) -> MemoryView {
    let preferred = (!pinning.preferred.is_empty()).then(|| pinning.preferred.to_string());
    MemoryView {
        requested: pinning.requested_memory.as_ref().map(ToString::to_string),
        effective: pinning.memory.as_ref().map(ToString::to_string),
        preferred,
        reason: pinning.memory_reason.clone(),
    }
}

/// A candidate as it is shown.
pub fn candidate(candidate: &engine::Candidate) -> CandidateView {
    let (verdict, reason) = match &candidate.verdict {
        Verdict::Chosen => ("chosen", String::new()),
        Verdict::Passed(why) => ("passed", why.clone()),
        Verdict::Unavailable(why) => ("unavailable", why.clone()),
    };
    CandidateView { uuid: candidate.gpu.to_string(), verdict, reason }
}

/// Prints a value as JSON, indented, with a newline.
///
/// # Errors
/// When standard output is closed.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    use std::io::Write;
    let mut text = as_seen(&serde_json::to_string_pretty(value)?);
    text.push('\n');
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// The same JSON, of which a terminal shows all: what is unseen stands in its strings alone, and has an escape there.
pub fn as_seen(json: &str) -> String {
    let escaped = |one: char| {
        let mut units = [0; 2];
        one.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>()
    };
    let shown = |one: char| match one.is_ascii() || !is_unseen(one) {
        true => one.to_string(),
        false => escaped(one),
    };
    json.chars().map(shown).collect()
}

fn is_unseen(one: char) -> bool {
    one.is_control()
        || matches!(one, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(one, '\u{61c}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// The line as a terminal shows it: names that pods and containers have may hold what moves its cursor, turns its text around, or is not seen.
pub fn visible(line: &str) -> String {
    let shown =
        |one: char| if is_unseen(one) { one.escape_default().to_string() } else { one.to_string() };
    line.chars().map(shown).collect()
}

/// Prints lines of text.
///
/// # Errors
/// When standard output is closed.
pub fn print_lines(lines: &[String]) -> anyhow::Result<()> {
    print_made(lines.iter().map(|line| visible(line)))
}

/// Prints lines in which whatever a terminal obeys is there on purpose.
///
/// # Errors
/// When standard output is closed.
pub fn print_made(lines: impl Iterator<Item = String>) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_grant_is_in_the_guide() {
        let guide = include_str!("../../docs/berth.md");
        let uuid = "GPU-1".to_owned();
        let grant = GrantView {
            grant: String::new(),
            owner: String::new(),
            containerd_namespace: String::new(),
            sandbox: String::new(),
            state: "applied",
            decided_by: String::new(),
            requested: BTreeMap::new(),
            gpus: vec![GpuView {
                index: 0,
                uuid: uuid.clone(),
                pci: String::new(),
                model: String::new(),
                memory_mib: 0,
                numa_node: None,
            }],
            instances: vec![InstanceView {
                profile: String::new(),
                gpu: uuid.clone(),
                start: 0,
                slices: 1,
                memory_mib: 0,
                sms: 0,
                stage: "made",
                gpu_instance: None,
                compute_instance: None,
                mig_uuid: None,
            }],
            closeness: String::new(),
            driver_capabilities: String::new(),
            unconfined: false,
            notes: Vec::new(),
            members: vec![MemberView {
                container: String::new(),
                name: String::new(),
                pid: None,
                cpus: cpus(&Pinning::default()),
                memory: memory(&Pinning::default()),
                extras: String::new(),
            }],
            created: 0,
            candidates: vec![CandidateView { uuid, verdict: "chosen", reason: String::new() }],
        };
        let shown = serde_json::to_value(&grant).expect("json");
        let below = ["gpus", "instances", "members", "candidates"].map(|list| &shown[list][0]);
        let within = ["cpus", "memory"].map(|what| &shown["members"][0][what]);
        let objects = std::iter::once(&shown).chain(below).chain(within);
        let mut seen = 0;
        for field in objects.flat_map(|one| one.as_object().expect("an object").keys()) {
            assert!(guide.contains(&format!("`{field}`")), "{field} is not in docs/berth.md");
            seen += 1;
        }
        assert_eq!(seen, 16 + 6 + 10 + 6 + 3 + 4 + 4, "all fields were looked at");
    }
}

//! `berth explain`: one container's request, what it got, and why not something else.

use anyhow::bail;
use engine::{Grant, Node};

use crate::view::{self, CandidateView, CpusView, GpuView, GrantView, MemberView, MemoryView};

/// Explains the grants that `name` may mean.
pub fn run(node: &Node, name: &str, json: bool) -> anyhow::Result<()> {
    let grants = node.grants()?;
    let found: Vec<&Grant> = grants.iter().filter(|grant| is_meant(grant, name)).collect();
    if found.is_empty() {
        bail!(
            "no grant of {name:?} on this node: it asked for no GPU, it has ended, or it was refused (then the refusal is \
             the container's create error); `berth ps` lists what is granted"
        );
    }
    let views: Vec<GrantView> = found.iter().map(|grant| view::grant(grant)).collect();
    if json {
        return view::print_json(&serde_json::json!({ "grants": views }));
    }
    for (nth, view) in views.iter().enumerate() {
        if nth > 0 {
            println!();
        }
        view::print_lines(&lines(view))?;
    }
    Ok(())
}

fn is_meant(grant: &Grant, name: &str) -> bool {
    let owned = |label: &str| label == name || label.starts_with(&format!("{name}/"));
    grant.id.as_str() == name
        || owned(&grant.label)
        || grant.members.iter().any(|member| {
            member.container == name
                || (name.len() >= 6 && member.container.starts_with(name))
                || (!member.name.is_empty() && format!("{}/{}", grant.label, member.name) == name)
        })
}

/// What a container is pinned to, in words: CPUs, then memory; nothing where both are left alone and nothing is to be said.
pub fn pinned(member: &MemberView) -> Vec<String> {
    cpus(&member.cpus).into_iter().chain(memory(&member.memory)).collect()
}

/// `CPUs 0-3 requested -> 0-1: why`.
pub fn cpus(cpus: &CpusView) -> Option<String> {
    let alone = if cpus.exclusive { ", its own" } else { "" };
    let what = match (&cpus.requested, &cpus.effective) {
        (None, None) if cpus.reason.is_empty() => return None,
        (None, None) => "left alone".to_owned(),
        (Some(requested), None) => format!("{requested} requested, left alone"),
        (None, Some(effective)) => format!("{effective}{alone}"),
        (Some(requested), Some(effective)) => {
            format!("{requested} requested -> {effective}{alone}")
        }
    };
    Some(format!("CPUs {what}{}", because(&cpus.reason)))
}

/// `Memory of NUMA nodes 0-1 requested -> 0 only: why`; `Memory of NUMA nodes 0 preferred`.
pub fn memory(memory: &MemoryView) -> Option<String> {
    let what = match (&memory.effective, &memory.preferred) {
        (Some(only), _) => match &memory.requested {
            Some(requested) => format!("of NUMA nodes {requested} requested -> {only} only"),
            None => format!("of NUMA nodes {only} only"),
        },
        (None, Some(preferred)) => format!("of NUMA nodes {preferred} preferred"),
        (None, None) if memory.reason.is_empty() => return None,
        (None, None) => "left alone".to_owned(),
    };
    Some(format!("Memory {what}{}", because(&memory.reason)))
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// `GPU 4 GPU-… (NVIDIA H100 80GB HBM3, 81559 MiB, 0000:97:00.0, NUMA node 1)`.
pub fn gpu(gpu: &GpuView) -> String {
    let numa = gpu.numa_node.map_or_else(String::new, |node| format!(", NUMA node {node}"));
    let GpuView { index, uuid, model, memory_mib, pci, .. } = gpu;
    format!("GPU {index} {uuid} ({model}, {memory_mib} MiB, {pci}{numa})")
}

/// `GPU-… passed: would break the free group of NUMA node 0`.
pub fn candidate(candidate: &CandidateView) -> String {
    format!("{} {}{}", candidate.uuid, candidate.verdict, because(&candidate.reason))
}

fn lines(grant: &GrantView) -> Vec<String> {
    let mut lines = vec![
        format!("Grant      {} ({}, decided by {})", grant.grant, grant.state, grant.decided_by),
        format!("Owner      {}", grant.owner),
    ];
    for (nth, (key, value)) in grant.requested.iter().enumerate() {
        lines.push(format!("{:<9}  {key}: {value:?}", if nth == 0 { "Requested" } else { "" }));
    }
    for (nth, gpu) in grant.gpus.iter().enumerate() {
        let head = if nth == 0 { "Given" } else { "" };
        lines.push(format!("{head:<9}  {}", self::gpu(gpu)));
    }
    for one in &grant.instances {
        let end = one.start + one.slices.saturating_sub(1);
        let uuid = one.mig_uuid.as_deref().map_or_else(|| one.stage.to_owned(), str::to_owned);
        let (profile, gpu) = (&one.profile, &one.gpu);
        lines.push(format!(
            "{:<9}  MIG {profile} on {gpu}, slices {}-{end} ({} SMs, {} MiB, {uuid})",
            "", one.start, one.sms, one.memory_mib,
        ));
    }
    if !grant.closeness.is_empty() {
        lines.push(format!("Closeness  {}", grant.closeness));
    }
    lines.push(format!("Driver     {}", grant.driver_capabilities));
    if grant.unconfined {
        lines.push(
            "Confined   no: it is privileged, or its device rules open more GPUs than it was given"
                .into(),
        );
    }
    for (nth, member) in grant.members.iter().enumerate() {
        let name = if member.name.is_empty() { "" } else { &format!("{} ", member.name) };
        let pid = member.pid.map_or_else(|| "not yet created".into(), |pid| format!("pid {pid}"));
        let head = if nth == 0 { "Used by" } else { "" };
        lines.push(format!("{head:<9}  {name}{} ({pid})", member.container));
        let extras = (!member.extras.is_empty()).then(|| format!("Extras {}", member.extras));
        let all = extras.into_iter().chain(pinned(member));
        lines.extend(all.map(|line| format!("{:<9}    {line}", "")));
    }
    for (nth, note) in grant.notes.iter().enumerate() {
        lines.push(format!("{:<9}  {note}", if nth == 0 { "Mind" } else { "" }));
    }
    for (nth, candidate) in grant.candidates.iter().enumerate() {
        let head = if nth == 0 { "Looked at" } else { "" };
        lines.push(format!("{head:<9}  {}", self::candidate(candidate)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use engine::{CpuSet, Pinning};

    use super::*;

    fn set(text: &str) -> CpuSet {
        text.parse().expect("a list")
    }

    fn said(pinning: &Pinning) -> Vec<String> {
        let (cpus, memory) = view::pinned(pinning);
        let name = String::new();
        let extras = String::new();
        pinned(&MemberView { container: name.clone(), name, pid: None, cpus, memory, extras })
    }

    #[test]
    fn what_was_requested_what_is_in_effect_and_why_are_told_of_cpus_and_memory() {
        assert!(said(&Pinning::default()).is_empty(), "left alone, and nothing to say");
        let mut pinning = Pinning { effective: Some(set("0-3")), ..Pinning::default() };
        pinning.preferred = set("0");
        assert_eq!(said(&pinning), ["CPUs 0-3", "Memory of NUMA nodes 0 preferred"]);
        // An update that narrows, one that cannot be followed, and one of memory, which never is.
        pinning.requested = Some(set("0-9"));
        assert_eq!(said(&pinning)[0], "CPUs 0-9 requested -> 0-3");
        pinning.requested = Some(set("8"));
        pinning.effective = pinning.requested.clone();
        pinning.reason = "none of CPUs 8 are near its GPUs (0-3)".into();
        assert_eq!(
            said(&pinning)[0],
            "CPUs 8 requested -> 8: none of CPUs 8 are near its GPUs (0-3)"
        );
        pinning.memory = Some(set("0"));
        pinning.requested_memory = Some(set("0-1"));
        assert_eq!(said(&pinning)[1], "Memory of NUMA nodes 0-1 requested -> 0 only");
        pinning.memory_reason = "it is held to those near its GPUs".into();
        let line =
            "Memory of NUMA nodes 0-1 requested -> 0 only: it is held to those near its GPUs";
        assert_eq!(said(&pinning)[1], line);
        pinning.requested_memory = None;
        pinning.memory_reason = String::new();
        assert_eq!(said(&pinning)[1], "Memory of NUMA nodes 0 only");
        let own = Pinning { effective: Some(set("6-7")), exclusive: true, ..Pinning::default() };
        assert_eq!(said(&own), ["CPUs 6-7, its own"]);
        let alone = Pinning { reason: "nothing is near".into(), ..Pinning::default() };
        assert_eq!(said(&alone), ["CPUs left alone: nothing is near"]);
    }
}

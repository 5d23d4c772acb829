//! How a plan is shown: for people, and as JSON with stable fields (documented in docs/berth.md).
//!
//! Decides words and fields only.

use std::collections::BTreeMap;

use engine::{GivenSlot, Refusal, Rehearsed};
use serde::Serialize;

use super::{Container, Fate, Kind, Plan, Tried, Turn};
use crate::explain;
use crate::view::{self, CandidateView, CpusView, GpuView, MemoryView};

/// A plan.
#[derive(Debug, Serialize)]
struct PlanView {
    /// Whether everything fits, as often as it was asked for.
    fits: bool,
    /// How often it was to be tried.
    count: u32,
    /// How often it fits, one after the other.
    fitting: u32,
    /// What is to be minded beforehand.
    warnings: Vec<String>,
    /// The containers in the order in which they were tried the first time.
    containers: Vec<ContainerView>,
    /// Those of the time that did not fit, where that was a later one.
    next: Vec<ContainerView>,
}

/// One container.
#[derive(Debug, Serialize)]
struct ContainerView {
    /// `namespace/pod`; null without a pod.
    pod: Option<String>,
    /// Its name in the pod.
    container: String,
    /// `init`, `sidecar`, `app`, or `alone` without a pod.
    kind: &'static str,
    /// `given`, `shared` (its pod holds the claim already), `foretold`, `nothing`, `refused`, `not reached`.
    outcome: &'static str,
    /// What it asks, as written.
    requested: BTreeMap<String, String>,
    /// GPUs that it would get, or those that its instances are on.
    gpus: Vec<GpuView>,
    /// MIG instances that it would get.
    instances: Vec<PlannedInstance>,
    /// How close the GPUs are.
    closeness: String,
    /// Parts of the driver that are brought.
    driver_capabilities: String,
    /// What of a request is foretold by a profile's name alone.
    foretold: Option<String>,
    /// Its CPUs.
    cpus: CpusView,
    /// Its memory.
    memory: MemoryView,
    /// What would be done to the node before it is made, in order.
    steps: Vec<String>,
    /// Every GPU of the node and what was decided about it.
    candidates: Vec<CandidateView>,
    /// The refusal, as its create error would have it.
    refusal: Option<String>,
    /// The nearest request that would fit: an annotation and its value.
    nearest_fit: Option<NearestView>,
}

/// A MIG instance.
#[derive(Debug, Serialize)]
struct PlannedInstance {
    /// `1g.10gb`.
    profile: String,
    /// UUID of its GPU.
    gpu: String,
    /// First memory slice.
    start: u32,
    /// How many memory slices.
    slices: u32,
    /// Memory in MiB.
    memory_mib: u64,
    /// Streaming multiprocessors.
    sms: u32,
    /// Whether it stands already and is taken over.
    reused: bool,
}

/// A request that would fit.
#[derive(Debug, Serialize)]
struct NearestView {
    /// `berth.dev/gpus`.
    annotation: String,
    /// `2`.
    value: String,
}

/// Prints it.
pub fn print(plan: &Plan<'_>, json: bool) -> anyhow::Result<()> {
    let view = view(plan);
    if json {
        return view::print_json(&view);
    }
    view::print_lines(&lines(&view))
}

fn view(plan: &Plan<'_>) -> PlanView {
    let all = |turns: &Vec<Turn<'_>>| turns.iter().flat_map(turn).collect();
    PlanView {
        fits: plan.fitting == plan.asked,
        count: plan.asked,
        fitting: plan.fitting,
        warnings: plan.warnings.to_vec(),
        containers: plan.turns.first().map(all).unwrap_or_default(),
        next: plan.turns.get(1).map(all).unwrap_or_default(),
    }
}

fn turn(turn: &Turn<'_>) -> Vec<ContainerView> {
    let both = turn.pod.containers.iter().zip(&turn.fates);
    both.map(|(container, fate)| one(turn, container, fate)).collect()
}

fn one(turn: &Turn<'_>, container: &Container, fate: &Tried) -> ContainerView {
    let nothing = Rehearsed::default();
    let (outcome, rehearsed, refusal) = match &fate.fate {
        Fate::NotReached => ("not reached", &nothing, None),
        Fate::Refused(refusal) => ("refused", &nothing, Some(refusal.as_ref())),
        Fate::Admitted(rehearsed) => {
            let outcome = match (&rehearsed.grant, &rehearsed.foretold) {
                (None, None) => "nothing",
                _ if rehearsed.joins => "shared",
                (_, Some(_)) => "foretold",
                (Some(_), None) => "given",
            };
            (outcome, rehearsed.as_ref(), None)
        }
    };
    let grant = rehearsed.grant.as_deref();
    ContainerView {
        pod: turn.pod.name.clone(),
        container: container.name.clone(),
        kind: match container.kind {
            Kind::Alone => "alone",
            Kind::Init => "init",
            Kind::Sidecar => "sidecar",
            Kind::App => "app",
        },
        outcome,
        requested: fate.requested.clone(),
        gpus: grant.iter().flat_map(|grant| grant.gpus.iter()).map(view::gpu).collect(),
        instances: grant.iter().flat_map(|grant| &grant.slots).map(instance).collect(),
        closeness: grant.map(|grant| grant.closeness.clone()).unwrap_or_default(),
        driver_capabilities: grant.map(|grant| grant.capabilities.to_string()).unwrap_or_default(),
        foretold: rehearsed.foretold.as_ref().map(ToString::to_string),
        cpus: view::cpus(&rehearsed.pinning),
        memory: view::memory(&rehearsed.pinning),
        steps: rehearsed.steps.iter().map(ToString::to_string).collect(),
        candidates: grant
            .iter()
            .flat_map(|grant| grant.candidates.iter())
            .map(view::candidate)
            .collect(),
        refusal: refusal.map(ToString::to_string),
        nearest_fit: refusal
            .and_then(Refusal::nearest)
            .map(|want| nearest(want.as_annotation(), &fate.requested)),
    }
}

/// In the words of an annotation of the same address: of the pod, or of this container alone.
fn nearest((field, value): (&str, String), requested: &BTreeMap<String, String>) -> NearestView {
    let claims = |key: &&String| ["/gpus", "/mig", "/devices"].iter().any(|end| key.ends_with(end));
    let domain = requested.keys().find(claims).and_then(|key| key.split_once('/'));
    let domain = domain.map_or("berth.dev", |(domain, _)| domain);
    NearestView { annotation: format!("{domain}/{field}"), value }
}

fn instance(slot: &GivenSlot) -> PlannedInstance {
    PlannedInstance {
        profile: slot.name.to_string(),
        gpu: slot.gpu.to_string(),
        start: slot.start,
        slices: slot.size,
        memory_mib: slot.memory.0,
        sms: slot.sms,
        // What stands already was taken over: by this container, or by one that shares it.
        reused: slot.instance.is_some(),
    }
}

fn lines(plan: &PlanView) -> Vec<String> {
    let mut lines: Vec<String> =
        plan.warnings.iter().map(|note| format!("Mind       {note}")).collect();
    for container in &plan.containers {
        section(&mut lines, container, "");
    }
    for container in plan.next.iter().filter(|container| container.refusal.is_some()) {
        let nth = format!("time {}", plan.fitting + 1);
        section(&mut lines, container, &nth);
    }
    if plan.count > 1 {
        lines.push(String::new());
        lines.push(format!("{} of {} fit, one after the other.", plan.fitting, plan.count));
    }
    lines
}

fn section(lines: &mut Vec<String>, container: &ContainerView, nth: &str) {
    if !lines.is_empty() {
        lines.push(String::new());
    }
    if let Some(pod) = &container.pod {
        lines.push(format!("Pod        {pod}, {}", container.kind_and_name()));
    }
    if !nth.is_empty() {
        lines.push(format!("Tried      {nth}"));
    }
    lines.extend(outcome(container));
}

impl ContainerView {
    fn kind_and_name(&self) -> String {
        match self.kind {
            "app" => format!("container {}", self.container),
            kind => format!("{kind} container {}", self.container),
        }
    }
}

/// Lines with this head at the first.
fn headed(head: &str, words: impl IntoIterator<Item = String>) -> Vec<String> {
    let head = |nth| if nth == 0 { head } else { "" };
    words.into_iter().enumerate().map(|(nth, words)| format!("{:<9}  {words}", head(nth))).collect()
}

fn outcome(container: &ContainerView) -> Vec<String> {
    match container.outcome {
        "nothing" => return headed("Gets", ["nothing: it asks for none".to_owned()]),
        "not reached" => {
            let why = "nothing yet: an init container before it is refused".to_owned();
            return headed("Gets", [why]);
        }
        _ => {}
    }
    let asked = container.requested.iter().map(|(key, value)| format!("{key}: {value:?}"));
    let mut lines = headed("Requested", asked);
    if let Some(refusal) = &container.refusal {
        lines.extend(headed("Refused", [refusal.clone()]));
        let nearest = container.nearest_fit.as_ref();
        lines.extend(headed(
            "Would fit",
            nearest.map(|fit| format!("{}: {:?}", fit.annotation, fit.value)),
        ));
        return lines;
    }
    let head = if container.outcome == "shared" { "Shares" } else { "Gets" };
    let foretold = container.foretold.iter().map(|want| {
        format!(
            "{want}, as far as the name tells: where, the driver says once the GPU is in MIG mode"
        )
    });
    let gpus =
        container.gpus.iter().map(explain::gpu).chain(container.instances.iter().map(slices));
    lines.extend(headed(head, foretold.chain(gpus)));
    let closeness = Some(container.closeness.clone()).filter(|words| !words.is_empty());
    lines.extend(headed("Closeness", closeness));
    let driver = Some(container.driver_capabilities.clone()).filter(|words| !words.is_empty());
    lines.extend(headed("Driver", driver));
    let pinned =
        explain::cpus(&container.cpus).into_iter().chain(explain::memory(&container.memory));
    lines.extend(headed("Next to", pinned));
    lines.extend(headed("Steps", container.steps.iter().cloned()));
    if container.outcome == "given" {
        lines.extend(headed("Looked at", container.candidates.iter().map(explain::candidate)));
    }
    lines
}

fn slices(one: &PlannedInstance) -> String {
    let end = one.start + one.slices.saturating_sub(1);
    let how = if one.reused { "stands already" } else { "to be made" };
    let (profile, gpu, start) = (&one.profile, &one.gpu, one.start);
    format!(
        "MIG {profile}@{start} on {gpu}, slices {start}-{end} ({} SMs, {} MiB, {how})",
        one.sms, one.memory_mib
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_plan_is_in_the_guide() {
        let guide = include_str!("../../../docs/berth.md");
        let container = ContainerView {
            pod: None,
            container: String::new(),
            kind: "alone",
            outcome: "given",
            requested: BTreeMap::new(),
            gpus: Vec::new(),
            instances: vec![PlannedInstance {
                profile: String::new(),
                gpu: String::new(),
                start: 0,
                slices: 1,
                memory_mib: 0,
                sms: 0,
                reused: false,
            }],
            closeness: String::new(),
            driver_capabilities: String::new(),
            foretold: None,
            cpus: view::cpus(&engine::Pinning::default()),
            memory: view::memory(&engine::Pinning::default()),
            steps: Vec::new(),
            candidates: Vec::new(),
            refusal: None,
            nearest_fit: Some(NearestView { annotation: String::new(), value: String::new() }),
        };
        let plan = PlanView {
            fits: true,
            count: 1,
            fitting: 1,
            warnings: Vec::new(),
            containers: vec![container],
            next: Vec::new(),
        };
        let shown = serde_json::to_value(&plan).expect("json");
        let one = &shown["containers"][0];
        let mut seen = 0;
        for object in [one, &one["instances"][0], &one["nearest_fit"]] {
            for field in object.as_object().expect("an object").keys() {
                assert!(guide.contains(&format!("`{field}`")), "{field} is not in docs/berth.md");
                seen += 1;
            }
        }
        for field in shown.as_object().expect("an object").keys() {
            assert!(guide.contains(&format!("\"{field}\"")), "{field} is not in docs/berth.md");
            seen += 1;
        }
        assert_eq!(seen, 16 + 7 + 2 + 6, "all fields were looked at");
    }
}

//! Refusals as the kubelet hears them, word for word: in the answer to StartContainer, and in the container's status.

use anyhow::{Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use simnode::Change;
use simnode::state::MigMode;

/// Every candidate with what stands in its way, and what would fit instead.
pub fn no_room_names_holders_and_the_nearest_fit(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "a30", TRUSTED)?;
    let mode = MigMode { current: true, pending: true };
    kubelet.node.sim.change(Change::Mig { gpu: "0".to_owned(), mode })?;
    let holder = kubelet.pod(&[("berth.dev/gpus", "1"), ("own.berth.dev/gpus", "1")])?;
    let main = holder.run("main", &SLEEP)?;
    let own = holder.run("own", &SLEEP)?;
    let of = |id: &str| -> Result<String> {
        Ok(kubelet.grant_of(id)?["gpus"][0]["uuid"].as_str().unwrap_or_default().to_owned())
    };
    let (pods, containers) = (of(&main)?, of(&own)?);
    let left = free(&kubelet)?;
    let state = kubelet.node.sim.state()?;
    let candidates: Vec<String> = state
        .gpus
        .iter()
        .map(|gpu| match &gpu.uuid {
            uuid if *uuid == pods => format!("{uuid}: held by tests/{}", holder.name()),
            uuid if *uuid == containers => format!("{uuid}: held by tests/{}/own", holder.name()),
            uuid if gpu.mig.is_some_and(|mig| mig.current) => format!("{uuid}: in MIG mode"),
            uuid => format!("{uuid}: free"),
        })
        .collect();
    ensure!(left.len() == 1, "{left:?}");
    let asker = kubelet.pod(&[("berth.dev/gpus", "2"), ("one.berth.dev/gpus", "1")])?;
    let expected =
        format!("berth: no room for gpus 2: {}; nearest fit: gpus 1", candidates.join("; "));
    kubelet.refused_with(&asker, "main", &expected)?;
    let one = asker.run("one", &SLEEP)?;
    let taken = format!("{}: held by tests/{}/one", left[0], asker.name());
    let candidates = candidates.join("; ").replace(&format!("{}: free", left[0]), &taken);
    let expected = format!("berth: no room for gpus 2: {candidates}; nothing is free");
    kubelet.refused_with(&asker, "main", &expected)?;
    asker.remove(&[&one])?;
    holder.remove(&[&main, &own])?;
    kubelet.node.is_free()
}

/// UUIDs of GPUs that nobody holds and that are not cut.
fn free(kubelet: &Kubelet) -> Result<Vec<String>> {
    let grants = kubelet.node.grants()?;
    let holds = |uuid: &str| {
        let gpus = grants.iter().flat_map(|grant| grant["gpus"].as_array().into_iter().flatten());
        gpus.into_iter().any(|gpu| gpu["uuid"] == uuid)
    };
    let gpus = kubelet.node.sim.state()?.gpus.into_iter();
    let whole = gpus.filter(|gpu| !gpu.mig.is_some_and(|mig| mig.current)).map(|gpu| gpu.uuid);
    Ok(whole.filter(|uuid| !holds(uuid)).collect())
}

/// Each container of one pod asks in its own wrong way. What another container's annotations say is not its business.
pub fn what_cannot_be_understood_is_said_of_the_container_that_it_addresses(
    stage: &Stage,
) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    let cases = [
        (
            "words",
            "gpus",
            "two",
            "it is not a whole number of GPUs; write for example words.berth.dev/gpus: \"2\"",
        ),
        (
            "near",
            "gpu",
            "1",
            "there is no such field (did you mean near.berth.dev/gpus?); the fields are gpus, devices, mig, memory, compute, \
             driver-capabilities, cpus, numa, isolation, extras",
        ),
        (
            "slice",
            "mig",
            "1g",
            "\"1g\" is not a MIG profile's name; write for example slice.berth.dev/mig: \"2x3g.40gb\"",
        ),
        (
            "part",
            "memory",
            "8Gi",
            "memory is not in this version; ask for whole GPUs with gpus, or for a part of one with mig",
        ),
    ];
    let annotations: Vec<(String, &str)> = cases
        .iter()
        .map(|(name, field, value, _)| (format!("{name}.berth.dev/{field}"), *value))
        .collect();
    let annotations: Vec<(&str, &str)> =
        annotations.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let pod = kubelet.pod(&annotations)?;
    for (name, field, value, problem) in cases {
        let expected = format!("berth: annotation {name}.berth.dev/{field}={value:?}: {problem}");
        kubelet.refused_with(&pod, name, &expected)?;
    }
    let bystander = pod.run("bystander", &SLEEP)?;
    kubelet.has_nothing(&bystander)?;
    pod.remove(&[&bystander])?;
    // What the whole pod is told, each of its containers is refused for; the pod itself starts.
    let pod = kubelet.pod(&[("berth.dev/gpus", "none")])?;
    kubelet.refused_with(
        &pod,
        "main",
        "berth: annotation berth.dev/gpus=\"none\": only <container>.berth.dev/gpus can be none: it takes that container out of \
         the pod's claim; write for example berth.dev/gpus: \"2\"",
    )?;
    pod.remove(&[])?;
    kubelet.node.is_free()
}

/// A refused container is tried again by the kubelet, and starts once there is room.
pub fn a_refused_container_starts_when_there_is_room(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    let (first, second) =
        (kubelet.pod(&[("berth.dev/gpus", "1")])?, kubelet.pod(&[("berth.dev/gpus", "1")])?);
    let holder = first.run("main", &SLEEP)?;
    let words = format!(
        "berth: no room for gpus 1: {}: held by tests/{}; nothing is free",
        kubelet.uuid(0)?,
        first.name()
    );
    for _ in 0..2 {
        kubelet.refused_with(&second, "main", &words)?;
    }
    first.remove(&[&holder])?;
    let main = second.run("main", &SLEEP)?;
    kubelet.has_exactly(&main, &kubelet.only_grant()?)?;
    second.remove(&[&main])?;
    kubelet.node.is_free()
}

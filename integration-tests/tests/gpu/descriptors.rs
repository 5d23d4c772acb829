//! What a pod's shim holds open: as much after many containers with GPUs as before them, however these ended.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::cri::pod::Pod;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use integration_tests::machine;
use integration_tests::wait;

/// How many of each kind a process has open. A pipe or socket is known by its kind, since it has another number each time.
fn kinds(pid: u32) -> Result<BTreeMap<String, usize>> {
    let mut kinds = BTreeMap::new();
    for what in machine::descriptors(pid)? {
        let kind = what.split_once(":[").filter(|(kind, _)| *kind != "anon_inode");
        *kinds.entry(kind.map_or(what.clone(), |(kind, _)| kind.to_owned())).or_default() += 1;
    }
    Ok(kinds)
}

/// One round of containers in a pod: one that is made, looked into and deleted, one whose program is missing, and one that is refused.
/// Each has the annotations of its name.
fn round(kubelet: &Kubelet, pod: &Pod<'_>, number: u32) -> Result<()> {
    let name = ["main", "own"][(number % 2) as usize];
    let id = pod.run_adjusted(name, &SLEEP, |config| {
        if let Some(metadata) = &mut config.metadata {
            metadata.attempt = number;
        }
    })?;
    kubelet.has_exactly(&id, &kubelet.grant_of(&id)?)?;
    let missing = pod.create("missing", &["/no/such/program"], |_| ())?;
    ensure!(kubelet.cri.start_container(&missing).is_err(), "there is no such program");
    kubelet.cri.remove_container(&missing)?;
    kubelet.refused(pod, "greedy", |_| ())?;
    kubelet.cri.stop_container(&id, 0)?;
    Ok(kubelet.cri.remove_container(&id)?)
}

pub fn a_shim_holds_after_thirty_rounds_what_it_held_before(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let annotations = [
        ("berth.dev/gpus", "1"),
        ("own.berth.dev/gpus", "1"),
        ("missing.berth.dev/gpus", "1"),
        ("greedy.berth.dev/gpus", "9"),
    ];
    let pod = kubelet.pod(&annotations)?;
    let shim = pod.shim_of(&pod.id)?.pid;
    let (before, mut after) = (kinds(shim)?, BTreeMap::new());
    for number in 0..30 {
        round(&kubelet, &pod, number).with_context(|| format!("round {number}"))?;
    }
    // A descriptor may be closed a moment after its container is gone.
    let same = wait::until("the shim's descriptors", || {
        after = kinds(shim).ok()?;
        (after == before).then_some(())
    });
    same.with_context(|| format!("{before:#?} became {after:#?}"))?;
    pod.remove(&[])?;
    kubelet.node.is_free()
}

//! Pods with GPUs in the course of their life: changed resources, a containerd that goes away, a shim that dies.

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::{CRI_NAMESPACE, Containerd, leftovers};
use integration_tests::cri::messages::LinuxContainerResources;
use integration_tests::deadline::{Process, STUCK};
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use integration_tests::wait;

const MIB: i64 = 1 << 20;

/// containerd sends resources without device rules; those of the grant stay.
pub fn changed_resources_leave_the_gpu_open(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "2")])?;
    let id = pod.run("main", &SLEEP)?;
    let grant = kubelet.only_grant()?;
    let before = kubelet.has_exactly(&id, &grant)?;
    for mib in [96, 128] {
        let memory_limit_in_bytes = mib * MIB;
        let changed = LinuxContainerResources { memory_limit_in_bytes, ..Default::default() };
        kubelet.cri.update(&id, changed)?;
        let limits = limits_of(&kubelet.containerd, &id);
        ensure!(limits == [memory_limit_in_bytes.to_string()], "it took effect: {limits:?}");
        let after = kubelet.has_exactly(&id, &grant)?;
        ensure!(after == before, "{before:#?} became {after:#?}");
    }
    ensure!(kubelet.only_grant()? == grant, "the grant is as it was");
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// The container's memory limit, once however often the hierarchy is mounted.
fn limits_of(containerd: &Containerd, id: &str) -> Vec<String> {
    let folders = leftovers::cgroups(containerd, id);
    let files = folders
        .iter()
        .flat_map(|folder| ["memory.limit_in_bytes", "memory.max"].map(|file| folder.join(file)));
    let mut limits: Vec<String> = files
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .map(|text| text.trim().to_owned())
        .collect();
    limits.dedup();
    limits
}

pub fn a_restart_of_containerd_keeps_grants(stage: &Stage) -> Result<()> {
    outlives(stage, Containerd::stop)
}

pub fn a_killed_containerd_keeps_grants(stage: &Stage) -> Result<()> {
    outlives(stage, Containerd::kill)
}

/// Before and after: the same grant, the same GPUs in execs and in containers that come later, and nothing of it left in the end.
fn outlives(stage: &Stage, end: fn(&Containerd) -> Result<()>) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let id = pod.run("main", &SLEEP)?;
    let grant = kubelet.only_grant()?;
    end(&kubelet.containerd)?;
    ensure!(kubelet.node.berth(&["reconcile"])?.code() == 0, "reconcile without containerd");
    ensure!(kubelet.only_grant()? == grant, "held while containerd is away");
    kubelet.containerd.launch()?;
    kubelet.cri.wait_until_ready()?;
    ensure!(kubelet.only_grant()? == grant, "held when it is back");
    kubelet.has_exactly(&id, &grant)?;
    let late = pod.run("late", &SLEEP)?;
    ensure!(kubelet.grant_of(&late)?["grant"] == grant["grant"], "a later container joins");
    kubelet.has_exactly(&late, &grant)?;
    let other = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    kubelet.refused(&other, "main", |_| ())?;
    kubelet.cri.stop_container(&id, 0)?;
    kubelet.cri.remove_container(&id)?;
    ensure!(kubelet.only_grant()?["grant"] == grant["grant"], "until the sandbox is gone");
    pod.remove(&[&id, &late])?;
    kubelet.node.is_free()?;
    let main = other.run("main", &SLEEP)?;
    other.remove(&[&main])?;
    kubelet.node.is_free()
}

/// containerd cleans up after a dead shim; what its pod held is the next one's.
pub fn a_killed_shim_gives_back_what_its_pod_held(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let one = pod.run("one", &SLEEP)?;
    let two = pod.run("two", &SLEEP)?;
    let shim = Process::open(pod.shim_of(&pod.id)?.pid).context("the shim's process")?;
    shim.signal(libc::SIGKILL);
    ensure!(shim.exited_within(STUCK), "the shim is dead");
    for id in [&one, &two] {
        kubelet.cri.exited(id)?;
        leftovers::none_of(&kubelet.containerd, CRI_NAMESPACE, id)?;
    }
    // By containerd's `delete` commands alone: nobody asks for a GPU, and nobody reconciles.
    wait::until("the grant's end", || kubelet.node.is_free().ok())?;
    let next = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let main = next.run("main", &SLEEP)?;
    kubelet.has_exactly(&main, &kubelet.only_grant()?)?;
    next.remove(&[&main])?;
    pod.remove(&[&one, &two])?;
    kubelet.node.is_free()
}

/// The kubelet's order when it deletes a pod by force: the sandbox with everything running in it.
pub fn a_pod_removed_with_containers_running_frees_all_its_claims(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "1"), ("own.berth.dev/gpus", "2")])?;
    let family =
        pod.run("family", &["sh", "-c", "trap '' TERM; sleep 10000 & sleep 10000 & wait"])?;
    let own = pod.run("own", &SLEEP)?;
    let ended = pod.run("ended", &["true"])?;
    let created = pod.create("created", &SLEEP, |_| ())?;
    kubelet.cri.exited(&ended)?;
    ensure!(kubelet.node.grants()?.len() == 2, "the pod's and the container's own");
    kubelet.cri.remove_pod_sandbox(&pod.id)?;
    kubelet.node.is_free()?;
    let all = [&pod.id, &family, &own, &ended, &created];
    all.into_iter().try_for_each(|id| leftovers::none_of(&kubelet.containerd, CRI_NAMESPACE, id))
}

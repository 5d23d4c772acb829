//! Calls of the driver library, on a node where each takes the time that it takes on a real machine: who makes them, and when.

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::GpuNode;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use simnode::fault::{Action, Fault};
use simnode::{Change, Latency, Options};

/// Counts all calls from now on: a fault that never comes does that.
fn count(node: &GpuNode) -> Result<()> {
    let (function, action) = ("*".to_owned(), Action::Delay(0));
    let fault = Fault { function, gpu: None, nth: u64::MAX, onwards: false, action, seen: 0 };
    node.sim.change(Change::ClearFaults)?;
    Ok(node.sim.change(Change::Inject(fault))?)
}

/// Calls of all processes since then.
fn counted(node: &GpuNode) -> Result<u64> {
    Ok(node.sim.state()?.faults.first().context("nobody counts")?.seen)
}

/// Starts a pod with a GPU, runs a command in it and removes it.
fn pod_with_a_gpu(kubelet: &Kubelet) -> Result<()> {
    let pod = kubelet.pod(&[("berth.dev/gpus", "2")])?;
    let id = pod.run("main", &SLEEP)?;
    kubelet.has_exactly(&id, &kubelet.only_grant()?)?;
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// Only the first launch of a boot, and the first one after the driver was loaded anew, have anybody ask the driver.
pub fn a_launch_on_a_node_that_is_known_calls_no_driver(stage: &Stage) -> Result<()> {
    let options = Options { latency: Latency::Real, ..Options::default() };
    let kubelet = Kubelet::on(stage, GpuNode::with("p5", &options, TRUSTED)?)?;
    count(&kubelet.node)?;
    pod_with_a_gpu(&kubelet)?;
    ensure!(counted(&kubelet.node)? > 0, "the node was looked at");
    count(&kubelet.node)?;
    for _ in 0..2 {
        pod_with_a_gpu(&kubelet)?;
        ensure!(kubelet.node.berth(&["reconcile"])?.code() == 0, "nor does the operator's command");
    }
    let calls = counted(&kubelet.node)?;
    ensure!(calls == 0, "{calls} calls of the driver for launches on a node that is known");
    kubelet.node.sim.change(Change::Load)?;
    pod_with_a_gpu(&kubelet)?;
    ensure!(counted(&kubelet.node)? > 0, "the driver is another one");
    Ok(())
}

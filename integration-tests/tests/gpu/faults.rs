//! A driver that hangs, a GPU that falls off the bus, a ledger that is damaged: said in words, and nothing else breaks.

use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::leftovers::shims;
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::{BERTH, Task};
use integration_tests::gpu::world::{ONE_GPU, World, uuids};
use serde_json::Value;
use simnode::Change;
use simnode::fault::{Action, Fault};

/// Every call of `function` from now on.
fn every(function: &str, action: Action) -> Change {
    let (function, gpu) = (function.to_owned(), None);
    Change::Inject(Fault { function, gpu, nth: 1, onwards: true, action, seen: 0 })
}

/// The words of a refusal that are not fixed.
fn refusal(world: &World) -> Result<String> {
    let task = Task::named(&world.containerd, "refused");
    let said = task.foreground(BERTH, &ONE_GPU, &["true"])?;
    ensure!(said.code() == 1, "{said:?}");
    task.removed()?;
    world.node.is_free()?;
    let (_, words) =
        said.err.split_once("failed to create shim task: ").with_context(|| format!("{said:?}"))?;
    Ok(words.trim_end().to_owned())
}

pub fn a_driver_that_hangs_is_left_after_the_deadline(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "observe-deadline = 1")?;
    let beside = world.sleeper(&[])?;
    world.node.sim.change(every("nvmlInit_v2", Action::Delay(600_000)))?;
    let words = refusal(&world)?;
    ensure!(words.contains("took more than 1 s to"), "{words}");
    ensure!(
        words.contains("the driver may hang: see berth doctor and the kernel's log"),
        "{words}"
    );
    // Others go on, and nothing hangs in the driver on their behalf.
    ensure!(beside.exec(&["echo", "well"])?.out == "well\n", "a container beside it");
    world.sleeper(&[])?.end()?;
    let serving = shims(&world.containerd);
    ensure!(serving.len() == 1, "one shim, that of the container beside it: {serving:?}");
    world.node.sim.change(Change::ClearFaults)?;
    world.sleeper(&ONE_GPU)?.end()?;
    beside.end()
}

pub fn a_driver_that_kills_the_observer_is_told_of(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    world.node.sim.change(every("nvmlDeviceGetHandleByIndex_v2", Action::Die))?;
    let words = refusal(&world)?;
    ensure!(words.starts_with("berth: ") && words.contains("see berth doctor"), "{words}");
    world.node.sim.change(Change::ClearFaults)?;
    world.sleeper(&ONE_GPU)?.end()
}

pub fn a_gpu_that_was_lost_is_not_given(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let lost = world.state()?.gpus[0].clone();
    world.node.sim.change(Change::Lost { gpu: lost.uuid.clone(), lost: true })?;
    let count = world.state()?.gpus.len() - 1;
    let all = format!("berth.dev/gpus={count}");
    let task = world.sleeper(&["--annotation", &all])?;
    let grant = world.grant()?;
    ensure!(
        uuids(&grant).len() == count && !uuids(&grant).contains(&lost.uuid.as_str()),
        "{grant}"
    );
    task.end()?;
    world.node.is_free()
}

pub fn a_damaged_ledger_refuses_until_it_is_repaired(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    world.sleeper(&ONE_GPU)?.end()?;
    let file = world.node.ledger()?;
    let whole = fs::read_to_string(&file)?;
    let half = whole[..whole.len() / 2].to_owned();
    let newer = whole.replacen("\"format\":1", "\"format\":999", 1);
    ensure!(newer != whole, "{whole}");
    for damaged in ["", "{}", "not a ledger", &half, &newer] {
        let is_newer = damaged == newer;
        let way_out = if is_newer { "until Berth is upgraded" } else { "`berth ledger repair`" };
        fs::write(&file, damaged)?;
        let task = Task::named(&world.containerd, "refused");
        let said = task.foreground(BERTH, &ONE_GPU, &["true"])?;
        ensure!(said.code() == 1 && said.err.contains("berth: "), "{damaged:?}: {said:?}");
        ensure!(
            said.err.contains("ledger.json") && said.err.contains(way_out),
            "{damaged:?}: {said:?}"
        );
        task.removed()?;
        ensure!(fs::read_to_string(&file)? == damaged, "{damaged:?}: it was written over");
        let verified = world.node.berth(&["--json", "ledger", "verify"])?;
        ensure!(verified.code() == 1, "{damaged:?}: {verified:?}");
        let verified: Value = serde_json::from_str(&verified.out)?;
        let finding = verified["findings"][0].as_str().unwrap_or_default();
        ensure!(verified["sound"] == false && finding.contains("ledger.json"), "{verified}");
        ensure!(world.node.berth(&["ps"])?.code() == 1, "it is never taken for empty");
        // What asks for nothing runs all the same.
        world.sleeper(&[])?.end()?;
    }
    fs::write(&file, whole)?;
    world.node.is_free()?;
    world.sleeper(&ONE_GPU)?.end()
}

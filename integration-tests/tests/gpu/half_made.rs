//! Making or destroying a MIG instance fails, hangs or is killed at any of its calls: the launch is refused in words, and in the end nothing is left,
//! neither of the instance nor of the grant.

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::{BERTH, Task};
use integration_tests::gpu::world::World;
use simnode::Change;
use simnode::code::Code;
use simnode::fault::{Action, Fault};

use super::instances::{is_free_soon, mig, sleeper, split};

const PLACE: &str = "nvmlDeviceCreateGpuInstanceWithPlacement";
const FILL: &str = "nvmlGpuInstanceCreateComputeInstance";
const FILLED: &str = "nvmlDeviceGetComputeInstanceId";
const EMPTY: &str = "nvmlComputeInstanceDestroy";
const DESTROY: &str = "nvmlGpuInstanceDestroy";

fn goes_wrong(world: &World, function: &str, nth: u64, action: Action) -> Result<()> {
    let function = function.to_owned();
    let fault = Fault { function, gpu: None, nth, onwards: false, action, seen: 0 };
    Ok(world.node.sim.change(Change::Inject(fault))?)
}

/// A container that asks for an instance, and does not get it.
fn in_vain(world: &World, words: &[&str]) -> Result<()> {
    let task = Task::named(&world.containerd, "in-vain");
    let flags = mig("2x1g.10gb");
    let said = task.foreground(BERTH, &flags.each_ref().map(String::as_str), &["true"])?;
    ensure!(said.code() == 1 && said.err.contains("berth: "), "{said:?}");
    for word in words {
        ensure!(said.err.contains(word), "{word:?} is not in {}", said.err);
    }
    task.removed()
}

fn tried(world: &World, what: &str, words: &[&str]) -> Result<()> {
    let tried = in_vain(world, words).and_then(|()| is_free_soon(world, &[]));
    tried.with_context(|| what.to_owned())?;
    world.node.sim.change(Change::ClearFaults)?;
    // And the next one is as if nothing had happened.
    let task = sleeper(world, "next", "2x1g.10gb")?;
    task.end()?;
    is_free_soon(world, &[]).with_context(|| format!("after {what}"))
}

pub fn what_the_driver_refuses_leaves_nothing(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    for (function, nth) in [(PLACE, 1), (PLACE, 2), (FILL, 1), (FILL, 2), (FILLED, 1)] {
        for code in [Code::INSUFFICIENT_RESOURCES, Code::UNKNOWN, Code::TIMEOUT] {
            goes_wrong(&world, function, nth, Action::Error(code))?;
            let what = format!("{code:?} at call {nth} of {function}");
            tried(&world, &what, &["could not make MIG instances", "see berth doctor"])?;
        }
    }
    Ok(())
}

pub fn what_cannot_be_undone_at_once_is_undone_later(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    goes_wrong(&world, FILL, 1, Action::Error(Code::INSUFFICIENT_RESOURCES))?;
    goes_wrong(&world, DESTROY, 1, Action::Error(Code::IN_USE))?;
    tried(&world, "an instance that cannot be filled, nor destroyed at once", &[])
}

pub fn a_child_that_is_killed_leaves_nothing(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    for (function, nth) in [(PLACE, 1), (PLACE, 2), (FILL, 1), (FILL, 2), (FILLED, 1)] {
        goes_wrong(&world, function, nth, Action::Die)?;
        tried(&world, &format!("killed at call {nth} of {function}"), &["MIG instances"])?;
    }
    Ok(())
}

pub fn a_driver_that_hangs_is_not_waited_for(stage: &Stage) -> Result<()> {
    let world = split(stage, "observe-deadline = 1\n")?;
    goes_wrong(&world, PLACE, 1, Action::Delay(600_000))?;
    tried(&world, "the driver hangs", &["took more than 1 s to make MIG instances", "was killed"])
}

pub fn processes_that_linger_keep_an_instance_a_while(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    let task = sleeper(&world, "one", "1g.10gb")?;
    for nth in 1..=3 {
        goes_wrong(&world, EMPTY, nth, Action::Error(Code::IN_USE))?;
    }
    task.end()?;
    is_free_soon(&world, &[])
}

pub fn what_a_killed_child_left_is_given_back_by_whoever_comes(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    for (function, nth) in [(EMPTY, 1), (EMPTY, 2), (DESTROY, 1), (DESTROY, 2)] {
        let what = format!("killed at call {nth} of {function}");
        goes_wrong(&world, function, nth, Action::Die)?;
        let task = sleeper(&world, "one", "2x3g.40gb")?;
        task.end()?;
        // All slices of one GPU are still held, and the other's are too few: whoever wants them looks who is dead.
        let next = sleeper(&world, "next", "2x7g.80gb").with_context(|| what.clone())?;
        next.end()?;
        is_free_soon(&world, &[]).context(what)?;
    }
    goes_wrong(&world, DESTROY, 1, Action::Die)?;
    sleeper(&world, "one", "1g.10gb")?.end()?;
    let reconciled = || {
        let _ = world.node.berth(&["reconcile"]);
        world.node.is_free().ok()
    };
    integration_tests::wait::until("reconcile gives it back", reconciled)?;
    is_free_soon(&world, &[])
}

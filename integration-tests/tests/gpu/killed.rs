//! The shim's children, killed half-way: the launch fails in words, the next one does what was left undone, and nothing unfinished stays.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::{BERTH, Task};
use integration_tests::gpu::tool;
use integration_tests::gpu::world::{ONE_GPU, World};
use simnode::Change;
use simnode::fault::{Action, Fault};

/// Lets the child for this errand write no file larger than so many blocks of 512 bytes: the kernel kills it at the first byte beyond,
/// and nothing of it cleans up.
fn limit(world: &World, errand: &str, blocks: u32) -> Result<()> {
    let program = world.node.path("limited");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = {errand} ] && ulimit -f {blocks}\nexec {:?} \"$@\"\n",
        tool()?
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    world.node.set("tool", &format!("{program:?}"))
}

/// What is unfinished below this folder.
fn unfinished(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let below = |path: PathBuf| {
        let own = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".new-"));
        let inside = if path.is_symlink() { Vec::new() } else { unfinished(&path) };
        own.then_some(path).into_iter().chain(inside)
    };
    entries.map(|entry| entry.path()).flat_map(below).collect()
}

/// A launch that fails with words about what was killed, and leaves nothing of the container.
fn fails(world: &World, words: &str) -> Result<()> {
    let task = Task::named(&world.containerd, "in-vain");
    let said = task.foreground(BERTH, &ONE_GPU, &["true"])?;
    ensure!(said.code() == 1 && said.err.contains("berth: "), "{said:?}");
    ensure!(said.err.contains(words) && said.err.contains("see berth doctor"), "{said:?}");
    task.removed()?;
    world.node.is_free()
}

/// A launch that is as if nothing had happened, and what it leaves unfinished: nothing.
fn goes_well(world: &World, state: &Path) -> Result<()> {
    let task = world.sleeper(&ONE_GPU)?;
    let libraries = task.exec(&["ls", "/usr/local/nvidia/lib64"])?;
    ensure!(libraries.out.contains("libnvidia-ml.so.1"), "{libraries:?}");
    task.end()?;
    world.node.is_free()?;
    let left = unfinished(state);
    ensure!(left.is_empty(), "in the store: {left:#?}");
    ensure!(world.node.berth(&["reconcile"])?.code() == 0, "sweeps what is in /run");
    let left = unfinished(&world.node.path("run"));
    ensure!(left.is_empty(), "in run: {left:#?}");
    Ok(())
}

fn a_preparation_killed_in(stage: &Stage, state: &Path) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    // At the first file that is written, and at the last: the description of what is there.
    for blocks in [0, 1] {
        world.node.set("state", &format!("{state:?}"))?;
        limit(&world, "prepare-driver", blocks)?;
        fails(&world, "could not prepare the driver's files")?;
        let left = unfinished(state);
        ensure!(left.len() == 1, "{blocks}: it was not half-way: {left:#?}");
        world.node.configure("")?;
        world.node.set("state", &format!("{state:?}"))?;
        goes_well(&world, state).with_context(|| format!("{blocks} blocks"))?;
        fs::remove_dir_all(state.join("driver"))?;
        world.node.sim.change(Change::Reboot)?;
    }
    Ok(())
}

/// Half of the links to the driver's files are there.
pub fn a_preparation_that_was_killed_is_done_anew(stage: &Stage) -> Result<()> {
    let folder = tempfile::tempdir()?;
    a_preparation_killed_in(stage, folder.path())
}

/// On another file system, where the files are copied.
pub fn a_copying_preparation_that_was_killed_is_done_anew(stage: &Stage) -> Result<()> {
    let folder = tempfile::tempdir_in("/dev/shm")?;
    a_preparation_killed_in(stage, folder.path())
}

/// At each call that a look makes of the driver library, and when it writes down what it saw.
pub fn a_look_that_was_killed_is_taken_anew(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let state = world.node.path("state");
    let at = |nth: u64| {
        let (function, action) = ("*".to_owned(), Action::Die);
        let fault = Fault { function, gpu: None, nth, onwards: false, action, seen: 0 };
        world.node.sim.change(Change::ClearFaults)?;
        world.node.sim.change(Change::Inject(fault))
    };
    at(u64::MAX)?;
    world.sleeper(&ONE_GPU)?.end()?;
    let calls = world.state()?.faults[0].seen;
    ensure!(calls > 10, "a look takes {calls} calls");
    for nth in 1..=calls {
        world.node.sim.change(Change::Reboot)?;
        at(nth)?;
        fails(&world, "could not look at the node's GPUs")
            .with_context(|| format!("call {nth}"))?;
    }
    world.node.sim.change(Change::ClearFaults)?;
    world.node.sim.change(Change::Reboot)?;
    limit(&world, "observe", 0)?;
    fails(&world, "could not look at the node's GPUs")?;
    let left = unfinished(&world.node.path("run"));
    ensure!(left.len() == 1, "it was not half-way: {left:#?}");
    world.node.configure("")?;
    goes_well(&world, &state)
}

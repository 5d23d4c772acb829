//! Shims and containerd that are killed while containers run.

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::Containerd;
use integration_tests::containerd::leftovers::none_of;
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::deadline::{Process, STUCK};
use integration_tests::under_test::reference;
use integration_tests::{machine, wait};

pub fn a_killed_shim_leaves_nothing(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let script = "sleep 10000 & sleep 10000";
    let task = Task::detached(&containerd, "orphan", &[], &["sh", "-c", script])?;
    let container = task.process()?;
    let shim = task.shim()?;
    let socket = containerd.note_socket(containerd.namespace(), &task.id).context("a socket")?;
    ensure!(socket.exists(), "{} is where the shim is reached", socket.display());
    ensure!(
        Process::open(shim.pid).is_some_and(|shim| shim.signal(libc::SIGKILL)),
        "kill {shim:?}"
    );
    ensure!(container.exited_within(STUCK), "the container outlived its shim's cleanup");
    none_of(&containerd, containerd.namespace(), &task.id)?;
    // The reference leaves it behind.
    ensure!(reference() || !socket.exists(), "{} is left", socket.display());
    task.removed()
}

pub fn containers_outlive_a_restart_of_containerd(stage: &Stage) -> Result<()> {
    outlive(stage, Containerd::stop)
}

pub fn containers_outlive_a_killed_containerd(stage: &Stage) -> Result<()> {
    outlive(stage, Containerd::kill)
}

/// One container runs on over containerd's end and can be entered, killed and deleted by the next
/// one; another ends meanwhile, and its exit code is still to be had.
fn outlive(stage: &Stage, end: fn(&Containerd) -> Result<()>) -> Result<()> {
    let containerd = stage.own()?;
    let stays = Task::detached(&containerd, "stays", &["--null-io"], &["sleep", "10000"])?;
    let ends = Task::detached(&containerd, "ends", &[], &["sh", "-c", "read code; exit $code"])?;
    let waiting = ends.process()?;
    let staying = stays.process()?.pid;
    end(&containerd)?;

    // The container's input is where its shim holds it; a line into it makes the container end.
    std::fs::write(format!("/proc/{}/fd/0", waiting.pid), "23\n").context("type to it")?;
    ensure!(waiting.exited_within(STUCK), "the container ends without containerd");
    ensure!(machine::process(staying).is_some(), "the other one runs on without containerd");

    containerd.launch()?;
    stays.reaches("RUNNING")?;
    ensure!(u32::try_from(stays.ctr.task_pid(&stays.id)?)? == staying, "the same process");
    ensure!(stays.exec(&["echo", "still here"])?.out == "still here\n", "exec after the restart");
    // Since 1.7 containerd, when it starts, takes a shim whose Pids is empty for leaked and forgets
    // its container's exit. The reference's is empty then; Berth's is not.
    if reference() && stage.installation.series > (1, 6) {
        wait::until("the exited task to be gone", || {
            ends.ctr.task_state(&ends.id).is_ok_and(|state| state.is_none()).then_some(())
        })?;
    } else {
        ends.stopped()?;
        let code = ends.delete()?;
        ensure!(code == 23, "exit code {code}");
    }
    ends.removed()?;
    stays.end()
}

//! Shims and containerd that are killed while containers run.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::Containerd;
use integration_tests::containerd::leftovers::none_of;
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::deadline::{Process, STUCK};
use integration_tests::scratch::Scratch;
use integration_tests::under_test::{reference, under_test};
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

/// The OCI runtime refuses to delete, and the cgroup is not the container's alone: its shim's death leaves it
/// running. containerd must keep what is known of it, and ask again.
pub fn a_cleanup_that_failed_is_repeated_by_the_next_containerd(stage: &Stage) -> Result<()> {
    let place = Scratch::new()?;
    let (refuses, program, config) =
        (place.path("refuses"), place.path("runtime"), place.path("berth.toml"));
    let script = format!(
        "#!/bin/sh\nfor word in \"$@\"; do\n\
        if [ $word = delete ] && [ -e {} ]; then echo 'not today' >&2; exit 1; fi\n\
        done\nexec runc \"$@\"\n",
        refuses.display()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::write(&config, format!("[runtime]\nbinary = \"{}\"\n", program.display()))?;
    let shim = &under_test()?.shim;
    let containerd = Containerd::start_on(&stage.installation, shim, Some(&config))?;
    let shared = format!("/{}/shared", containerd.namespace());
    let task = Task::detached(&containerd, "kept", &["--cgroup", &shared], &["sleep", "10000"])?;
    let container = task.process()?;
    fs::write(&refuses, "")?;
    let shim = Process::open(task.shim()?.pid).context("the shim is gone")?;
    ensure!(shim.signal(libc::SIGKILL), "kill {shim:?}");
    let told = format!("{} is left behind: not today", quoted(&task.id));
    wait::until("containerd's word of what is left", || {
        containerd.log_text().contains(&told).then_some(())
    })
    .with_context(|| containerd.log_tail())?;
    let bundle = containerd.bundles(containerd.namespace()).join(&task.id);
    ensure!(bundle.join("berth.json").exists(), "the record went with its bundle");
    ensure!(machine::process(container.pid).is_some(), "the container is left running");

    fs::remove_file(&refuses)?;
    containerd.stop()?;
    containerd.launch()?;
    ensure!(container.exited_within(STUCK), "the next containerd did not clean up");
    task.removed()
}

/// An id as an error has it, in a log line in which quotes are escaped.
fn quoted(id: &str) -> String {
    format!("\\\"{id}\\\"")
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

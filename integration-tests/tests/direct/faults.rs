//! Faults around the shim: an OCI runtime that is missing, hangs or dies. The shim answers with an error,
//! serves everybody else, and leaves nothing. Must not know the shim's own death (see deaths.rs), nor full disks
//! (see full_disks.rs).

use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use containerd_shim_protos::api::Status;
use integration_tests::deadline::{eventually, within};
use integration_tests::lab::{Lab, Launch};
use integration_tests::machine::{cgroup_folder, cgroup_v2_only};
use integration_tests::shim::Start;
use integration_tests::stdio::{Input, Stdio, Streams, make_fifo};
use integration_tests::suite::Suite;
use integration_tests::task::{Answer, refused};
use integration_tests::trials;
use integration_tests::under_test::reference;
use ttrpc::Code;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "faults",
        [
            a_missing_runtime_fails_create_and_names_it,
            a_runtime_that_fails_create_is_quoted_from_its_log,
            a_runtime_that_fails_start_is_quoted_from_its_stderr,
            a_runtime_that_hangs_in_create_stops_nobody_else,
            a_runtime_killed_in_create_fails_it,
            a_runtime_that_hangs_in_an_exec_stops_nobody_else,
            a_runtime_that_fails_delete_leaves_the_task_deletable,
            an_endless_runtime_complaint_is_cut_and_its_end_is_kept,
            an_endless_complaint_on_stderr_holds_up_nobody,
            a_runtime_that_writes_no_pid_is_not_taken_for_the_exec_before,
            a_pause_that_comes_after_the_inits_end_does_not_keep_the_container,
            a_container_that_others_have_frozen_is_deleted_after_its_end,
        ]
    );
}

/// A runtime that does `special` when called for `verb` (with `$log` naming nothing yet), and else is runc.
pub fn runtime(lab: &Lab, verb: &str, special: &str) -> Result<PathBuf> {
    let script = format!(
        "#!/bin/sh\nfor word in \"$@\"; do if [ \"$word\" = {verb} ]; then\n{special}\nfi; done\nexec {} \"$@\"\n",
        lab.under_test.runtime.display()
    );
    let program = lab.scratch.path(format!("runtime-{verb}"));
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

pub fn with_runtime(lab: &Lab, launch: Launch, program: &std::path::Path) -> Launch {
    let options = lab.options(|options| options.binary_name = program.display().to_string());
    Launch { options: Some(options), ..launch }
}

/// Holds when a call on the container `birch` was answered that the runtime took too long. containerd's own
/// shim says so in its own way, or not at all before the caller gives up.
pub fn missed_deadline<T: Debug>(answer: Answer<T>) -> Result<()> {
    if reference() {
        ensure!(answer.is_err(), "granted: {answer:?}");
        return Ok(());
    }
    refused(answer, Code::DEADLINE_EXCEEDED, "birch")
}

/// Starts a shim for the launch, expects Create to fail, tidies up, and gives the message.
async fn failing_create(lab: &Lab, launch: Launch) -> Result<String> {
    let bundle = lab.bundle(&launch.id, Some(&launch.spec))?;
    let how = Start { options: launch.options.clone(), ..Start::default() };
    let shim = lab.start_shim(&bundle, &how).await?;
    let created = lab.create_in(shim.clone(), bundle.clone(), launch).await?;
    let Err(err) = created else { bail!("Create was granted") };
    ensure!(shim.task.state(&bundle.id, "").await.is_err(), "a task is left");
    lab.dismiss_shim(&shim, &bundle).await?;
    Ok(err.message)
}

async fn a_missing_runtime_fails_create_and_names_it(lab: &Lab) -> Result<()> {
    let nowhere = lab.scratch.path("no-runtime");
    let message = failing_create(lab, with_runtime(lab, lab.sleeper("birch"), &nowhere)).await?;
    ensure!(message.contains("no-runtime"), "{message}");
    Ok(())
}

async fn a_runtime_that_fails_create_is_quoted_from_its_log(lab: &Lab) -> Result<()> {
    // runc's own form: JSON lines in the file that --log names.
    let special = "while [ \"$1\" != --log ]; do shift; done\n\
        echo '{\"level\":\"error\",\"msg\":\"the bark is loose\",\"time\":\"2026-01-01T00:00:00Z\"}' >\"$2\"; exit 1";
    let program = runtime(lab, "create", special)?;
    let message = failing_create(lab, with_runtime(lab, lab.sleeper("birch"), &program)).await?;
    ensure!(message.contains("the bark is loose"), "{message}");
    Ok(())
}

async fn a_runtime_that_fails_start_is_quoted_from_its_stderr(lab: &Lab) -> Result<()> {
    let program = runtime(lab, "start", "echo 'the bark is loose' >&2; exit 1")?;
    let c = lab.create(with_runtime(lab, lab.sleeper("birch"), &program)).await?;
    let started = within("Start", c.start()).await?;
    let Err(err) = started else { bail!("Start was granted") };
    ensure!(err.message.contains("the bark is loose"), "{err}");
    lab.retire(c).await
}

async fn a_runtime_that_hangs_in_create_stops_nobody_else(lab: &Lab) -> Result<()> {
    let mut keeper = lab.sleeper("grove");
    keeper.spec = keeper.spec.in_pod("grove");
    let keeper = lab.run(keeper).await?;

    let asked = lab.scratch.path("asked");
    let program = runtime(lab, "create", &format!("echo >{}; exec sleep 100000", asked.display()))?;
    let mut launch = with_runtime(lab, lab.sleeper("birch"), &program);
    launch.spec = launch.spec.in_pod("grove");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Start::default()).await?;
    let request = lab.create_request(&launch, &bundle, &Stdio::default());
    let task = shim.task.patient_for(Duration::from_secs(8));
    let hanging = tokio::spawn(async move { task.create(&request).await });
    eventually("the runtime is called", || Ok(asked.exists().then_some(()))).await?;

    ensure!(within("State", keeper.status()).await?? == Status::RUNNING);
    ensure!(within("Pids", keeper.task().pids("grove")).await?? == [keeper.pid]);
    let leaf = lab.exec(&keeper, "leaf", &["true"], Streams::Null).await?;
    ensure!(within("Wait", keeper.task().wait("grove", &leaf.id)).await??.exit_status == 0);
    keeper.task().delete("grove", "leaf").await?;
    within("State of the hanging one", shim.task.state("birch", "")).await?.ok();

    missed_deadline(within("Create", hanging).await??)?;
    // What hung is killed with the call that asked for it: nothing of it may outlive the deadline by long.
    eventually("the hanging runtime is gone", || {
        let left = lab.scratch.processes();
        Ok((!left.iter().any(|row| row.command == "sleep 100000" && row.pid != keeper.pid))
            .then_some(()))
    })
    .await?;
    ensure!(shim.task.state("birch", "").await.is_err(), "a task is left");
    lab.dismiss_shim(&shim, &bundle).await?;
    lab.retire(keeper).await
}

async fn a_runtime_killed_in_create_fails_it(lab: &Lab) -> Result<()> {
    // Killed after it made the container's cgroup and init: what runc leaves then must go as well.
    let real = lab.under_test.runtime.display();
    let program = runtime(lab, "create", &format!("{real} \"$@\"; kill -9 $$"))?;
    failing_create(lab, with_runtime(lab, lab.sleeper("birch"), &program)).await?;
    Ok(())
}

async fn a_runtime_that_hangs_in_an_exec_stops_nobody_else(lab: &Lab) -> Result<()> {
    let asked = lab.scratch.path("asked");
    let program = runtime(lab, "exec", &format!("echo >{}; exec sleep 100000", asked.display()))?;
    let c = lab.run(with_runtime(lab, lab.sleeper("birch"), &program)).await?;
    lab.add_exec(&c, "leaf", &["true"], &Streams::Null).await?;
    let task = c.task().patient_for(Duration::from_secs(8));
    let hanging = tokio::spawn(async move { task.start("birch", "leaf").await });
    eventually("the runtime is called", || Ok(asked.exists().then_some(()))).await?;
    ensure!(within("State", c.status()).await?? == Status::RUNNING);
    within("Stats", c.task().stats("birch")).await??;
    missed_deadline(within("Start", hanging).await??)?;
    within("Delete of the exec", c.task().delete("birch", "leaf")).await??;
    lab.retire(c).await
}

async fn a_runtime_that_fails_delete_leaves_the_task_deletable(lab: &Lab) -> Result<()> {
    let spared = lab.scratch.path("spared");
    let special = format!(
        "if [ ! -e {0} ]; then echo >{0}; echo 'stuck fast' >&2; exit 1; fi",
        spared.display()
    );
    let program = runtime(lab, "delete", &special)?;
    let c = lab.run(with_runtime(lab, lab.shell("birch", "true"), &program)).await?;
    within("Wait", c.wait()).await??;
    let first = within("Delete", c.delete()).await?;
    ensure!(spared.exists() || first.is_ok(), "{first:?}");
    if first.is_err() {
        within("second Delete", c.delete()).await??;
    }
    lab.dismiss(c).await
}

/// What a runtime says last is what counts, however much it has said before.
async fn an_endless_runtime_complaint_is_cut_and_its_end_is_kept(lab: &Lab) -> Result<()> {
    let special = "while [ \"$1\" != --log ]; do shift; done\n\
        head -c 8000000 /dev/zero | tr '\\0' x | fold -w 1000 >\"$2\"\n\
        echo >>\"$2\"; echo '{\"level\":\"error\",\"msg\":\"the bark is loose\"}' >>\"$2\"; exit 1";
    let program = runtime(lab, "create", special)?;
    let message = failing_create(lab, with_runtime(lab, lab.sleeper("birch"), &program)).await?;
    ensure!(message.len() < 64 << 10, "{} bytes of message", message.len());
    ensure!(lab.under_test.reference || message.contains("the bark is loose"), "{message}");
    Ok(())
}

/// More than a pipe holds: whoever reads it only after the runtime's end would wait for ever.
async fn an_endless_complaint_on_stderr_holds_up_nobody(lab: &Lab) -> Result<()> {
    let special = "head -c 8000000 /dev/zero | tr '\\0' x | fold -w 1000 >&2\n\
        echo >&2; echo 'the bark is loose' >&2; exit 1";
    let program = runtime(lab, "start", special)?;
    let c = lab.create(with_runtime(lab, lab.sleeper("birch"), &program)).await?;
    let started = within("Start", c.start()).await?;
    refused(started, Code::UNKNOWN, "the bark is loose")?;
    lab.retire(c).await
}

/// The files of a launch are used again: the PID in one of them must be of this launch, or there is none.
async fn a_runtime_that_writes_no_pid_is_not_taken_for_the_exec_before(lab: &Lab) -> Result<()> {
    let once = lab.scratch.path("once");
    let special = format!("[ ! -e {0} ] || exit 0; echo >{0}", once.display());
    let program = runtime(lab, "exec", &special)?;
    let c = lab.run(with_runtime(lab, lab.sleeper("birch"), &program)).await?;
    let leaf = lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Null).await?;
    lab.add_exec(&c, "twig", &["sleep", "100000"], &Streams::Null).await?;
    refused(within("Start", c.task().start("birch", "twig")).await?, Code::UNKNOWN, ".pid")?;
    c.task().delete("birch", "twig").await?;
    ensure!(sorted(c.task().pids("birch").await?) == sorted(vec![c.pid, leaf.pid]));
    // The first is still known for what it is.
    c.task().kill("birch", "leaf", 15, false).await?;
    let waited = within("Wait", c.task().wait("birch", "leaf")).await??;
    ensure!(waited.exit_status == 143, "{waited:?}");
    lab.retire(c).await
}

/// What freezes a container on this machine, as a shell command.
fn freeze(lab: &Lab) -> Result<String> {
    let folder = cgroup_folder("freezer", &format!("/{}/birch", lab.scratch.cgroup()))?;
    let (word, file) =
        if cgroup_v2_only() { ("1", "cgroup.freeze") } else { ("FROZEN", "freezer.state") };
    Ok(format!("echo {word} >{}", folder.join(file).display()))
}

/// The init's end finds nothing to thaw yet, and the runtime deletes nothing that is frozen.
async fn a_pause_that_comes_after_the_inits_end_does_not_keep_the_container(
    lab: &Lab,
) -> Result<()> {
    let (asked, go) = (lab.scratch.path("asked"), lab.scratch.path("go"));
    make_fifo(&go)?;
    let waits = format!("echo >{}; read line <{}", asked.display(), go.display());
    let program = runtime(lab, "pause", &format!("{waits}; {}; exit 0", freeze(lab)?))?;
    let c = lab.run(with_runtime(lab, lab.sleeper("birch"), &program)).await?;
    let task = c.task().clone();
    let pausing = tokio::spawn(async move { task.pause("birch").await });
    eventually("the runtime is called", || Ok(asked.exists().then_some(()))).await?;
    c.kill(libc::SIGKILL).await?;
    ensure!(within("Wait", c.wait()).await?? == 137);
    // Held until it is read.
    let mut word = Input::open(&go)?;
    word.write("go\n").await?;
    refused(within("Pause", pausing).await??, Code::NOT_FOUND, "birch")?;
    lab.retire(c).await
}

async fn a_container_that_others_have_frozen_is_deleted_after_its_end(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.shell("birch", "true")).await?;
    within("Wait", c.wait()).await??;
    let frozen = Command::new("sh").args(["-c", &freeze(lab)?]).status()?;
    ensure!(frozen.success(), "{frozen}");
    lab.retire(c).await
}

fn sorted(mut pids: Vec<u32>) -> Vec<u32> {
    pids.sort_unstable();
    pids
}

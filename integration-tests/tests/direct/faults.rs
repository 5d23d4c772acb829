//! Faults around the shim: an OCI runtime that is missing, hangs or dies, a full disk. The shim answers
//! with an error, serves everybody else, and leaves nothing. Must not know the shim's own death (see deaths.rs).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use containerd_shim_protos::api::Status;
use integration_tests::bundle::Bundle;
use integration_tests::deadline::{eventually, within};
use integration_tests::lab::{Lab, Launch};
use integration_tests::shim::Start;
use integration_tests::stdio::{Stdio, Streams};
use integration_tests::suite::Suite;
use integration_tests::trials;
use nix::mount::MsFlags;

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
            a_full_disk_fails_start_and_leaves_nothing,
            a_full_disk_fails_create_or_does_without,
            an_endless_runtime_complaint_is_cut,
        ]
    );
}

/// A runtime that does `special` when called for `verb` (with `$log` naming nothing yet), and else is runc.
fn runtime(lab: &Lab, verb: &str, special: &str) -> Result<PathBuf> {
    let script = format!(
        "#!/bin/sh\nfor word in \"$@\"; do if [ \"$word\" = {verb} ]; then\n{special}\nfi; done\nexec {} \"$@\"\n",
        lab.under_test.runtime.display()
    );
    let program = lab.scratch.path(format!("runtime-{verb}"));
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

fn with_runtime(lab: &Lab, launch: Launch, program: &std::path::Path) -> Launch {
    let options = lab.options(|options| options.binary_name = program.display().to_string());
    Launch { options: Some(options), ..launch }
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

    ensure!(within("Create", hanging).await??.is_err(), "Create was granted");
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
    ensure!(within("Start", hanging).await??.is_err(), "Start was granted");
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

/// A bundle on a file system of 64 KiB with `free` bytes left (about).
fn cramped_bundle(lab: &Lab, launch: &Launch, free: usize) -> Result<Bundle> {
    let folder = lab.scratch.folder("bundles/birch")?;
    let options = Some("size=64k");
    nix::mount::mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), options)?;
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    fill(&bundle, free)?;
    Ok(bundle)
}

fn fill(bundle: &Bundle, free: usize) -> Result<()> {
    use std::io::Write;
    let filler = bundle.path.join("filler");
    let mut file = fs::File::create(&filler)?;
    let mut length = 0;
    while let Ok(written) = file.write(&[0; 4096]) {
        length += written;
    }
    file.set_len(length.saturating_sub(free) as u64).context("leaving some room")
}

/// The delete command, then the bundle's end with its file system.
async fn bury_cramped(lab: &Lab, bundle: &Bundle) -> Result<()> {
    lab.caller.delete_raw(&lab.scratch, bundle).await?;
    nix::mount::umount2(&bundle.path, nix::mount::MntFlags::MNT_DETACH)?;
    Ok(())
}

async fn a_full_disk_fails_start_and_leaves_nothing(lab: &Lab) -> Result<()> {
    let launch = lab.sleeper("birch");
    let bundle = cramped_bundle(lab, &launch, 0)?;
    let finished = lab.caller.start(&lab.scratch, &bundle, &Start::default()).await?;
    ensure!(!finished.status.success(), "start worked: {}", finished.text());
    ensure!(finished.text().contains("space"), "{}", finished.text());
    bury_cramped(lab, &bundle).await
}

async fn a_full_disk_fails_create_or_does_without(lab: &Lab) -> Result<()> {
    let launch = lab.sleeper("birch");
    let bundle = cramped_bundle(lab, &launch, 16 << 10)?;
    let shim = lab.start_shim(&bundle, &Start::default()).await?;
    fill(&bundle, 0)?;
    match lab.create_in(shim.clone(), bundle.clone(), launch).await? {
        Err(_) => ensure!(shim.task.state("birch", "").await.is_err(), "a task is left"),
        Ok(c) => {
            c.start().await?;
            c.kill(libc::SIGKILL).await?;
            within("Wait", c.wait()).await??;
            c.delete().await?;
        }
    }
    within("Shutdown", shim.task.shutdown("birch")).await?.ok();
    bury_cramped(lab, &bundle).await
}

async fn an_endless_runtime_complaint_is_cut(lab: &Lab) -> Result<()> {
    let program = runtime(lab, "create", "head -c 8000000 /dev/zero | tr '\\0' x >&2; exit 1")?;
    let message = failing_create(lab, with_runtime(lab, lab.sleeper("birch"), &program)).await?;
    ensure!(message.len() < 4 << 20, "{} bytes of message", message.len());
    Ok(())
}

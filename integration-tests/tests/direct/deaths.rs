//! The shim killed with SIGKILL at one moment or another, followed by what containerd does then: the
//! `delete` command. Nothing may be left. Must not know how a shim keeps its records.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use integration_tests::deadline::{Process, eventually, within};
use integration_tests::lab::{Lab, Launch};
use integration_tests::machine::cgroup_folder;
use integration_tests::shim::Start;
use integration_tests::stdio::{Stdio, Streams};
use integration_tests::suite::Suite;
use integration_tests::trials;

use crate::faults::{runtime, with_runtime};

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "deaths",
        [
            before_create,
            after_create,
            after_start,
            with_an_exec_running,
            with_a_terminal,
            with_a_rootfs_mounted,
            with_children_in_the_host_pid_namespace,
            while_paused,
            after_exit_before_delete,
            during_create,
            during_create_by_a_runtime_that_ends_late,
            during_start_of_an_exec,
            of_a_pods_shim,
            the_delete_command_may_run_twice,
            the_delete_command_tells_how_the_init_ended,
        ]
    );
}

async fn before_create(lab: &Lab) -> Result<()> {
    let launch = lab.sleeper("birch");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Start::default()).await?;
    lab.kill_shim(&shim).await?;
    lab.bury_unborn(&bundle).await?;
    remove_socket_as_containerd_would(lab);
    Ok(())
}

/// The Go shim's delete command leaves the socket of a shim that never created; its next `start` replaces it.
pub fn remove_socket_as_containerd_would(lab: &Lab) {
    if lab.under_test.reference {
        for socket in lab.scratch.sockets() {
            fs::remove_file(socket).ok();
        }
    }
}

/// Kills the shim of a container and buries it.
async fn dies(lab: &Lab, c: integration_tests::lab::Container) -> Result<()> {
    lab.kill_shim(&c.shim).await?;
    lab.bury(&c.bundle).await?;
    remove_socket_as_containerd_would(lab);
    Ok(())
}

async fn after_create(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.sleeper("birch")).await?;
    dies(lab, c).await
}

async fn after_start(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    dies(lab, c).await
}

async fn with_an_exec_running(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Output).await?;
    dies(lab, c).await
}

async fn with_a_terminal(lab: &Lab) -> Result<()> {
    let launch = lab.launch("birch", lab.spec("birch", &["sh", "-i"]).terminal());
    let c = lab.run(Launch { streams: Streams::Terminal, ..launch }).await?;
    dies(lab, c).await
}

async fn with_a_rootfs_mounted(lab: &Lab) -> Result<()> {
    let mut launch = lab.sleeper("birch");
    launch.spec.json["root"]["path"] = "rootfs".into();
    launch.rootfs = vec![containerd_shim_protos::api::Mount {
        type_: "bind".into(),
        source: lab.image.display().to_string(),
        options: vec!["rbind".into(), "rw".into()],
        ..Default::default()
    }];
    let c = lab.run(launch).await?;
    dies(lab, c).await
}

async fn with_children_in_the_host_pid_namespace(lab: &Lab) -> Result<()> {
    let mut launch = lab.shell("birch", "sleep 100000 & sleep 100000 & echo ready; wait");
    launch.spec = launch.spec.host_pid();
    let c = lab.run(launch).await?;
    c.io.stdout.as_ref().context("captured")?.shows("ready").await?;
    dies(lab, c).await
}

async fn while_paused(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    c.task().pause("birch").await?;
    dies(lab, c).await
}

async fn after_exit_before_delete(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.shell("birch", "true")).await?;
    within("Wait", c.wait()).await??;
    dies(lab, c).await
}

/// A runtime that stops before it does `verb`, after it has noted so.
fn slow_runtime(lab: &Lab, verb: &str) -> Result<(std::path::PathBuf, std::path::PathBuf)> {
    let asked = lab.scratch.path("asked");
    let script = format!(
        "#!/bin/sh\nfor word in \"$@\"; do if [ \"$word\" = {verb} ]; then {runc} \"$@\"; echo >{asked}; exec sleep 100000; fi; done\nexec {runc} \"$@\"\n",
        asked = asked.display(),
        runc = lab.under_test.runtime.display()
    );
    let program = lab.scratch.path("slow");
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok((program, asked))
}

/// Processes that a dead shim's call left behind are no container's: only the shim could have known them, so
/// it must have tied their lives to its own.
async fn during_create(lab: &Lab) -> Result<()> {
    let (program, asked) = slow_runtime(lab, "create")?;
    let mut launch = lab.sleeper("birch");
    launch.options =
        Some(lab.options(|options| options.binary_name = program.display().to_string()));
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Start::default()).await?;
    let request = lab.create_request(&launch, &bundle, &Stdio::default());
    let task = shim.task.clone();
    let hanging = tokio::spawn(async move { task.create(&request).await });
    eventually("the runtime is called", || Ok(asked.exists().then_some(()))).await?;
    lab.kill_shim(&shim).await?;
    ensure!(within("Create", hanging).await??.is_err());
    lab.bury(&bundle).await?;
    remove_socket_as_containerd_would(lab);
    Ok(())
}

/// As one does that is killed in the middle of a system call: it makes the container's cgroup, and only then ends.
async fn during_create_by_a_runtime_that_ends_late(lab: &Lab) -> Result<()> {
    let asked = lab.scratch.path("asked");
    let cgroup = cgroup_folder("cpuset", &format!("/{}/birch", lab.scratch.cgroup()))?;
    let late = format!("echo >{}; sleep 0.3; mkdir -p {}", asked.display(), cgroup.display());
    // The child has the call's words, and is not killed with the shim.
    let program = runtime(lab, "create", &format!("sh -c '{late}' late \"$@\" & wait; exit 1"))?;
    let launch = with_runtime(lab, lab.sleeper("birch"), &program);
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Start::default()).await?;
    let request = lab.create_request(&launch, &bundle, &Stdio::default());
    let task = shim.task.clone();
    let creating = tokio::spawn(async move { task.create(&request).await });
    eventually("the runtime is called", || Ok(asked.exists().then_some(()))).await?;
    lab.kill_shim(&shim).await?;
    ensure!(within("Create", creating).await??.is_err());
    lab.bury(&bundle).await?;
    remove_socket_as_containerd_would(lab);
    Ok(())
}

async fn during_start_of_an_exec(lab: &Lab) -> Result<()> {
    let (program, asked) = slow_runtime(lab, "exec")?;
    let mut launch = lab.sleeper("birch");
    launch.options =
        Some(lab.options(|options| options.binary_name = program.display().to_string()));
    let c = lab.run(launch).await?;
    lab.add_exec(&c, "leaf", &["sleep", "100000"], &Streams::Null).await?;
    let task = c.task().clone();
    let hanging = tokio::spawn(async move { task.start("birch", "leaf").await });
    eventually("the runtime is called", || Ok(asked.exists().then_some(()))).await?;
    lab.kill_shim(&c.shim).await?;
    ensure!(within("Start", hanging).await??.is_err());
    lab.bury(&c.bundle).await?;
    remove_socket_as_containerd_would(lab);
    Ok(())
}

async fn of_a_pods_shim(lab: &Lab) -> Result<()> {
    let mut all = Vec::new();
    for id in ["grove", "birch", "beech"] {
        let mut launch = lab.sleeper(id);
        launch.spec = launch.spec.in_pod("grove");
        all.push(lab.run(launch).await?);
    }
    lab.kill_shim(&all[0].shim).await?;
    for c in all.iter().rev() {
        lab.bury(&c.bundle).await?;
    }
    remove_socket_as_containerd_would(lab);
    Ok(())
}

async fn the_delete_command_may_run_twice(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.kill_shim(&c.shim).await?;
    lab.caller.delete(&lab.scratch, &c.bundle).await?;
    lab.bury(&c.bundle).await?;
    remove_socket_as_containerd_would(lab);
    Ok(())
}

async fn the_delete_command_tells_how_the_init_ended(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let init = Process::open(c.pid).context("the init runs")?;
    lab.kill_shim(&c.shim).await?;
    let response = lab.bury(&c.bundle).await?;
    init.exited().await?;
    ensure!(response.exit_status == 137 && response.pid == c.pid, "{response:?}");
    ensure!(response.exited_at.is_some(), "{response:?}");
    remove_socket_as_containerd_would(lab);
    Ok(())
}

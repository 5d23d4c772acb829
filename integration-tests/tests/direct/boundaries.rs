//! Where the shim must stop: what is not its container's it leaves alone, and what it has agreed to end it
//! does not begin anew. Each trial was a defect once.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use containerd_shim_protos::api::{Mount, Status};
use integration_tests::bundle::Bundle;
use integration_tests::deadline::{Process, eventually, within};
use integration_tests::lab::{Lab, Launch};
use integration_tests::machine;
use integration_tests::shim::Start;
use integration_tests::stdio::{Stdio, Streams};
use integration_tests::suite::Suite;
use integration_tests::task::refused;
use integration_tests::trials;
use serde_json::json;
use ttrpc::Code;

use crate::faults::missed_deadline;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "boundaries",
        [
            a_cgroup_of_another_name_is_never_swept,
            a_create_of_another_shims_container_spares_it,
            the_delete_command_in_another_containers_bundle_spares_it,
            a_create_after_the_shutdown_is_refused,
            a_hanging_hook_leaves_no_cgroup,
            a_created_container_is_deleted_without_waiting_for_its_output,
            an_input_that_is_no_fifo_is_given_as_it_is,
            starts_at_once_over_a_dead_socket_agree_on_one_shim,
        ]
    );
}

/// The container's id is part of the cgroup's name, and a stranger lives there: containerd's `delete`
/// after the container's normal end must not touch it.
async fn a_cgroup_of_another_name_is_never_swept(lab: &Lab) -> Result<()> {
    let cgroup = format!("/{}/birchwood", lab.scratch.cgroup());
    let mut spec = lab.spec("birch", &["true"]);
    spec.json["linux"]["cgroupsPath"] = json!(cgroup);
    let c = lab.run(lab.launch("birch", spec)).await?;
    within("Wait", c.wait()).await??;
    let mut stranger = Command::new("sleep").arg("100000").spawn()?;
    let folder = machine::cgroup_folder("pids", &cgroup)?;
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("cgroup.procs"), stranger.id().to_string())?;
    // The runtime itself refuses to remove a cgroup that is in use; what counts is who lives on.
    c.delete().await.ok();
    lab.caller.delete_raw(&lab.scratch, &c.bundle).await?;
    let survived = stranger.try_wait()?.is_none();
    stranger.kill()?;
    stranger.wait()?;
    eventually("the stranger's cgroup can be removed", || {
        Ok((!folder.exists() || fs::remove_dir(&folder).is_ok()).then_some(()))
    })
    .await?;
    ensure!(survived, "a stranger was killed");
    c.delete().await.ok();
    lab.dismiss(c).await
}

/// Two shims, one id: what the second undoes must not be the first one's container.
async fn a_create_of_another_shims_container_spares_it(lab: &Lab) -> Result<()> {
    let first = lab.run(lab.sleeper("birch")).await?;
    let mut twin = lab.sleeper("birch");
    twin.spec = twin.spec.in_pod("grove");
    let bundle = Bundle::create(&lab.scratch.folder("twin")?, "birch", Some(&twin.spec))?;
    let shim = lab.start_shim(&bundle, &Start::default()).await?;
    let request = lab.create_request(&twin, &bundle, &Stdio::default());
    refused(shim.task.create(&request).await, Code::ALREADY_EXISTS, "birch")?;
    ensure!(first.status().await? == Status::RUNNING, "the first one was destroyed");
    shim.task.shutdown("birch").await?;
    bundle.remove()?;
    lab.retire(first).await
}

/// containerd starts the command in the bundle of whichever member of a pod it thinks of.
async fn the_delete_command_in_another_containers_bundle_spares_it(lab: &Lab) -> Result<()> {
    let mut launch = lab.sleeper("birch");
    launch.spec.json["root"]["path"] = "rootfs".into();
    launch.rootfs = vec![Mount {
        type_: "bind".into(),
        source: lab.image.display().to_string(),
        options: vec!["rbind".into(), "rw".into()],
        ..Default::default()
    }];
    let c = lab.run(launch).await?;
    let stranger = Bundle { id: "beech".into(), path: c.bundle.path.clone() };
    lab.caller.delete_raw(&lab.scratch, &stranger).await?;
    ensure!(c.status().await? == Status::RUNNING);
    ensure!(!machine::mounts_below(&c.bundle.rootfs())?.is_empty(), "its root was unmounted");
    ensure!(c.bundle.path.join("config.json").exists());
    lab.retire(c).await
}

async fn a_create_after_the_shutdown_is_refused(lab: &Lab) -> Result<()> {
    let launch = lab.sleeper("birch");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Start::default()).await?;
    let request = lab.create_request(&launch, &bundle, &Stdio::default());
    // On one connection requests are taken in order, and the shim answers until it has gone.
    let (shutdown, create) = tokio::join!(shim.task.shutdown("birch"), shim.task.create(&request));
    shutdown.ok();
    match create {
        // It had gone before it could be asked.
        Err(err) if err.code.is_none() => {}
        answer => refused(answer, Code::UNAVAILABLE, "birch")?,
    }
    lab.bury_unborn(&bundle).await
}

/// The runtime makes the cgroup before it writes down anything, and is killed with its hook.
async fn a_hanging_hook_leaves_no_cgroup(lab: &Lab) -> Result<()> {
    let mut launch = lab.sleeper("birch");
    launch.spec.json["hooks"] = json!({
        "createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100000"]}]
    });
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Start::default()).await?;
    let request = lab.create_request(&launch, &bundle, &Stdio::default());
    let task = shim.task.patient_for(Duration::from_secs(4));
    missed_deadline(within("Create", task.create(&request)).await?)?;
    lab.dismiss_shim(&shim, &bundle).await
}

/// The waiting init holds its output open; a delete that drains first would wait for itself.
async fn a_created_container_is_deleted_without_waiting_for_its_output(lab: &Lab) -> Result<()> {
    let launch = Launch { streams: Streams::Output, ..lab.sleeper("birch") };
    let c = lab.create(launch).await?;
    let patient = c.task().patient_for(Duration::from_secs(8));
    patient.delete("birch", "").await.context("a delete that waits for its own container")?;
    lab.dismiss(c).await
}

async fn an_input_that_is_no_fifo_is_given_as_it_is(lab: &Lab) -> Result<()> {
    let file = lab.scratch.path("input");
    fs::write(&file, "from a file\n")?;
    let c = lab.run(lab.sleeper("birch")).await?;
    let out = lab.scratch.path("output");
    fs::write(&out, "")?;
    let io = Stdio {
        stdin_path: file.display().to_string(),
        stdout_path: format!("file://{}", out.display()),
        ..Stdio::default()
    };
    let request = c.exec_request("leaf", &["cat"], &Streams::Null, &io);
    c.task().exec(&request).await?;
    c.task().start("birch", "leaf").await?;
    within("Wait", c.task().wait("birch", "leaf")).await??;
    c.task().delete("birch", "leaf").await?;
    ensure!(fs::read_to_string(&out)? == "from a file\n");
    lab.retire(c).await
}

async fn starts_at_once_over_a_dead_socket_agree_on_one_shim(lab: &Lab) -> Result<()> {
    let mut keeper = lab.sleeper("grove");
    keeper.spec = keeper.spec.in_pod("grove");
    let keeper = lab.create(keeper).await?;
    lab.kill_shim(&keeper.shim).await?;
    let members = ["birch", "beech", "maple"].map(|id| {
        let launch = lab.sleeper(id);
        lab.bundle(id, Some(&launch.spec.in_pod("grove")))
    });
    let [a, b, c] = members;
    let (a, b, c) = (a?, b?, c?);
    let how = Start::default();
    let (one, two, three) =
        tokio::join!(lab.start_shim(&a, &how), lab.start_shim(&b, &how), lab.start_shim(&c, &how));
    let shims = [one?, two?, three?];
    ensure!(shims.iter().all(|shim| shim.pid == shims[0].pid), "a group with several shims");
    ensure!(Process::open(shims[0].pid).is_some());
    shims[0].task.shutdown("birch").await?;
    for bundle in [&a, &b, &c] {
        lab.bury_unborn(bundle).await?;
    }
    lab.bury(&keeper.bundle).await?;
    Ok(())
}

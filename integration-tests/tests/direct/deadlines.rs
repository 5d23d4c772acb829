//! Every call of the OCI runtime ends before its caller gives up: the caller hears which container it is about,
//! and the container can be used and deleted afterwards. Create and Exec: see faults.rs.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use containerd_shim_protos::api::Status;
use integration_tests::deadline::within;
use integration_tests::lab::{Container, Lab, Launch};
use integration_tests::suite::Suite;
use integration_tests::task::Task;
use integration_tests::trials;
use serde_json::json;

use crate::faults::{missed_deadline, runtime, with_runtime};

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "deadlines",
        [
            a_runtime_that_hangs_in_start_is_told_in_time,
            a_runtime_that_hangs_in_kill_is_told_in_time,
            a_runtime_that_hangs_in_pause_is_told_in_time,
            a_runtime_that_hangs_in_resume_is_told_in_time,
            a_runtime_that_hangs_in_update_is_told_in_time,
            a_runtime_that_hangs_in_delete_is_told_in_time,
            a_runtime_that_hangs_in_the_delete_command_leaves_nothing,
            the_delete_command_fails_while_it_must_leave_processes,
        ]
    );
}

/// Less than the deadlines that are configured for the shim by default.
const PATIENCE: Duration = Duration::from_secs(5);

/// A launch whose runtime hangs the first time that it is called for `verb`.
fn hanging_in(lab: &Lab, verb: &str, launch: Launch) -> Result<Launch> {
    let hung = lab.scratch.path("hung");
    let once = format!("if [ ! -e {0} ]; then echo >{0}; exec sleep 100000; fi", hung.display());
    Ok(with_runtime(lab, launch, &runtime(lab, verb, &once)?))
}

fn impatient(c: &Container) -> Task {
    c.task().patient_for(PATIENCE)
}

async fn a_runtime_that_hangs_in_start_is_told_in_time(lab: &Lab) -> Result<()> {
    let c = lab.create(hanging_in(lab, "start", lab.sleeper("birch"))?).await?;
    missed_deadline(within("Start", impatient(&c).start("birch", "")).await?)?;
    ensure!(c.status().await? == Status::CREATED);
    c.start().await?;
    lab.retire(c).await
}

async fn a_runtime_that_hangs_in_kill_is_told_in_time(lab: &Lab) -> Result<()> {
    let c = lab.run(hanging_in(lab, "kill", lab.sleeper("birch"))?).await?;
    missed_deadline(within("Kill", impatient(&c).kill("birch", "", 15, true)).await?)?;
    ensure!(c.status().await? == Status::RUNNING);
    lab.retire(c).await
}

async fn a_runtime_that_hangs_in_pause_is_told_in_time(lab: &Lab) -> Result<()> {
    let c = lab.run(hanging_in(lab, "pause", lab.sleeper("birch"))?).await?;
    missed_deadline(within("Pause", impatient(&c).pause("birch")).await?)?;
    ensure!(c.status().await? == Status::RUNNING);
    lab.retire(c).await
}

async fn a_runtime_that_hangs_in_resume_is_told_in_time(lab: &Lab) -> Result<()> {
    let c = lab.run(hanging_in(lab, "resume", lab.sleeper("birch"))?).await?;
    c.task().pause("birch").await?;
    missed_deadline(within("Resume", impatient(&c).resume("birch")).await?)?;
    ensure!(c.status().await? == Status::PAUSED);
    c.task().resume("birch").await?;
    lab.retire(c).await
}

async fn a_runtime_that_hangs_in_update_is_told_in_time(lab: &Lab) -> Result<()> {
    let c = lab.run(hanging_in(lab, "update", lab.sleeper("birch"))?).await?;
    let resources = json!({"memory": {"limit": 96 << 20}});
    missed_deadline(within("Update", impatient(&c).update("birch", &resources)).await?)?;
    ensure!(c.status().await? == Status::RUNNING);
    lab.retire(c).await
}

async fn a_runtime_that_hangs_in_delete_is_told_in_time(lab: &Lab) -> Result<()> {
    let c = lab.run(hanging_in(lab, "delete", lab.shell("birch", "true"))?).await?;
    within("Wait", c.wait()).await??;
    missed_deadline(within("Delete", impatient(&c).delete("birch", "")).await?)?;
    ensure!(c.status().await? == Status::STOPPED);
    lab.retire(c).await
}

/// The cgroup is the container's own: once it is swept, what the runtime has on file is about nobody.
async fn a_runtime_that_hangs_in_the_delete_command_leaves_nothing(lab: &Lab) -> Result<()> {
    let c = lab.run(hanging_in(lab, "delete", lab.sleeper("birch"))?).await?;
    lab.kill_shim(&c.shim).await?;
    lab.bury(&c.bundle).await?;
    ensure!(lab.scratch.path("hung").exists(), "the runtime was never asked");
    Ok(())
}

/// Where the cgroup may be shared nobody is killed behind the runtime's back. A success would make containerd
/// remove the bundle, and with it the record of how to clean up.
async fn the_delete_command_fails_while_it_must_leave_processes(lab: &Lab) -> Result<()> {
    let mut launch = hanging_in(lab, "delete", lab.sleeper("birch"))?;
    launch.spec.json["linux"]["cgroupsPath"] = json!(format!("/{}/wood", lab.scratch.cgroup()));
    let c = lab.run(launch).await?;
    lab.kill_shim(&c.shim).await?;
    let failed = lab.caller.delete_raw(&lab.scratch, &c.bundle).await?;
    ensure!(!failed.status.success() && failed.stdout.is_empty(), "{failed:?}");
    let words = failed.errors();
    ensure!(words.contains("birch") && words.contains("did not delete"), "{words}");
    ensure!(fs::exists(format!("/proc/{}", c.pid))?, "somebody was killed without being asked for");
    lab.bury(&c.bundle).await?;
    Ok(())
}

//! Requests that are refused for what they ask, with the status code that clients go by, and that leave nothing.
//! Must not know bundles (see bundles.rs) or options (see options.rs).

use anyhow::{Result, ensure};
use containerd_shim_protos::api::Status;
use integration_tests::deadline::within;
use integration_tests::lab::Lab;
use integration_tests::stdio::{Stdio, Streams};
use integration_tests::suite::Suite;
use integration_tests::task::refused;
use integration_tests::trials;
use ttrpc::Code;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "refusals",
        [
            a_container_id_that_is_a_path_is_an_invalid_argument,
            an_exec_id_that_is_a_path_is_an_invalid_argument,
            a_signal_to_an_unstarted_exec_fails_its_precondition,
            a_start_of_an_exec_after_the_inits_end_fails_its_precondition,
            an_exec_into_a_paused_container_is_refused,
        ]
    );
}

async fn a_container_id_that_is_a_path_is_an_invalid_argument(lab: &Lab) -> Result<()> {
    let launch = lab.sleeper("birch");
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Default::default()).await?;
    for id in ["../birch", "a/b", "..", ""] {
        let mut request = lab.create_request(&launch, &bundle, &Stdio::default());
        request.id = id.into();
        refused(shim.task.create(&request).await, Code::INVALID_ARGUMENT, id)?;
    }
    lab.dismiss_shim(&shim, &bundle).await
}

async fn an_exec_id_that_is_a_path_is_an_invalid_argument(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    for id in ["../leaf", "a/b", ".."] {
        let request = c.exec_request(id, &["true"], &Streams::Null, &Stdio::default());
        refused(c.task().exec(&request).await, Code::INVALID_ARGUMENT, id)?;
        refused(c.task().state("birch", id).await, Code::NOT_FOUND, id)?;
    }
    lab.retire(c).await
}

async fn a_signal_to_an_unstarted_exec_fails_its_precondition(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.add_exec(&c, "leaf", &["true"], &Streams::Null).await?;
    let killed = c.task().kill("birch", "leaf", 9, false).await;
    refused(killed, Code::FAILED_PRECONDITION, "leaf")?;
    ensure!(c.task().status("birch", "leaf").await? == Status::CREATED);
    lab.retire(c).await
}

async fn a_start_of_an_exec_after_the_inits_end_fails_its_precondition(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.add_exec(&c, "leaf", &["true"], &Streams::Null).await?;
    c.kill(libc::SIGKILL).await?;
    within("Wait", c.wait()).await??;
    let started = within("Start", c.task().start("birch", "leaf")).await?;
    refused(started, Code::FAILED_PRECONDITION, "birch")?;
    c.task().delete("birch", "leaf").await?;
    lab.retire(c).await
}

async fn an_exec_into_a_paused_container_is_refused(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    c.task().pause("birch").await?;
    let request = c.exec_request("leaf", &["true"], &Streams::Null, &Stdio::default());
    refused(c.task().exec(&request).await, Code::UNKNOWN, "birch")?;
    c.task().resume("birch").await?;
    lab.exec(&c, "leaf", &["true"], Streams::Null).await?;
    ensure!(within("Wait", c.task().wait("birch", "leaf")).await??.exit_status == 0);
    lab.retire(c).await
}

//! Events: which come, in what order, with what in them. Must not know how they are sent.

use anyhow::{Result, ensure};
use integration_tests::deadline::within;
use integration_tests::lab::Lab;
use integration_tests::machine;
use integration_tests::stdio::Streams;
use integration_tests::suite::Suite;
use integration_tests::trials;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "order",
        [
            create_start_exit_delete_come_in_order,
            an_execs_events_come_in_order_and_its_exit_before_the_inits,
            ten_execs_exit_before_their_init,
            pause_and_resume_are_told,
            events_name_namespace_and_type,
            an_out_of_memory_kill_is_told_before_the_exit,
            an_out_of_memory_kill_in_an_exec_is_told_too,
        ]
    );
}

async fn create_start_exit_delete_come_in_order(lab: &Lab) -> Result<()> {
    for round in 0..10 {
        let id = format!("birch{round}");
        let c = lab.run(lab.launch(&id, lab.spec(&id, &["true"]))).await?;
        within("Wait", c.wait()).await??;
        c.delete().await?;
        let delete = lab.events.of(&id, "delete", "").await;
        let delete = match delete {
            Ok(event) => event,
            Err(err) => return Err(err),
        };
        ensure!(delete.pid == c.pid && delete.status == 0, "{delete:?}");
        let labels = lab.events.labels(&id);
        ensure!(labels == ["create", "start", &format!("exit {id}"), "delete"], "{labels:?}");
        lab.dismiss(c).await?;
    }
    Ok(())
}

async fn an_execs_events_come_in_order_and_its_exit_before_the_inits(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let leaf = lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Null).await?;
    c.kill(libc::SIGKILL).await?;
    let exit = lab.events.exit("birch").await?;
    ensure!(exit.pid == c.pid && exit.status == 137, "{exit:?}");
    let labels = lab.events.labels("birch");
    let want =
        ["create", "start", "exec-added leaf", "exec-started leaf", "exit leaf", "exit birch"];
    ensure!(labels == want, "{labels:?}");
    let exec_exit = lab.events.of("birch", "exit", "leaf").await?;
    ensure!(exec_exit.pid == leaf.pid && exec_exit.status == 137, "{exec_exit:?}");
    lab.retire(c).await
}

async fn ten_execs_exit_before_their_init(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    for n in 0..10 {
        lab.exec(&c, &format!("leaf{n}"), &["sleep", "100000"], Streams::Null).await?;
    }
    c.kill(libc::SIGKILL).await?;
    lab.events.exit("birch").await?;
    let labels = lab.events.labels("birch");
    let exits: Vec<&String> = labels.iter().filter(|label| label.starts_with("exit")).collect();
    ensure!(exits.len() == 11 && exits[10] == "exit birch", "{exits:?}");
    lab.retire(c).await
}

async fn pause_and_resume_are_told(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    c.task().pause("birch").await?;
    c.task().resume("birch").await?;
    lab.events.of("birch", "resumed", "").await?;
    let labels = lab.events.labels("birch");
    ensure!(labels == ["create", "start", "paused", "resumed"], "{labels:?}");
    lab.retire(c).await
}

async fn events_name_namespace_and_type(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.launch("birch", lab.spec("birch", &["true"]))).await?;
    let exit = lab.events.exit("birch").await?;
    ensure!(exit.namespace == "lab" && exit.type_url == "containerd.events.TaskExit", "{exit:?}");
    let create = lab.events.of("birch", "create", "").await?;
    ensure!(create.pid == c.pid && create.type_url == "containerd.events.TaskCreate", "{create:?}");
    lab.retire(c).await
}

const LIMIT: u64 = 24 << 20;

async fn an_out_of_memory_kill_is_told_before_the_exit(lab: &Lab) -> Result<()> {
    let spec = lab.spec("birch", &["tail", "/dev/zero"]).memory_limit(LIMIT);
    let c = lab.run(lab.launch("birch", spec)).await?;
    ensure!(within("Wait", c.wait()).await?? == 137);
    lab.events.exit("birch").await?;
    let labels = lab.events.labels("birch");
    ensure!(labels == ["create", "start", "oom", "exit birch"], "{labels:?}");
    lab.retire(c).await
}

async fn an_out_of_memory_kill_in_an_exec_is_told_too(lab: &Lab) -> Result<()> {
    let spec = lab.spec("birch", &["sleep", "100000"]).memory_limit(LIMIT);
    let mut launch = lab.launch("birch", spec);
    launch.streams = Streams::Null;
    let c = lab.run(launch).await?;
    lab.exec(&c, "leaf", &["tail", "/dev/zero"], Streams::Null).await?;
    ensure!(within("Wait", c.task().wait("birch", "leaf")).await??.exit_status == 137);
    lab.events.of("birch", "oom", "").await?;
    ensure!(machine::process(c.pid).is_some(), "the init was killed too");
    lab.retire(c).await
}

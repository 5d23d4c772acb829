//! Exec'd processes: adding, starting, waiting, deleting, and the refusals. Must not know stdio kinds
//! (see streams.rs) or signals (see signals.rs).

use anyhow::{Context, Result, ensure};
use containerd_shim_protos::api::Status;
use integration_tests::deadline::{Process, eventually, within};
use integration_tests::lab::Lab;
use integration_tests::machine;
use integration_tests::stdio::{Stdio, Streams};
use integration_tests::suite::Suite;
use integration_tests::task::{any, refused, refused_as, status_of};
use integration_tests::trials;
use ttrpc::Code;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "execs",
        [
            an_exec_runs_beside_the_init_and_reports_its_exit,
            every_call_on_an_unknown_exec_is_not_found,
            a_duplicate_exec_id_is_refused_and_the_first_runs_on,
            an_exec_id_is_free_again_after_its_delete,
            a_second_start_of_an_exec_is_refused,
            delete_of_a_running_exec_is_refused_and_it_runs_on,
            an_exec_that_was_never_started_can_be_deleted,
            an_exec_that_cannot_be_executed_is_refused_and_leaves_the_container,
            an_exec_that_fails_after_one_that_ran_is_not_taken_for_it,
            a_runtime_killed_while_it_wrote_its_pid_file_breaks_no_later_exec,
            a_garbled_exec_spec_is_refused,
            an_exec_into_a_stopped_container_is_refused,
            the_end_of_the_init_ends_its_execs,
            a_wait_for_a_process_deleted_unstarted_is_answered,
            an_exec_keeps_its_own_environment_and_user,
            twenty_execs_at_once_each_report_their_own_exit,
            a_hundred_fast_execs_all_report_their_exit,
            a_process_orphaned_in_a_container_becomes_no_zombie_of_the_shim,
        ]
    );
}

async fn an_exec_runs_beside_the_init_and_reports_its_exit(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let script = "echo out; echo err >&2; exit 3";
    let io = lab.add_exec(&c, "leaf", &["sh", "-c", script], &Streams::Output).await?;
    let state = c.task().state("birch", "leaf").await?;
    ensure!(status_of(&state) == Status::CREATED && state.id == "leaf", "{state:?}");
    let pid = c.task().start("birch", "leaf").await?;
    let waited = within("Wait", c.task().wait("birch", "leaf")).await??;
    ensure!(waited.exit_status == 3, "{waited:?}");
    ensure!(io.stdout_text().await? == "out\n" && io.stderr_text().await? == "err\n");
    let state = c.task().state("birch", "leaf").await?;
    ensure!(status_of(&state) == Status::STOPPED && state.exit_status == 3, "{state:?}");
    let deleted = c.task().delete("birch", "leaf").await?;
    ensure!(deleted.pid == pid && deleted.exit_status == 3, "{deleted:?}");
    ensure!(deleted.exited_at == waited.exited_at, "{deleted:?} {waited:?}");
    refused(c.task().state("birch", "leaf").await, Code::NOT_FOUND, "leaf")?;
    ensure!(c.status().await? == Status::RUNNING);
    lab.retire(c).await
}

async fn every_call_on_an_unknown_exec_is_not_found(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let task = c.task();
    let unknown = Code::NOT_FOUND;
    refused(task.state("birch", "nobody").await, unknown, "nobody")?;
    refused(task.start("birch", "nobody").await, unknown, "nobody")?;
    refused(task.delete("birch", "nobody").await, unknown, "nobody")?;
    refused(task.kill("birch", "nobody", 9, false).await, unknown, "nobody")?;
    refused(task.wait("birch", "nobody").await, unknown, "nobody")?;
    refused(task.resize("birch", "nobody", 80, 24).await, unknown, "nobody")?;
    refused_as(task.close_stdin("birch", "nobody").await, &[unknown, Code::UNKNOWN], "nobody")?;
    lab.retire(c).await
}

async fn a_duplicate_exec_id_is_refused_and_the_first_runs_on(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let leaf = lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Null).await?;
    let again = c.exec_request("leaf", &["true"], &Streams::Null, &Stdio::default());
    refused(c.task().exec(&again).await, Code::ALREADY_EXISTS, "leaf")?;
    let state = c.task().state("birch", "leaf").await?;
    ensure!(status_of(&state) == Status::RUNNING && state.pid == leaf.pid, "{state:?}");
    lab.retire(c).await
}

async fn an_exec_id_is_free_again_after_its_delete(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    for code in [4, 5] {
        let script = format!("exit {code}");
        lab.exec(&c, "leaf", &["sh", "-c", &script], Streams::Null).await?;
        ensure!(within("Wait", c.task().wait("birch", "leaf")).await??.exit_status == code);
        c.task().delete("birch", "leaf").await?;
    }
    lab.retire(c).await
}

async fn a_second_start_of_an_exec_is_refused(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Null).await?;
    refused(c.task().start("birch", "leaf").await, Code::UNKNOWN, "leaf")?;
    ensure!(c.task().status("birch", "leaf").await? == Status::RUNNING);
    lab.retire(c).await
}

async fn delete_of_a_running_exec_is_refused_and_it_runs_on(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Null).await?;
    refused(c.task().delete("birch", "leaf").await, Code::UNKNOWN, "leaf")?;
    ensure!(c.task().status("birch", "leaf").await? == Status::RUNNING);
    lab.retire(c).await
}

async fn an_exec_that_was_never_started_can_be_deleted(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.add_exec(&c, "leaf", &["true"], &Streams::Output).await?;
    c.task().delete("birch", "leaf").await?;
    refused(c.task().state("birch", "leaf").await, Code::NOT_FOUND, "leaf")?;
    lab.retire(c).await
}

async fn an_exec_that_cannot_be_executed_is_refused_and_leaves_the_container(
    lab: &Lab,
) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.add_exec(&c, "leaf", &["no-such-program"], &Streams::Output).await?;
    refused(c.task().start("birch", "leaf").await, Code::UNKNOWN, "no-such-program")?;
    c.task().delete("birch", "leaf").await?;
    refused(c.task().state("birch", "leaf").await, Code::NOT_FOUND, "leaf")?;
    ensure!(c.status().await? == Status::RUNNING);
    ensure!(c.task().pids("birch").await? == [c.pid]);
    lab.retire(c).await
}

/// The files of a launch are used again by the next one: what the first left must not answer for the second.
async fn an_exec_that_fails_after_one_that_ran_is_not_taken_for_it(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.exec(&c, "leaf", &["true"], Streams::Null).await?;
    within("Wait", c.task().wait("birch", "leaf")).await??;
    lab.add_exec(&c, "twig", &["no-such-program"], &Streams::Output).await?;
    refused(c.task().start("birch", "twig").await, Code::UNKNOWN, "no-such-program")?;
    lab.retire(c).await
}

/// runc writes its PID file under another name, which must not exist, and renames it.
async fn a_runtime_killed_while_it_wrote_its_pid_file_breaks_no_later_exec(
    lab: &Lab,
) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    for slot in 0..4 {
        std::fs::write(c.bundle.path.join(format!(".exec-{slot}.pid")), "")?;
    }
    // The first may fail: its runtime is the one that was killed.
    lab.add_exec(&c, "leaf", &["true"], &Streams::Null).await?;
    c.task().start("birch", "leaf").await.ok();
    lab.exec(&c, "twig", &["true"], Streams::Null).await?;
    let waited = within("Wait", c.task().wait("birch", "twig")).await??;
    ensure!(waited.exit_status == 0, "{waited:?}");
    lab.retire(c).await
}

async fn a_garbled_exec_spec_is_refused(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let mut request = c.exec_request("leaf", &["true"], &Streams::Null, &Stdio::default());
    let url = "types.containerd.io/opencontainers/runtime-spec/1/Process";
    request.spec = Some(any(url, b"{\"args\": [".to_vec())).into();
    refused(c.task().exec(&request).await, Code::UNKNOWN, "leaf")?;
    refused(c.task().state("birch", "leaf").await, Code::NOT_FOUND, "leaf")?;
    lab.retire(c).await
}

async fn an_exec_into_a_stopped_container_is_refused(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    c.kill(libc::SIGKILL).await?;
    within("Wait", c.wait()).await??;
    let request = c.exec_request("leaf", &["true"], &Streams::Null, &Stdio::default());
    refused(c.task().exec(&request).await, Code::UNKNOWN, "birch")?;
    lab.retire(c).await
}

async fn the_end_of_the_init_ends_its_execs(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Null).await?;
    c.kill(libc::SIGKILL).await?;
    within("Wait", c.wait()).await??;
    let leaf = within("Wait of the exec", c.task().wait("birch", "leaf")).await??;
    ensure!(leaf.exit_status == 137, "{leaf:?}");
    lab.retire(c).await
}

async fn a_wait_for_a_process_deleted_unstarted_is_answered(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.sleeper("birch")).await?;
    lab.add_exec(&c, "leaf", &["true"], &Streams::Null).await?;
    lab.add_exec(&c, "twig", &["true"], &Streams::Null).await?;
    let mut waits = tokio::task::JoinSet::new();
    for exec in ["leaf", "twig", ""] {
        let task = c.task().clone();
        waits.spawn(async move { task.wait("birch", exec).await.map(drop) });
    }
    // One exec goes by its own Delete, the other with the container; an early Delete makes the Wait NOT_FOUND.
    c.task().delete("birch", "leaf").await?;
    c.delete().await?;
    while let Some(answer) = within("Wait", waits.join_next()).await? {
        if let Err(err) = answer? {
            ensure!(err.code.is_some(), "a Wait was never answered: {err}");
        }
    }
    lab.dismiss(c).await
}

async fn an_exec_keeps_its_own_environment_and_user(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let io = Stdio::prepare(&lab.scratch.path("io"), "leaf", &Streams::Output)?;
    let mut request = c.exec_request("leaf", &[], &Streams::Output, &io);
    let process = serde_json::json!({
        "args": ["sh", "-c", "echo $COLOUR $(id -u) $(pwd)"], "env": ["PATH=/bin", "COLOUR=green"],
        "cwd": "/tmp", "user": {"uid": 1000, "gid": 1000},
    });
    request.spec.as_mut().expect("set above").value = process.to_string().into_bytes();
    c.task().exec(&request).await?;
    c.task().start("birch", "leaf").await?;
    ensure!(io.stdout_text().await? == "green 1000 /tmp\n");
    ensure!(within("Wait", c.task().wait("birch", "leaf")).await??.exit_status == 0);
    lab.retire(c).await
}

async fn twenty_execs_at_once_each_report_their_own_exit(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let mut running = tokio::task::JoinSet::new();
    for code in 0..20u32 {
        let id = format!("leaf{code}");
        let script = format!("exit {code}");
        let request =
            c.exec_request(&id, &["sh", "-c", &script], &Streams::Null, &Stdio::default());
        let task = c.task().clone();
        running.spawn(async move {
            task.exec(&request).await?;
            task.start("birch", &id).await?;
            let waited = task.wait("birch", &id).await?.exit_status;
            let deleted = task.delete("birch", &id).await?.exit_status;
            ensure!(waited == code && deleted == code, "{id}: waited {waited}, deleted {deleted}");
            Ok(())
        });
    }
    while let Some(done) = within("execs", running.join_next()).await? {
        done??;
    }
    ensure!(c.task().pids("birch").await? == [c.pid]);
    lab.retire(c).await
}

async fn a_hundred_fast_execs_all_report_their_exit(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    for round in 0..100 {
        let id = format!("leaf{round}");
        lab.exec(&c, &id, &["true"], Streams::Null).await?;
        ensure!(within("Wait", c.task().wait("birch", &id)).await??.exit_status == 0);
        let exit = lab.events.of("birch", "exit", &id).await?;
        ensure!(exit.status == 0, "{exit:?}");
        c.task().delete("birch", &id).await?;
    }
    lab.retire(c).await
}

async fn a_process_orphaned_in_a_container_becomes_no_zombie_of_the_shim(lab: &Lab) -> Result<()> {
    let mut launch = lab.sleeper("birch");
    // In a PID namespace of its own the container's init would be the subreaper.
    launch.spec = launch.spec.host_pid();
    let c = lab.run(launch).await?;
    // The exec leaves a child behind, which falls to the shim and is ended there.
    let script = "sleep 100000 </dev/null >/dev/null 2>&1 & echo $!";
    let leaf = lab.exec(&c, "leaf", &["sh", "-c", script], Streams::Output).await?;
    let orphan: u32 = leaf.io.stdout_text().await?.trim().parse()?;
    within("Wait", c.task().wait("birch", "leaf")).await??;
    c.task().delete("birch", "leaf").await?;
    eventually("the orphan falls to the shim", || {
        Ok(machine::children(c.shim.pid).iter().any(|row| row.pid == orphan).then_some(()))
    })
    .await?;
    let held = Process::open(orphan).context("the orphan lives")?;
    ensure!(held.signal(libc::SIGKILL));
    held.exited().await?;
    eventually("the orphan is reaped", || Ok(machine::process(orphan).is_none().then_some(())))
        .await?;
    lab.retire(c).await
}

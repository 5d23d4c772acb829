//! Create, Start, State, Wait, Delete, Connect and Shutdown of one container: the way through, and its
//! refusals. Must not know stdio or events beyond what a step needs.

use anyhow::{Result, ensure};
use containerd_shim_protos::api::{CheckpointTaskRequest, Status};
use integration_tests::deadline::{Process, within};
use integration_tests::lab::{Lab, NAMESPACE};
use integration_tests::runtime;
use integration_tests::stdio::{Stdio, Streams};
use integration_tests::suite::Suite;
use integration_tests::task::{self, refused, refused_as};
use integration_tests::trials;
use ttrpc::Code;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "lifecycle",
        [
            a_container_goes_from_created_to_deleted,
            the_runtime_under_test_is_the_one_that_is_called,
            every_call_on_an_unknown_container_is_not_found,
            connect_tells_the_shim_and_the_init,
            a_created_container_can_be_deleted_without_a_start,
            a_second_start_is_refused_and_the_task_runs_on,
            delete_of_a_running_task_is_refused_and_the_task_runs_on,
            a_duplicate_container_id_is_refused_and_the_first_runs_on,
            every_waiter_gets_the_exit_status_and_so_does_a_late_one,
            exit_codes_arrive_as_they_are,
            an_init_that_cannot_be_executed_fails_create,
            shutdown_is_ignored_while_a_container_remains,
            shutdown_ends_the_shim_and_removes_its_socket,
            an_unknown_service_or_method_is_unimplemented,
            a_garbled_request_is_refused_and_the_shim_answers_on,
            both_names_of_the_task_service_answer_on_one_socket,
            state_tells_what_create_was_given,
            a_hundred_fast_inits_all_report_their_exit,
        ]
    );
}

async fn a_container_goes_from_created_to_deleted(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.shell("birch", "exit 7")).await?;
    ensure!(c.status().await? == Status::CREATED);
    let pid = c.start().await?;
    ensure!(pid == c.pid, "Start says {pid}, Create said {}", c.pid);
    ensure!(within("Wait", c.wait()).await?? == 7);
    let state = c.task().state("birch", "").await?;
    ensure!(task::status_of(&state) == Status::STOPPED, "{state:?}");
    ensure!(state.exit_status == 7 && state.pid == pid && state.exited_at.is_some(), "{state:?}");
    let deleted = c.delete().await?;
    ensure!(deleted.exit_status == 7 && deleted.pid == pid, "{deleted:?}");
    ensure!(deleted.exited_at == state.exited_at, "{deleted:?} {state:?}");
    refused(c.task().state("birch", "").await, Code::NOT_FOUND, "birch")?;
    lab.dismiss(c).await
}

async fn the_runtime_under_test_is_the_one_that_is_called(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    ensure!(runtime::keeps(&lab.runtime_root().join(NAMESPACE).join("birch")));
    lab.retire(c).await
}

async fn every_call_on_an_unknown_container_is_not_found(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.sleeper("birch")).await?;
    let task = c.task();
    let unknown = Code::NOT_FOUND;
    refused(task.state("nobody", "").await, unknown, "nobody")?;
    refused(task.start("nobody", "").await, unknown, "nobody")?;
    refused(task.delete("nobody", "").await, unknown, "nobody")?;
    refused(task.pids("nobody").await, unknown, "nobody")?;
    refused(task.pause("nobody").await, unknown, "nobody")?;
    let checkpoint = CheckpointTaskRequest { id: "nobody".into(), ..Default::default() };
    refused(task.checkpoint(&checkpoint).await, unknown, "nobody")?;
    refused(task.resume("nobody").await, unknown, "nobody")?;
    refused(task.kill("nobody", "", 9, false).await, unknown, "nobody")?;
    refused(task.wait("nobody", "").await, unknown, "nobody")?;
    refused(task.resize("nobody", "", 80, 24).await, unknown, "nobody")?;
    refused(task.close_stdin("nobody", "").await, unknown, "nobody")?;
    refused(task.update("nobody", &serde_json::json!({})).await, unknown, "nobody")?;
    refused(task.stats("nobody").await, unknown, "nobody")?;
    let mut exec = c.exec_request("e", &["true"], &Streams::Null, &Stdio::default());
    exec.id = "nobody".into();
    refused(task.exec(&exec).await, unknown, "nobody")?;
    lab.retire(c).await
}

async fn connect_tells_the_shim_and_the_init(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let answer = c.task().connect_to("birch").await?;
    ensure!(answer.task_pid == c.pid, "{answer:?}");
    let binary = std::fs::read_link(format!("/proc/{}/exe", answer.shim_pid))?;
    ensure!(binary == lab.under_test.shim, "{}", binary.display());
    let nobody = c.task().connect_to("nobody").await?;
    ensure!(nobody.shim_pid == answer.shim_pid && nobody.task_pid == 0, "{nobody:?}");
    lab.retire(c).await
}

async fn a_created_container_can_be_deleted_without_a_start(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.sleeper("birch")).await?;
    let init = Process::open(c.pid);
    c.delete().await?;
    if let Some(init) = init {
        init.exited().await?;
    }
    refused(c.task().state("birch", "").await, Code::NOT_FOUND, "birch")?;
    lab.dismiss(c).await
}

async fn a_second_start_is_refused_and_the_task_runs_on(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    refused(c.start().await, Code::UNKNOWN, "birch")?;
    ensure!(c.status().await? == Status::RUNNING);
    c.kill(libc::SIGKILL).await?;
    within("Wait", c.wait()).await??;
    refused(c.start().await, Code::UNKNOWN, "birch")?;
    lab.retire(c).await
}

async fn delete_of_a_running_task_is_refused_and_the_task_runs_on(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    refused(c.delete().await, Code::UNKNOWN, "birch")?;
    ensure!(c.status().await? == Status::RUNNING);
    ensure!(c.task().pids("birch").await? == [c.pid]);
    lab.retire(c).await
}

async fn a_duplicate_container_id_is_refused_and_the_first_runs_on(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let request = lab.create_request(&lab.sleeper("birch"), &c.bundle, &Stdio::default());
    refused_as(c.task().create(&request).await, &[Code::UNKNOWN, Code::ALREADY_EXISTS], "birch")?;
    ensure!(c.status().await? == Status::RUNNING);
    ensure!(c.task().pids("birch").await? == [c.pid]);
    lab.retire(c).await
}

async fn every_waiter_gets_the_exit_status_and_so_does_a_late_one(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let task = c.task().clone();
        waiters.spawn(async move { task.wait("birch", "").await });
    }
    c.kill(libc::SIGKILL).await?;
    let first = within("Wait", c.task().wait("birch", "")).await??;
    while let Some(answer) = within("Wait", waiters.join_next()).await? {
        let answer = answer??;
        ensure!(answer == first && answer.exit_status == 137, "{answer:?} {first:?}");
    }
    let late = within("Wait after exit", c.task().wait("birch", "")).await??;
    ensure!(late == first, "{late:?} {first:?}");
    lab.retire(c).await
}

async fn exit_codes_arrive_as_they_are(lab: &Lab) -> Result<()> {
    for code in [0, 1, 126, 127, 128, 200, 255] {
        let c = lab.run(lab.shell(&format!("birch{code}"), &format!("exit {code}"))).await?;
        let got = within("Wait", c.wait()).await??;
        ensure!(got == code, "exit {code} came as {got}");
        lab.retire(c).await?;
    }
    Ok(())
}

async fn an_init_that_cannot_be_executed_fails_create(lab: &Lab) -> Result<()> {
    let launch = lab.launch("birch", lab.spec("birch", &["no-such-program"]));
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    let shim = lab.start_shim(&bundle, &Default::default()).await?;
    let created = lab.create_in(shim.clone(), bundle.clone(), launch).await?;
    refused(created.map(|c| c.pid), Code::UNKNOWN, "no-such-program")?;
    refused(shim.task.state("birch", "").await, Code::NOT_FOUND, "birch")?;
    lab.dismiss_shim(&shim, &bundle).await
}

async fn shutdown_is_ignored_while_a_container_remains(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    c.task().shutdown("birch").await?;
    ensure!(c.status().await? == Status::RUNNING);
    c.kill(libc::SIGKILL).await?;
    within("Wait", c.wait()).await??;
    c.task().shutdown("birch").await?;
    ensure!(c.status().await? == Status::STOPPED);
    lab.retire(c).await
}

async fn shutdown_ends_the_shim_and_removes_its_socket(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.sleeper("birch")).await?;
    let shim = Process::open(c.shim.pid);
    let socket = c.shim.reply.socket();
    ensure!(socket.exists());
    c.delete().await?;
    c.task().shutdown("birch").await.ok();
    if let Some(shim) = shim {
        shim.exited().await?;
    }
    ensure!(!socket.exists(), "{} is left", socket.display());
    lab.bury(&c.bundle).await?;
    Ok(())
}

async fn an_unknown_service_or_method_is_unimplemented(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.sleeper("birch")).await?;
    let nothing = task::Empty::new();
    let answer = c.task().call::<_, task::Empty>("Levitate", &nothing).await;
    refused(answer, Code::UNIMPLEMENTED, "Levitate")?;
    let sandbox = c.task().named("containerd.runtime.sandbox.v1.Sandbox");
    let answer = sandbox.call::<_, task::Empty>("StartSandbox", &nothing).await;
    refused(answer, Code::UNIMPLEMENTED, "Sandbox")?;
    lab.retire(c).await
}

async fn a_garbled_request_is_refused_and_the_shim_answers_on(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.sleeper("birch")).await?;
    // Field 1 of every request is a string: here its bytes are no UTF-8, and its length is too long.
    let mut garbled = task::Empty::new();
    garbled.special_fields.mut_unknown_fields().add_length_delimited(1, vec![0xff, 0xfe]);
    let answer = c.task().call::<_, task::Empty>("State", &garbled).await;
    ensure!(answer.is_err(), "{answer:?}");
    ensure!(c.status().await? == Status::CREATED);
    lab.retire(c).await
}

async fn both_names_of_the_task_service_answer_on_one_socket(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    for service in [task::V2, task::V3] {
        let pid = c.task().named(service).state("birch", "").await?.pid;
        ensure!(pid == c.pid, "{service}: {pid}");
    }
    lab.retire(c).await
}

async fn state_tells_what_create_was_given(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.shell("birch", "true")).await?;
    let state = c.task().state("birch", "").await?;
    ensure!(state.id == "birch" && state.exec_id.is_empty() && !state.terminal, "{state:?}");
    ensure!(state.bundle == c.bundle.path.display().to_string(), "{state:?}");
    ensure!(state.stdout == c.io.stdout_path && state.stderr == c.io.stderr_path, "{state:?}");
    ensure!(state.pid == c.pid, "{state:?}");
    lab.retire(c).await
}

async fn a_hundred_fast_inits_all_report_their_exit(lab: &Lab) -> Result<()> {
    let keeper = lab.run(pod(lab.sleeper("keeper"))).await?;
    for round in 0..100 {
        let id = format!("fast{round}");
        let mut launch = pod(lab.launch(&id, lab.spec(&id, &["true"])));
        launch.streams = Streams::Null;
        let c = lab.run(launch).await?;
        ensure!(within("Wait", c.wait()).await?? == 0);
        c.delete().await?;
        lab.dismiss(c).await?;
    }
    for round in 0..100 {
        let id = format!("fast{round}");
        lab.events.exit(&id).await?;
        let exits = lab.events.labels(&id).iter().filter(|label| label.starts_with("exit")).count();
        ensure!(exits == 1, "{id}: {exits} exits");
    }
    lab.retire(keeper).await
}

fn pod(mut launch: integration_tests::lab::Launch) -> integration_tests::lab::Launch {
    launch.spec = launch.spec.in_pod("keeper");
    launch
}

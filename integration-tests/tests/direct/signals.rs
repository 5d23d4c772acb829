//! Kill: every signal number, to the init, to an exec, to all, and to a paused container. Must not know
//! how a shim sends them.

use anyhow::{Result, ensure};
use containerd_shim_protos::api::Status;
use integration_tests::deadline::{Process, eventually, within};
use integration_tests::lab::Lab;
use integration_tests::stdio::Streams;
use integration_tests::suite::Suite;
use integration_tests::task::refused;
use integration_tests::trials;
use ttrpc::Code;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "signals",
        [
            every_deadly_signal_ends_an_exec_with_128_and_its_number,
            an_init_gets_ordinary_and_real_time_signals,
            an_init_killed_by_a_signal_reports_128_and_its_number,
            a_signal_number_out_of_range_is_refused,
            kill_all_reaches_the_children_and_kill_alone_does_not,
            sigkill_ends_a_paused_container,
            a_created_container_can_be_killed,
            a_stopped_container_cannot_be_killed,
            an_exec_that_has_exited_cannot_be_killed,
        ]
    );
}

/// Signals whose default action ends a process: all but those that stop, continue or do nothing, and the
/// two that the C library keeps to itself.
fn deadly_signals() -> impl Iterator<Item = i32> {
    let harmless = [
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGURG,
        libc::SIGWINCH,
        32,
        33,
    ];
    (1..=64).filter(move |signal| !harmless.contains(signal))
}

async fn every_deadly_signal_ends_an_exec_with_128_and_its_number(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    for signal in deadly_signals() {
        let id = format!("leaf{signal}");
        let leaf = lab.exec(&c, &id, &["sleep", "100000"], Streams::Null).await?;
        // Until its exec the process is runc's, which handles some signals itself.
        is_running(leaf.pid, "sleep").await?;
        c.task().kill("birch", &id, signal as u32, false).await?;
        let status = within("Wait", c.task().wait("birch", &id)).await??.exit_status;
        ensure!(status == 128 + signal as u32, "signal {signal} gave {status}");
        c.task().delete("birch", &id).await?;
    }
    lab.retire(c).await
}

async fn is_running(pid: u32, name: &str) -> Result<()> {
    eventually(&format!("process {pid} is {name}"), || {
        let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Ok((command.trim() == name).then_some(()))
    })
    .await
}

async fn an_init_gets_ordinary_and_real_time_signals(lab: &Lab) -> Result<()> {
    // A shell's wait ends at each trapped signal; the loop ends with the last one.
    let script = "for n in 1 2 10 15 34 50 64; do trap \"echo got $n\" $n; done
        trap 'echo done; exit 0' 12; sleep 100000 & echo ready; while :; do wait; done";
    let c = lab.run(lab.shell("birch", script)).await?;
    let out = c.io.stdout.as_ref().expect("captured");
    out.shows("ready").await?;
    for signal in [1, 2, 10, 15, 34, 50, 64] {
        c.kill(signal).await?;
        out.shows(&format!("got {signal}\n")).await?;
    }
    c.kill(12).await?;
    ensure!(within("Wait", c.wait()).await?? == 0);
    ensure!(out.text_to_end().await?.ends_with("done\n"));
    lab.retire(c).await
}

async fn an_init_killed_by_a_signal_reports_128_and_its_number(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    c.kill(libc::SIGKILL).await?;
    ensure!(within("Wait", c.wait()).await?? == 137);
    let exit = lab.events.exit("birch").await?;
    ensure!(exit.status == 137 && exit.pid == c.pid, "{exit:?}");
    lab.retire(c).await
}

async fn a_signal_number_out_of_range_is_refused(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Null).await?;
    for exec in ["", "leaf"] {
        refused(c.task().kill("birch", exec, 4000, false).await, Code::UNKNOWN, "4000")?;
        ensure!(c.task().status("birch", exec).await? == Status::RUNNING);
    }
    lab.retire(c).await
}

async fn kill_all_reaches_the_children_and_kill_alone_does_not(lab: &Lab) -> Result<()> {
    // The shell goes on when both its children are gone, however often a signal ends its wait.
    let script = "sleep 100000 & a=$!; sleep 100000 & b=$!; trap 'echo got' USR1; echo ready
        while kill -0 $a || kill -0 $b; do wait; done 2>/dev/null; echo alone; exec sleep 100000";
    let c = lab.run(lab.shell("birch", script)).await?;
    let out = c.io.stdout.as_ref().expect("captured");
    out.shows("ready").await?;
    c.kill(libc::SIGUSR1).await?;
    out.shows("got\n").await?;
    let before = c.task().pids("birch").await?;
    ensure!(before.len() == 3, "{before:?}");
    c.task().kill("birch", "", libc::SIGUSR1 as u32, true).await?;
    out.shows("alone").await?;
    ensure!(c.status().await? == Status::RUNNING);
    lab.retire(c).await
}

async fn sigkill_ends_a_paused_container(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    c.task().pause("birch").await?;
    ensure!(c.status().await? == Status::PAUSED);
    c.kill(libc::SIGKILL).await?;
    ensure!(within("Wait", c.wait()).await?? == 137);
    lab.retire(c).await
}

async fn a_created_container_can_be_killed(lab: &Lab) -> Result<()> {
    let c = lab.create(lab.sleeper("birch")).await?;
    let init = Process::open(c.pid);
    c.kill(libc::SIGKILL).await?;
    if let Some(init) = init {
        init.exited().await?;
    }
    ensure!(within("Wait", c.wait()).await?? == 137);
    lab.retire(c).await
}

async fn a_stopped_container_cannot_be_killed(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.shell("birch", "true")).await?;
    within("Wait", c.wait()).await??;
    refused(c.kill(libc::SIGTERM).await, Code::NOT_FOUND, "birch")?;
    lab.retire(c).await
}

async fn an_exec_that_has_exited_cannot_be_killed(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.exec(&c, "leaf", &["true"], Streams::Null).await?;
    within("Wait", c.task().wait("birch", "leaf")).await??;
    refused(c.task().kill("birch", "leaf", 15, false).await, Code::NOT_FOUND, "leaf")?;
    lab.retire(c).await
}

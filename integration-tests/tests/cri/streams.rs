//! Exec and Attach with their streams, as `kubectl exec` and `kubectl attach` use them.

use anyhow::{Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::cri::Cri;
use integration_tests::cri::messages::RUNNING;
use integration_tests::cri::pod::Pod;
use integration_tests::cri::streaming::{AttachRequest, ExecRequest, Streams};
use integration_tests::wait;

const SLEEP: [&str; 2] = ["sleep", "10000"];

fn exec(cri: &Cri, id: &str, script: &str, stdin: bool) -> Result<Streams> {
    let url = cri.exec(ExecRequest {
        container_id: id.to_owned(),
        cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
        tty: false,
        stdin,
        stdout: true,
        stderr: true,
    })?;
    ensure!(url.contains("/exec/"), "{url}");
    Streams::open(&url)
}

pub fn an_execs_streams_and_exit_code_come_over_websocket(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let id = pod.run("main", &SLEEP)?;
    let mut streams = exec(&cri, &id, "echo out; echo err >&2; exit 6", false)?;
    ensure!(streams.exit_code()? == 6, "{streams:?}");
    ensure!(streams.stdout == b"out\n" && streams.stderr == b"err\n", "{streams:?}");
    let mut streams = exec(&cri, &id, "seq 20000", false)?;
    ensure!(streams.exit_code()? == 0, "{streams:?}");
    let lines = streams.stdout.split(|byte| *byte == b'\n').count() - 1;
    ensure!(lines == 20_000 && streams.stderr.is_empty(), "{lines} lines");
    pod.remove(&[&id])
}

pub fn an_exec_reads_what_is_streamed_to_it(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let id = pod.run("main", &SLEEP)?;
    let script = "read one; echo \"first $one\"; read two; echo \"then $two\"; exit 4";
    let mut streams = exec(&cri, &id, script, true)?;
    streams.write("ash\n")?;
    streams.write("elm\n")?;
    ensure!(streams.exit_code()? == 4, "{streams:?}");
    ensure!(streams.stdout == b"first ash\nthen elm\n", "{streams:?}");
    pod.remove(&[&id])
}

pub fn a_terminal_is_attached_to_again_after_a_detach(stage: &Stage) -> Result<()> {
    attached_twice(stage, true)
}

pub fn pipes_are_attached_to_again_after_a_detach(stage: &Stage) -> Result<()> {
    attached_twice(stage, false)
}

fn attached_twice(stage: &Stage, tty: bool) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let script =
        "while read word; do test -t 0 && on=a.terminal || on=pipes; echo \"$on: $word!\"; done";
    let id = pod.run_adjusted("parrot", &["sh", "-c", script], |config| {
        config.stdin = true;
        config.tty = tty;
    })?;
    let attach = || {
        let url = cri.attach(AttachRequest {
            container_id: id.clone(),
            stdin: true,
            tty,
            stdout: true,
            stderr: !tty,
        })?;
        ensure!(url.contains("/attach/"), "{url}");
        Streams::open(&url)
    };
    let on = if tty { "a.terminal" } else { "pipes" };
    let mut first = attach()?;
    first.ask("ash\n", &format!("{on}: ash!"))?;
    first.hang_up()?;
    ensure!(cri.container_status(&id)?.state == RUNNING, "a detach ends nothing");
    let mut second = attach()?;
    second.ask("elm\n", &format!("{on}: elm!"))?;
    second.hang_up()?;
    // The log has both, whoever was attached.
    wait::until("both answers in the log", || {
        let log = pod.log("parrot");
        ["ash!", "elm!"].iter().all(|word| log.contains(word)).then_some(())
    })?;
    pod.remove(&[&id])
}

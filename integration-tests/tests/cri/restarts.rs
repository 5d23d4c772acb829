//! Pods live on while containerd is away.

use std::fs::File;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::Containerd;
use integration_tests::containerd::stage::Stage;
use integration_tests::cri::Cri;
use integration_tests::cri::messages::{Mount, RUNNING};
use integration_tests::cri::pod::Pod;
use integration_tests::deadline::{Process, STUCK};
use integration_tests::under_test::reference;
use integration_tests::wait;
use nix::sys::stat::Mode;

pub fn pods_outlive_a_restart_of_containerd(stage: &Stage) -> Result<()> {
    outlive(stage, Containerd::stop)
}

pub fn pods_outlive_a_killed_containerd(stage: &Stage) -> Result<()> {
    outlive(stage, Containerd::kill)
}

/// What a container writes while containerd is away is in its log afterwards, and the exit of one
/// that ended meanwhile is known. Both are told what to do through fifos of the test's.
fn outlive(stage: &Stage, end: fn(&Containerd) -> Result<()>) -> Result<()> {
    let containerd = stage.own()?;
    let cri = Cri::connect(&containerd.socket())?;
    let orders = containerd.scratch.folder("orders")?;
    for name in ["talker", "leaver"] {
        nix::unistd::mkfifo(&orders.join(name), Mode::from_bits_truncate(0o666))?;
    }
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let run = |name: &str, script: &str| {
        pod.run_adjusted(name, &["sh", "-c", script], |config| {
            config.mounts = vec![Mount {
                container_path: "/orders".to_owned(),
                host_path: orders.to_string_lossy().into_owned(),
            }];
        })
    };
    let talker = run(
        "talker",
        "echo before; exec 3<>/orders/talker; while read word <&3; do echo \"$word\"; done",
    )?;
    let leaver = run("leaver", "read code </orders/leaver; exit $code")?;
    wait::until("the first line", || pod.log("talker").contains("before").then_some(()))?;
    let leaving = Process::open(pod.pid_of(&leaver)?).context("the leaver's process")?;
    let talking = pod.pid_of(&talker)?;
    let shim = pod.shim_of(&talker)?;

    end(&containerd)?;
    // Opened for both directions, a fifo waits for nobody, and keeps what was written until its
    // reader comes.
    let order = |name: &str| File::options().read(true).write(true).open(orders.join(name));
    let (mut to_talker, mut to_leaver) = (order("talker")?, order("leaver")?);
    to_talker.write_all(b"meanwhile\n")?;
    to_leaver.write_all(b"11\n")?;
    ensure!(leaving.exited_within(STUCK), "a container ends without containerd");
    ensure!(Process::open(talking).is_some(), "the other one runs on");

    containerd.launch()?;
    cri.wait_until_ready()?;
    ensure!(cri.container_status(&talker)?.state == RUNNING, "still running after the restart");
    ensure!(pod.pid_of(&talker)? == talking, "the same process");
    ensure!(pod.shim_of(&talker)?.pid == shim.pid, "the same shim");
    to_talker.write_all(b"afterwards\n")?;
    let log = wait::until("the last line", || {
        let log = pod.log("talker");
        log.contains("afterwards").then_some(log)
    })?;
    let texts: Vec<_> = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    ensure!(texts == ["before", "meanwhile", "afterwards"], "{log}");
    ensure!(
        cri.exec_sync(&talker, &["echo", "hi"], 0)?.stdout == b"hi\n",
        "exec after the restart"
    );
    let status = cri.exited(&leaver)?;
    // Since 1.7 containerd, when it starts, takes a shim whose Pids lacks the container for leaked
    // and forgets the exit. The reference's does; Berth's does not.
    let forgets = reference() && stage.installation.series > (1, 6);
    let wanted = if forgets { 255 } else { 11 };
    ensure!(status.exit_code == wanted, "{status:?}");
    pod.remove(&[&talker, &leaver])
}

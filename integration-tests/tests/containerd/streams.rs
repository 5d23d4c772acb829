//! Standard streams: terminals, attaching, input's end, much output, log files.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::{BERTH, Task};
use integration_tests::wait;
use nix::pty::{Winsize, openpty};

pub fn a_terminal_has_its_size_and_carries_input(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::named(&containerd, "terminal");
    let size = Winsize { ws_row: 41, ws_col: 97, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None)?;
    let end = || pty.slave.try_clone().map(Stdio::from);
    // ctr sets the size after the start: the container asks for it once the first line of input has
    // come.
    let script = "echo ready; read word; until [ \"$(stty size)\" = '41 97' ]; do :; done; \
                  tty; echo \"sized, got $word\"; exit 5";
    let mut ctr = task
        .command(BERTH, &["--rm", "--tty"], &["sh", "-c", script])
        .stdin(end()?)
        .stdout(end()?)
        .stderr(end()?)
        .spawn()?;
    drop(pty.slave);
    let mut terminal = File::from(pty.master);
    let mut shown = String::new();
    let mut typed = false;
    let mut chunk = [0; 4096];
    // Reading ends with EIO when the last holder of the other side, ctr, is gone.
    while let Ok(length) = terminal.read(&mut chunk) {
        shown += &String::from_utf8_lossy(&chunk[..length]);
        if !typed && shown.contains("ready") {
            terminal.write_all(b"typed\n")?;
            typed = true;
        }
    }
    let status = ctr.wait()?;
    ensure!(shown.contains("/dev/") && shown.contains("sized, got typed"), "{shown:?}");
    ensure!(status.code() == Some(5), "{status}: {shown:?}");
    task.removed()
}

pub fn output_of_a_detached_container_waits_for_the_one_who_attaches(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let script = "read word; echo \"first $word\"; read word; echo \"second $word\"; exit 9";
    let task = Task::detached(&containerd, "attached", &[], &["sh", "-c", script])?;
    task.type_in("one\n")?;
    let ctr = task
        .ctr
        .command(&["task", "attach", &task.id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = ctr.stdin.as_ref().context("a pipe")?;
    input.write_all(b"two\n")?;
    let output = ctr.wait_with_output()?;
    let shown = String::from_utf8_lossy(&output.stdout);
    ensure!(shown == "first one\nsecond two\n", "{output:?}");
    ensure!(output.status.code() == Some(9), "{output:?}");
    // The one who was attached has deleted the task.
    task.removed()
}

pub fn input_ends_when_the_caller_closes_it(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::detached(&containerd, "input", &[], &["sleep", "10000"])?;
    let mut ctr = task
        .exec_command(&["sh", "-c", "cat; echo end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    ctr.stdin.take().context("a pipe")?.write_all(b"all there is\n")?;
    let output = ctr.wait_with_output()?;
    let shown = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && shown == "all there is\nend\n", "{output:?}");
    task.end()
}

pub fn much_output_arrives_whole(stage: &Stage) -> Result<()> {
    const LINES: usize = 400_000;
    let containerd = stage.containerd()?;
    let task = Task::named(&containerd, "much");
    let said = task.foreground(BERTH, &["--rm"], &["seq", &LINES.to_string()])?;
    ensure!(said.code() == 0, "{}", said.err);
    let wrong = said.out.lines().zip(1..).find(|(line, number)| *line != number.to_string());
    ensure!(wrong.is_none(), "out of order: {wrong:?}");
    ensure!(said.out.lines().count() == LINES, "{} lines", said.out.lines().count());
    task.removed()
}

pub fn a_log_file_gets_the_output(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let task = Task::named(&containerd, "logged");
    let log = containerd.scratch.path(format!("{}.log", task.id));
    let uri = format!("file://{}", log.display());
    // ctr only takes a log for a container that it leaves to itself.
    let flags = ["--detach", "--log-uri", uri.as_str()];
    let said = task.foreground(BERTH, &flags, &["sh", "-c", "echo to the file; echo both >&2"])?;
    ensure!(said.code() == 0, "{said:?}");
    task.stopped()?;
    ensure!(task.delete()? == 0, "exit code");
    let complete = |text: &String| text.contains("to the file\n") && text.contains("both\n");
    let text = wait::until("the log file", || fs::read_to_string(&log).ok().filter(complete))?;
    ensure!(text.len() == "to the file\nboth\n".len(), "{text:?}");
    task.removed()
}

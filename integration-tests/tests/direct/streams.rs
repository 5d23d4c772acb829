//! stdio through fifos: separate, whole, in order, kept while nobody reads, ended only by CloseIO; and
//! terminals. Must not know logger URIs (see loggers.rs).

use anyhow::{Context, Result, ensure};
use integration_tests::deadline::{eventually, within};
use integration_tests::lab::{Container, Lab, Launch};
use integration_tests::stdio::{Capture, Streams};
use integration_tests::suite::Suite;
use integration_tests::trials;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "streams",
        [
            stdout_and_stderr_arrive_apart,
            twenty_mebibytes_arrive_whole_and_in_order,
            twenty_mebibytes_of_an_exec_arrive_whole_and_in_order,
            stdin_goes_on_until_close_io,
            stdin_of_an_exec_goes_on_until_close_io,
            stdin_closed_before_the_start_ends_once_it_is_read,
            stdin_of_twenty_mebibytes_arrives_whole,
            a_reader_may_detach_and_come_back,
            output_waits_for_a_reader_that_comes_late,
            delete_waits_for_a_slow_reader,
            a_container_without_stdio_reads_the_end_and_writes_nowhere,
            output_of_a_child_that_outlives_an_exec_does_not_hold_its_exit,
            a_terminal_echoes_and_resizes,
            an_exec_on_a_terminal_echoes_and_resizes,
            resize_without_a_terminal_is_refused_or_ignored,
        ]
    );
}

fn with(launch: Launch, streams: Streams) -> Launch {
    Launch { streams, ..launch }
}

async fn stdout_and_stderr_arrive_apart(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.shell("birch", "echo one; echo two >&2; echo three")).await?;
    ensure!(c.io.stdout_text().await? == "one\nthree\n");
    ensure!(c.io.stderr_text().await? == "two\n");
    lab.retire(c).await
}

const MANY: &str = "seq 1 10000000 | head -c 20971520";

/// What [`MANY`] writes.
fn many() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20_971_520 + 16);
    for n in 1.. {
        if bytes.len() >= 20_971_520 {
            break;
        }
        bytes.extend_from_slice(format!("{n}\n").as_bytes());
    }
    bytes.truncate(20_971_520);
    bytes
}

fn ensure_many(got: &[u8]) -> Result<()> {
    let want = many();
    ensure!(got.len() == want.len(), "{} of {} bytes came", got.len(), want.len());
    let first_wrong = got.iter().zip(&want).position(|(got, want)| got != want);
    ensure!(first_wrong.is_none(), "wrong from byte {first_wrong:?}");
    Ok(())
}

async fn twenty_mebibytes_arrive_whole_and_in_order(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.shell("birch", MANY)).await?;
    ensure_many(&c.io.stdout.as_ref().context("captured")?.to_end().await?)?;
    ensure!(within("Wait", c.wait()).await?? == 0);
    lab.retire(c).await
}

async fn twenty_mebibytes_of_an_exec_arrive_whole_and_in_order(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let leaf = lab.exec(&c, "leaf", &["sh", "-c", MANY], Streams::Output).await?;
    ensure_many(&leaf.io.stdout.as_ref().context("captured")?.to_end().await?)?;
    within("Wait", c.task().wait("birch", "leaf")).await??;
    c.task().delete("birch", "leaf").await?;
    lab.retire(c).await
}

async fn stdin_goes_on_until_close_io(lab: &Lab) -> Result<()> {
    let script = "while read line; do echo \"<$line>\"; done; echo ended";
    let mut c = lab.run(with(lab.shell("birch", script), Streams::All)).await?;
    let out = c.io.stdout.take().context("captured")?;
    let mut input = c.io.stdin.take().context("open")?;
    input.write("first\n").await?;
    out.shows("<first>\n").await?;
    // A client that goes away is not the end of input: another one comes and writes on.
    drop(input);
    let mut input = integration_tests::stdio::Input::open(c.io.stdin_path.as_ref())?;
    input.write("second\n").await?;
    out.shows("<second>\n").await?;
    drop(input);
    c.task().close_stdin("birch", "").await?;
    ensure!(out.text_to_end().await? == "<first>\n<second>\nended\n");
    ensure!(within("Wait", c.wait()).await?? == 0);
    lab.retire(c).await
}

async fn stdin_of_an_exec_goes_on_until_close_io(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let mut leaf = lab.exec(&c, "leaf", &["cat"], Streams::All).await?;
    let out = leaf.io.stdout.take().context("captured")?;
    let mut input = leaf.io.stdin.take().context("open")?;
    input.write("words\n").await?;
    out.shows("words\n").await?;
    drop(input);
    c.task().close_stdin("birch", "leaf").await?;
    ensure!(within("Wait", c.task().wait("birch", "leaf")).await??.exit_status == 0);
    ensure!(out.text_to_end().await? == "words\n");
    c.task().delete("birch", "leaf").await?;
    lab.retire(c).await
}

/// A client whose own input was short closes before it starts: what it wrote is read, and then the end.
async fn stdin_closed_before_the_start_ends_once_it_is_read(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let mut leaf = lab.add_exec(&c, "leaf", &["cat"], &Streams::All).await?;
    let mut input = leaf.stdin.take().context("open")?;
    input.write("words\n").await?;
    c.task().close_stdin("birch", "leaf").await?;
    c.task().start("birch", "leaf").await?;
    // Until the start, which opens an exec's streams, the words are in nobody's hands but the client's.
    drop(input);
    ensure!(leaf.stdout_text().await? == "words\n");
    ensure!(within("Wait", c.task().wait("birch", "leaf")).await??.exit_status == 0);
    lab.retire(c).await?;
    let launch = with(lab.launch("beech", lab.spec("beech", &["cat"])), Streams::All);
    let mut c = lab.create(launch).await?;
    c.io.stdin.take().context("open")?.write("words\n").await?;
    c.task().close_stdin("beech", "").await?;
    c.start().await?;
    ensure!(c.io.stdout_text().await? == "words\n");
    ensure!(within("Wait", c.wait()).await?? == 0);
    lab.retire(c).await
}

async fn stdin_of_twenty_mebibytes_arrives_whole(lab: &Lab) -> Result<()> {
    let mut c =
        lab.run(with(lab.launch("birch", lab.spec("birch", &["cat"])), Streams::All)).await?;
    let out = c.io.stdout.take().context("captured")?;
    let mut input = c.io.stdin.take().context("open")?;
    input.write(&String::from_utf8(many())?).await?;
    // The last bytes may still be on their way through the fifo when its only writer leaves.
    drop(input);
    c.task().close_stdin("birch", "").await?;
    ensure_many(&out.to_end().await?)?;
    within("Wait", c.wait()).await??;
    lab.retire(c).await
}

/// A container that says each line of its stdin.
async fn echoing(lab: &Lab) -> Result<(Container, integration_tests::stdio::Input)> {
    let script = "while read line; do echo \"$line\"; done";
    let mut c = lab.run(with(lab.shell("birch", script), Streams::All)).await?;
    let input = c.io.stdin.take().context("open")?;
    Ok((c, input))
}

async fn a_reader_may_detach_and_come_back(lab: &Lab) -> Result<()> {
    let (mut c, mut input) = echoing(lab).await?;
    let out = c.io.stdout.take().context("captured")?;
    input.write("before\n").await?;
    out.shows("before\n").await?;
    out.detach().await;
    input.write("between\n").await?;
    let out = Capture::open(c.io.stdout_path.as_ref())?;
    out.shows("between\n").await?;
    input.write("after\n").await?;
    out.shows("after\n").await?;
    ensure!(out.text() == "between\nafter\n", "{:?}", out.text());
    drop(input);
    c.task().close_stdin("birch", "").await?;
    within("Wait", c.wait()).await??;
    lab.retire(c).await
}

async fn output_waits_for_a_reader_that_comes_late(lab: &Lab) -> Result<()> {
    let (mut c, mut input) = echoing(lab).await?;
    for reader in [c.io.stdout.take(), c.io.stderr.take()] {
        reader.context("captured")?.detach().await;
    }
    input.write("early\n").await?;
    let out = Capture::open(c.io.stdout_path.as_ref())?;
    out.shows("early\n").await?;
    lab.retire(c).await
}

async fn delete_waits_for_a_slow_reader(lab: &Lab) -> Result<()> {
    // Less than two pipes hold, so that the process can exit while nobody reads; more than one holds.
    let mut c = lab.create(lab.shell("birch", "head -c 100000 /dev/zero")).await?;
    let idle = c.io.stdout.take().context("captured")?;
    idle.detach().await;
    c.start().await?;
    ensure!(within("Wait", c.wait()).await?? == 0);
    let out = Capture::open(c.io.stdout_path.as_ref())?;
    let (deleted, heard) = tokio::join!(within("Delete", c.delete()), out.to_end());
    deleted??;
    ensure!(heard?.len() == 100_000);
    lab.dismiss(c).await
}

async fn a_container_without_stdio_reads_the_end_and_writes_nowhere(lab: &Lab) -> Result<()> {
    let script = "cat; echo out; echo err >&2; readlink /proc/self/fd/0; exit 9";
    let c = lab.run(with(lab.shell("birch", script), Streams::Null)).await?;
    ensure!(within("Wait", c.wait()).await?? == 9);
    lab.retire(c).await
}

async fn output_of_a_child_that_outlives_an_exec_does_not_hold_its_exit(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let leaf =
        lab.exec(&c, "leaf", &["sh", "-c", "sleep 100000 & echo $!"], Streams::Output).await?;
    ensure!(within("Wait", c.task().wait("birch", "leaf")).await??.exit_status == 0);
    lab.events.of("birch", "exit", "leaf").await?;
    leaf.io.stdout.as_ref().context("captured")?.shows("\n").await?;
    // The child keeps the pipe open: Delete drains for its bounded time and then goes on.
    within("Delete", c.task().delete("birch", "leaf")).await??;
    lab.retire(c).await
}

async fn talk_to_terminal(
    out: &Capture,
    input: &mut integration_tests::stdio::Input,
    c: &Container,
    exec: &str,
) -> Result<()> {
    input.write("echo sum-$((20+3)); tty\n").await?;
    out.shows("sum-23\r\n").await?;
    out.shows("echo sum-$((20+3))").await?;
    out.shows("/dev/pts/").await?;
    for (width, height) in [(100, 40), (132, 50)] {
        c.task().resize("birch", exec, width, height).await?;
        input.write("stty size\n").await?;
        out.shows(&format!("{height} {width}\r\n")).await?;
    }
    Ok(())
}

async fn a_terminal_echoes_and_resizes(lab: &Lab) -> Result<()> {
    let launch = lab.launch("birch", lab.spec("birch", &["sh", "-i"]).terminal());
    let mut c = lab.run(with(launch, Streams::Terminal)).await?;
    let out = c.io.stdout.take().context("captured")?;
    let mut input = c.io.stdin.take().context("open")?;
    talk_to_terminal(&out, &mut input, &c, "").await?;
    let state = c.task().state("birch", "").await?;
    ensure!(state.terminal, "{state:?}");
    input.write("exit 5\n").await?;
    ensure!(within("Wait", c.wait()).await?? == 5);
    out.to_end().await?;
    lab.retire(c).await
}

async fn an_exec_on_a_terminal_echoes_and_resizes(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let mut leaf = lab.exec(&c, "leaf", &["sh", "-i"], Streams::Terminal).await?;
    let out = leaf.io.stdout.take().context("captured")?;
    let mut input = leaf.io.stdin.take().context("open")?;
    talk_to_terminal(&out, &mut input, &c, "leaf").await?;
    input.write("exit 6\n").await?;
    ensure!(within("Wait", c.task().wait("birch", "leaf")).await??.exit_status == 6);
    out.to_end().await?;
    c.task().delete("birch", "leaf").await?;
    // The terminal's master is closed with its exec.
    eventually("the shim holds no terminal", || {
        let open = integration_tests::machine::descriptors(c.shim.pid)?;
        Ok((!open.iter().any(|link| link.contains("ptmx"))).then_some(()))
    })
    .await?;
    lab.retire(c).await
}

async fn resize_without_a_terminal_is_refused_or_ignored(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    within("ResizePty", c.task().resize("birch", "", 80, 24)).await?.ok();
    ensure!(c.task().pids("birch").await? == [c.pid]);
    lab.retire(c).await
}

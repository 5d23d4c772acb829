//! A container that is saved by criu, and goes on from what was saved. Where criu cannot work on this machine, it says so. What does
//! not need criu is in checkpoints.rs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use containerd_shim_protos::api::Status;
use integration_tests::deadline::within;
use integration_tests::lab::{Container, Lab, Launch};
use integration_tests::stdio::Streams;
use integration_tests::suite::{Suite, needs_criu};
use integration_tests::task::refused;
use integration_tests::trials;
use ttrpc::Code;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "restores",
        [
            a_container_goes_on_from_its_checkpoint,
            a_container_runs_on_after_a_checkpoint_that_leaves_it,
            a_terminal_comes_back_with_its_container,
            a_paused_container_is_saved_and_stays_paused,
            an_out_of_memory_kill_after_a_restore_is_told,
            what_criu_refuses_is_told_and_harms_nothing,
            an_image_that_cannot_be_restored_leaves_the_task_deletable,
            criu_by_another_name_is_the_one_that_works,
        ]
    );
}

/// Counts the lines that it reads, so that what it says next tells what it remembers.
const COUNTS: &str = "n=0; while read line; do n=$((n+1)); echo $n:$line; done; exit $n";

/// A container that counts, and has counted one line.
async fn counting(lab: &Lab, id: &str) -> Result<Container> {
    let launch = Launch { streams: Streams::All, ..lab.shell(id, COUNTS) };
    let mut c = lab.run(launch).await?;
    says(&mut c, "a", "1:a\n").await?;
    Ok(c)
}

/// The same, to be restored from `image`.
fn resumed(lab: &Lab, id: &str, image: &Path) -> Launch {
    let checkpoint = image.display().to_string();
    Launch { streams: Streams::All, checkpoint, ..lab.shell(id, COUNTS) }
}

async fn says(c: &mut Container, line: &str, answer: &str) -> Result<()> {
    c.io.stdin.as_mut().context("open")?.write(&format!("{line}\n")).await?;
    c.io.stdout.as_ref().context("captured")?.shows(answer).await
}

/// Saves `c`, which ends with it, and takes it away.
async fn saved(lab: &Lab, c: Container) -> Result<PathBuf> {
    let image = lab.scratch.path(format!("image-of-{}", c.id()));
    within("Checkpoint", c.checkpoint(&image, |options| options.exit = true)).await??;
    ensure!(within("Wait", c.wait()).await?? == 137, "criu ends what it saves by SIGKILL");
    lab.retire(c).await?;
    Ok(image)
}

async fn a_container_goes_on_from_its_checkpoint(lab: &Lab) -> Result<()> {
    needs_criu()?;
    let image = saved(lab, counting(lab, "birch").await?).await?;
    let mut c = lab.create(resumed(lab, "beech", &image)).await?;
    ensure!(c.pid == 0 && c.status().await? == Status::CREATED, "nothing runs before its start");
    let pid = c.start().await?;
    let state = c.task().state("beech", "").await?;
    ensure!(pid > 0 && state.pid == pid && c.status().await? == Status::RUNNING, "{state:?}");
    says(&mut c, "b", "2:b\n").await?;
    ensure!(c.task().pids("beech").await? == [pid]);
    c.task().stats("beech").await?;
    let leaf = lab.exec(&c, "leaf", &["echo", "there"], Streams::Output).await?;
    ensure!(leaf.io.stdout_text().await? == "there\n");
    within("Wait", c.task().wait("beech", "leaf")).await??;
    refused(c.start().await, Code::UNKNOWN, "beech")?;
    drop(c.io.stdin.take());
    c.task().close_stdin("beech", "").await?;
    ensure!(within("Wait", c.wait()).await?? == 2, "it counted on");
    ensure!(c.io.stdout_text().await? == "2:b\n");
    let told = lab.events.exit("beech").await?;
    ensure!(told.pid == pid, "{told:?}");
    let labels = lab.events.labels("beech");
    let order = ["create", "start", "exec-added", "exec-started leaf", "exit leaf", "exit beech"];
    ensure!(labels.first().is_some_and(|first| first == order[0]), "{labels:?}");
    ensure!(
        labels[1] == "start" && labels.last().is_some_and(|last| last == order[5]),
        "{labels:?}"
    );
    lab.retire(c).await
}

async fn a_container_runs_on_after_a_checkpoint_that_leaves_it(lab: &Lab) -> Result<()> {
    needs_criu()?;
    let mut c = counting(lab, "birch").await?;
    let image = lab.scratch.path("the-save");
    within("Checkpoint", c.checkpoint(&image, |_| ())).await??;
    ensure!(c.status().await? == Status::RUNNING);
    says(&mut c, "b", "2:b\n").await?;
    let left: Vec<_> = fs::read_dir(&c.bundle.path)?.flatten().map(|e| e.file_name()).collect();
    ensure!(!left.iter().any(|name| name.to_string_lossy().contains("criu")), "{left:?}");
    // Beside the one that it was taken of: the pods of a node are saved and restored while others run.
    let mut twin = lab.run(resumed(lab, "beech", &image)).await?;
    says(&mut twin, "c", "2:c\n").await?;
    lab.retire(twin).await?;
    lab.retire(c).await
}

async fn a_terminal_comes_back_with_its_container(lab: &Lab) -> Result<()> {
    needs_criu()?;
    let script = format!("stty -echo; echo ready; {COUNTS}");
    let launch = |id: &str| {
        let spec = lab.spec(id, &["sh", "-c", &script]).terminal();
        Launch { streams: Streams::Terminal, ..lab.launch(id, spec) }
    };
    let mut c = lab.run(launch("birch")).await?;
    c.io.stdout.as_ref().context("captured")?.shows("ready\r\n").await?;
    says(&mut c, "a", "1:a\r\n").await?;
    let image = saved(lab, c).await?;
    let checkpoint = image.display().to_string();
    let mut c = lab.run(Launch { checkpoint, ..launch("beech") }).await?;
    says(&mut c, "b", "2:b\r\n").await?;
    c.task().resize("beech", "", 100, 40).await?;
    lab.retire(c).await
}

async fn a_paused_container_is_saved_and_stays_paused(lab: &Lab) -> Result<()> {
    needs_criu()?;
    let mut c = counting(lab, "birch").await?;
    c.task().pause("birch").await?;
    within("Checkpoint", c.checkpoint(&lab.scratch.path("the-save"), |_| ())).await??;
    ensure!(c.status().await? == Status::PAUSED);
    c.task().resume("birch").await?;
    says(&mut c, "b", "2:b\n").await?;
    lab.retire(c).await
}

async fn an_out_of_memory_kill_after_a_restore_is_told(lab: &Lab) -> Result<()> {
    needs_criu()?;
    let eats = "echo ready; read line; exec tail /dev/zero";
    let launch = |id: &str| {
        let spec = lab.spec(id, &["sh", "-c", eats]).memory_limit(16 << 20);
        Launch { streams: Streams::All, ..lab.launch(id, spec) }
    };
    let c = lab.run(launch("birch")).await?;
    c.io.stdout.as_ref().context("captured")?.shows("ready\n").await?;
    let image = saved(lab, c).await?;
    let checkpoint = image.display().to_string();
    let mut c = lab.run(Launch { checkpoint, ..launch("beech") }).await?;
    c.io.stdin.as_mut().context("open")?.write("go\n").await?;
    ensure!(within("Wait", c.wait()).await?? == 137);
    lab.events.of("beech", "oom", "").await?;
    lab.retire(c).await
}

/// criu saves no large file that has been removed and is still open.
async fn what_criu_refuses_is_told_and_harms_nothing(lab: &Lab) -> Result<()> {
    needs_criu()?;
    let script = format!(
        "dd if=/dev/zero of=/tmp/ghost bs=1M count=2 2>/dev/null; exec 9</tmp/ghost; rm /tmp/ghost; echo ready\n\
        read line; exec 9<&-; echo free; {COUNTS}"
    );
    let launch = Launch { streams: Streams::All, ..lab.shell("birch", &script) };
    let mut c = lab.run(launch).await?;
    c.io.stdout.as_ref().context("captured")?.shows("ready\n").await?;
    let image = lab.scratch.path("the-save");
    let answer = within("Checkpoint", c.checkpoint(&image, |options| options.exit = true)).await?;
    refused(answer, Code::UNKNOWN, "ghost file")?;
    ensure!(!image.exists(), "half an image is left");
    let log = fs::read_to_string(c.bundle.path.join("criu-dump.log"))?;
    ensure!(log.contains("ghost file"), "{log}");
    ensure!(!c.bundle.path.join("criu-work").exists());
    says(&mut c, "close it", "free\n").await?;
    within("Checkpoint", c.checkpoint(&image, |_| ())).await??;
    ensure!(image.join("inventory.img").exists());
    says(&mut c, "a", "1:a\n").await?;
    lab.retire(c).await
}

async fn an_image_that_cannot_be_restored_leaves_the_task_deletable(lab: &Lab) -> Result<()> {
    needs_criu()?;
    let image = saved(lab, counting(lab, "birch").await?).await?;
    fs::rename(image.join("pstree.img"), image.join("pstree.kept"))?;
    let c = lab.create(resumed(lab, "beech", &image)).await?;
    refused(within("Start", c.start()).await?, Code::UNKNOWN, "criu-restore.log")?;
    ensure!(c.status().await? == Status::CREATED);
    // It can be tried again, though its client has taken the failed start for the end of its output.
    fs::rename(image.join("pstree.kept"), image.join("pstree.img"))?;
    c.start().await?;
    ensure!(c.status().await? == Status::RUNNING);
    lab.retire(c).await?;
    fs::remove_file(image.join("pstree.img"))?;
    let c = lab.create(resumed(lab, "alder", &image)).await?;
    refused(within("Start", c.start()).await?, Code::UNKNOWN, "criu-restore.log")?;
    let deleted = c.delete().await?;
    ensure!(deleted.pid == 0, "{deleted:?}");
    lab.dismiss(c).await
}

/// No runtime looks for criu under the name that the options give: it is under its own in a folder that is looked through first.
async fn criu_by_another_name_is_the_one_that_works(lab: &Lab) -> Result<()> {
    let criu = needs_criu()?;
    let seen = lab.scratch.path("seen");
    let named = lab.scratch.path("criu-4.1");
    let script = format!("echo $1 >>{}; exec {} \"$@\"", seen.display(), criu.display());
    crate::checkpoints::program(&named, &script)?;
    let options = crate::checkpoints::with_criu(lab, &named, |_| ())?;
    let launch = Launch { streams: Streams::All, ..lab.shell("birch", COUNTS) };
    let mut c = lab.run(Launch { options: Some(options.clone()), ..launch }).await?;
    says(&mut c, "a", "1:a\n").await?;
    let image = saved(lab, c).await?;
    let calls = fs::read_to_string(&seen)?.lines().count();
    ensure!(calls > 0, "another criu saved it");
    let launch = Launch { options: Some(options), ..resumed(lab, "beech", &image) };
    let mut c = lab.run(launch).await?;
    says(&mut c, "b", "2:b\n").await?;
    ensure!(fs::read_to_string(&seen)?.lines().count() > calls, "another criu restored it");
    lab.retire(c).await
}

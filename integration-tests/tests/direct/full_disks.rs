//! Disks that fill up: under the bundle, and under a log file. Nothing is left half made, and no container is
//! stopped by a disk that is not its own. Must not know the OCI runtime's faults (see faults.rs).

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use containerd_shim_protos::api::Status;
use integration_tests::bundle::Bundle;
use integration_tests::deadline::within;
use integration_tests::lab::{Lab, Launch};
use integration_tests::shim::Start;
use integration_tests::stdio::Streams;
use integration_tests::suite::Suite;
use integration_tests::task::refused;
use integration_tests::trials;
use nix::mount::{MntFlags, MsFlags};
use ttrpc::Code;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "full_disks",
        [
            a_full_disk_fails_start_and_leaves_nothing,
            a_full_disk_fails_create_or_does_without,
            a_full_disk_fails_an_exec_and_the_next_one_runs,
            output_to_a_full_disk_is_discarded,
            output_of_a_terminal_to_a_full_disk_is_discarded,
        ]
    );
}

/// A file system of 64 KiB.
fn small_disk(folder: &std::path::Path) -> Result<()> {
    let options = Some("size=64k");
    Ok(nix::mount::mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), options)?)
}

/// A bundle on a file system of 64 KiB with `free` bytes left (about).
fn cramped_bundle(lab: &Lab, launch: &Launch, free: usize) -> Result<Bundle> {
    let folder = lab.scratch.folder("bundles/birch")?;
    small_disk(&folder)?;
    let bundle = lab.bundle("birch", Some(&launch.spec))?;
    fill(&bundle, free)?;
    Ok(bundle)
}

fn fill(bundle: &Bundle, free: usize) -> Result<()> {
    use std::io::Write;
    let filler = bundle.path.join("filler");
    let mut file = fs::File::create(&filler)?;
    let mut length = 0;
    while let Ok(written) = file.write(&[0; 4096]) {
        length += written;
    }
    file.set_len(length.saturating_sub(free) as u64).context("leaving some room")
}

/// The delete command, then the bundle's end with its file system.
async fn bury_cramped(lab: &Lab, bundle: &Bundle) -> Result<()> {
    lab.caller.delete_raw(&lab.scratch, bundle).await?;
    nix::mount::umount2(&bundle.path, MntFlags::MNT_DETACH)?;
    Ok(())
}

async fn a_full_disk_fails_start_and_leaves_nothing(lab: &Lab) -> Result<()> {
    let launch = lab.sleeper("birch");
    let bundle = cramped_bundle(lab, &launch, 0)?;
    let finished = lab.caller.start(&lab.scratch, &bundle, &Start::default()).await?;
    ensure!(!finished.status.success(), "start worked: {}", finished.text());
    ensure!(finished.text().contains("space"), "{}", finished.text());
    bury_cramped(lab, &bundle).await
}

async fn a_full_disk_fails_create_or_does_without(lab: &Lab) -> Result<()> {
    let launch = lab.sleeper("birch");
    let bundle = cramped_bundle(lab, &launch, 16 << 10)?;
    let shim = lab.start_shim(&bundle, &Start::default()).await?;
    fill(&bundle, 0)?;
    match lab.create_in(shim.clone(), bundle.clone(), launch).await? {
        Err(_) => ensure!(shim.task.state("birch", "").await.is_err(), "a task is left"),
        Ok(c) => {
            c.start().await?;
            c.kill(libc::SIGKILL).await?;
            within("Wait", c.wait()).await??;
            c.delete().await?;
        }
    }
    within("Shutdown", shim.task.shutdown("birch")).await?.ok();
    bury_cramped(lab, &bundle).await
}

async fn a_full_disk_fails_an_exec_and_the_next_one_runs(lab: &Lab) -> Result<()> {
    let launch = lab.sleeper("birch");
    let bundle = cramped_bundle(lab, &launch, 32 << 10)?;
    let shim = lab.start_shim(&bundle, &Start::default()).await?;
    let c = lab.create_in(shim, bundle.clone(), launch).await??;
    c.start().await?;
    fill(&bundle, 0)?;
    lab.add_exec(&c, "leaf", &["true"], &Streams::Null).await?;
    refused(within("Start", c.task().start("birch", "leaf")).await?, Code::UNKNOWN, "exec-0")?;
    c.task().delete("birch", "leaf").await?;
    ensure!(c.status().await? == Status::RUNNING);
    ensure!(c.task().pids("birch").await? == [c.pid]);
    fs::remove_file(bundle.path.join("filler"))?;
    lab.exec(&c, "twig", &["true"], Streams::Null).await?;
    ensure!(within("Wait", c.task().wait("birch", "twig")).await??.exit_status == 0);
    c.kill(libc::SIGKILL).await?;
    within("Wait", c.wait()).await??;
    c.delete().await?;
    within("Shutdown", c.task().shutdown("birch")).await?.ok();
    bury_cramped(lab, &bundle).await
}

/// A container that writes more than the disk under its log file takes, and then ends in its own way.
async fn writes_on(lab: &Lab, terminal: bool) -> Result<()> {
    let folder = lab.scratch.folder("logs")?;
    small_disk(&folder)?;
    let log: PathBuf = folder.join("log");
    let uri = format!("file://{}", log.display());
    let mut launch = lab.shell("birch", "head -c 1000000 /dev/zero; exit 3");
    launch.streams = if terminal { Streams::TerminalUri(uri) } else { Streams::Uri(uri) };
    if terminal {
        launch.spec = launch.spec.terminal();
    }
    let c = lab.run(launch).await?;
    ensure!(within("Wait", c.wait()).await?? == 3);
    lab.retire(c).await?;
    let length = fs::metadata(&log)?.len();
    ensure!(length > 32 << 10 && length <= 64 << 10, "{length} bytes of log");
    Ok(nix::mount::umount2(&folder, MntFlags::MNT_DETACH)?)
}

async fn output_to_a_full_disk_is_discarded(lab: &Lab) -> Result<()> {
    writes_on(lab, false).await
}

async fn output_of_a_terminal_to_a_full_disk_is_discarded(lab: &Lab) -> Result<()> {
    writes_on(lab, true).await
}

//! The log fifo and the state dump. Must not know the log's format beyond what containerd's has.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, ensure};
use integration_tests::bundle::Bundle;
use integration_tests::deadline::{Process, eventually, within};
use integration_tests::lab::Lab;
use integration_tests::shim::Start;
use integration_tests::stdio::{Streams, make_fifo};
use integration_tests::suite::Suite;
use integration_tests::trials;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "logs",
        [
            sigusr1_dumps_the_state_to_the_log,
            a_full_log_fifo_blocks_nothing,
            an_unread_log_fifo_blocks_nothing,
        ]
    );
}

async fn sigusr1_dumps_the_state_to_the_log(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    lab.exec(&c, "leaf", &["sleep", "100000"], Streams::Null).await?;
    let shim = Process::open(c.shim.pid).context("the shim runs")?;
    ensure!(shim.signal(libc::SIGUSR1));
    eventually("a dump that names container, exec and pid", || {
        let log = lab.log_of("birch");
        Ok(["birch", "leaf", &c.pid.to_string()]
            .iter()
            .all(|word| log.contains(word))
            .then_some(()))
    })
    .await?;
    ensure!(c.task().pids("birch").await?.len() == 2);
    lab.retire(c).await
}

/// A life in a shim whose log fifo takes nothing.
async fn live(lab: &Lab, bundle: Bundle) -> Result<()> {
    let launch = lab.sleeper("birch");
    let shim = lab.start_shim(&bundle, &Start::default()).await?;
    let c = lab.create_in(shim, bundle, launch).await??;
    c.start().await?;
    let shim = Process::open(c.shim.pid).context("the shim runs")?;
    for _ in 0..100 {
        shim.signal(libc::SIGUSR1);
    }
    for n in 0..5 {
        let id = format!("leaf{n}");
        lab.exec(&c, &id, &["true"], Streams::Null).await?;
        within("Wait", c.task().wait("birch", &id)).await??;
        c.task().delete("birch", &id).await?;
    }
    lab.retire(c).await
}

async fn a_full_log_fifo_blocks_nothing(lab: &Lab) -> Result<()> {
    let bundle =
        Bundle::create(&lab.scratch.folder("bundles")?, "birch", Some(&lab.sleeper("birch").spec))?;
    let fifo = bundle.path.join("log");
    make_fifo(&fifo)?;
    // Held open and never read, as by a containerd that is stopped.
    let mut held = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&fifo)?;
    while held.write(&[b'x'; 4096]).is_ok() {}
    live(lab, bundle).await
}

async fn an_unread_log_fifo_blocks_nothing(lab: &Lab) -> Result<()> {
    let bundle =
        Bundle::create(&lab.scratch.folder("bundles")?, "birch", Some(&lab.sleeper("birch").spec))?;
    make_fifo(&bundle.path.join("log"))?;
    live(lab, bundle).await
}

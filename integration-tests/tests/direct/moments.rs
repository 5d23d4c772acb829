//! The shim killed with SIGKILL at any moment of a container's life, the moments drawn: how far the life has come,
//! and how long after. containerd's `delete` comes next, and nothing may be left. The seed is printed;
//! BERTH_TEST_SEED repeats it. Named moments: see deaths.rs.

use std::time::Duration;

use anyhow::{Context, Result};
use containerd_shim_protos::api::Mount;
use integration_tests::deadline::{Process, within};
use integration_tests::lab::{Lab, Launch};
use integration_tests::shim::Start;
use integration_tests::stdio::Stdio;
use integration_tests::suite::Suite;
use integration_tests::trials;
use tokio::sync::watch;

use crate::deaths::remove_socket_as_containerd_would;
use crate::dice::{Dice, seed};

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(suite, "moments", [a_shim_killed_at_any_moment_leaves_nothing]);
}

const ROUNDS: u64 = 20;
/// Create, Start, Kill and Delete.
const STEPS: u64 = 4;
/// Longer than any of the steps takes.
const AFTER_MS: u64 = 80;

async fn a_shim_killed_at_any_moment_leaves_nothing(lab: &Lab) -> Result<()> {
    let seed = seed();
    eprintln!("BERTH_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    for round in 0..ROUNDS {
        let (step, after) = (dice.below(STEPS), Duration::from_millis(dice.below(AFTER_MS)));
        let told = || format!("BERTH_TEST_SEED={seed}: round {round}, step {step} and {after:?}");
        dies_in(lab, &format!("birch{round}"), step, after).await.with_context(told)?;
        lab.assert_nothing_left().await.with_context(told)?;
    }
    Ok(())
}

/// One life in which the shim is killed so long `after` the beginning of the `step`.
async fn dies_in(lab: &Lab, id: &str, step: u64, after: Duration) -> Result<()> {
    let mut launch = lab.sleeper(id);
    launch.spec.json["root"]["path"] = "rootfs".into();
    launch.rootfs = vec![Mount {
        type_: "bind".into(),
        source: lab.image.display().to_string(),
        options: vec!["rbind".into(), "rw".into()],
        ..Default::default()
    }];
    let Launch { spec, .. } = &launch;
    let bundle = lab.bundle(id, Some(spec))?;
    let shim = lab.start_shim(&bundle, &Start::default()).await?;
    let process = Process::open(shim.pid).context("the shim runs")?;
    let request = lab.create_request(&launch, &bundle, &Stdio::default());
    let (begun, mut begins) = watch::channel(None);
    let (task, name) = (shim.task.clone(), id.to_owned());
    let life = tokio::spawn(async move {
        begun.send_replace(Some(0));
        task.create(&request).await.ok();
        begun.send_replace(Some(1));
        task.start(&name, "").await.ok();
        begun.send_replace(Some(2));
        task.kill(&name, "", 9, false).await.ok();
        task.wait(&name, "").await.ok();
        begun.send_replace(Some(3));
        task.delete(&name, "").await.ok();
        // Whoever waits for a step that has gone by need not wait.
        begun.closed().await;
    });
    within("the step", begins.wait_for(|at| *at >= Some(step))).await??;
    // Awaits nothing: it draws the moment.
    tokio::time::sleep(after).await;
    process.signal(libc::SIGKILL);
    process.exited().await?;
    life.abort();
    lab.bury(&bundle).await?;
    remove_socket_as_containerd_would(lab);
    Ok(())
}

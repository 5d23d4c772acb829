//! Descriptors that run out: what cannot be watched or connected is not left running. Must not know disks (see
//! full_disks.rs).

use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::deadline::{Process, eventually, within};
use integration_tests::lab::{Container, Lab};
use integration_tests::machine;
use integration_tests::stdio::Streams;
use integration_tests::suite::Suite;
use integration_tests::trials;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(suite, "scarcity", [an_exec_that_runs_out_of_descriptors_leaves_nobody]);
}

/// Whatever step of an exec it is that finds no descriptor: the start is answered, and nobody runs unknown.
async fn an_exec_that_runs_out_of_descriptors_leaves_nobody(lab: &Lab) -> Result<()> {
    let c = lab.run(lab.sleeper("birch")).await?;
    let shim = Process::open(c.shim.pid).context("the shim runs")?;
    let usual = shim.descriptor_limit(None)?;
    let mut refused = 0;
    for spare in 0..16 {
        let id = format!("leaf{spare}");
        lab.add_exec(&c, &id, &["sleep", "100000"], &Streams::Output).await?;
        let open = machine::descriptors(shim.pid)?.len() as u64;
        shim.descriptor_limit(Some(open + spare))?;
        let started = within("Start", c.task().start("birch", &id)).await;
        shim.descriptor_limit(Some(usual))?;
        match started? {
            Err(_) => refused += 1,
            Ok(_) => {
                c.task().kill("birch", &id, 9, false).await?;
                within("Wait", c.task().wait("birch", &id)).await??;
            }
        }
        within("Delete", c.task().delete("birch", &id)).await??;
        alone(lab, &c).await.with_context(|| format!("with {spare} descriptors to spare"))?;
    }
    ensure!(refused > 0, "descriptors never ran out");
    ensure!(c.task().pids("birch").await? == [c.pid]);
    lab.exec(&c, "twig", &["true"], Streams::Output).await?;
    ensure!(within("Wait", c.task().wait("birch", "twig")).await??.exit_status == 0);
    lab.retire(c).await
}

/// Awaits that the container has no process but its init: one that was killed takes a moment to go.
async fn alone(lab: &Lab, c: &Container) -> Result<()> {
    let cgroup = format!("/{}/{}", lab.scratch.cgroup(), c.id());
    let list = machine::cgroup_folder("pids", &cgroup)?.join("cgroup.procs");
    let init = c.pid.to_string();
    eventually(
        "the init is alone",
        || Ok((fs::read_to_string(&list)?.trim() == init).then_some(())),
    )
    .await
}

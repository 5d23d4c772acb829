//! Pods: containers with the same group annotation share one shim, and nothing else. Must not know CRI.

use anyhow::{Result, ensure};
use containerd_shim_protos::api::Status;
use integration_tests::deadline::{Process, within};
use integration_tests::lab::{Lab, Launch};
use integration_tests::shim::Start;
use integration_tests::suite::Suite;
use integration_tests::trials;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "pods",
        [
            containers_of_a_sandbox_share_one_shim,
            containers_of_a_runc_group_share_one_shim,
            containers_without_a_group_have_shims_of_their_own,
            the_shim_outlives_its_first_container,
            the_delete_command_for_one_container_leaves_the_other,
            fifty_containers_fit_into_one_shim,
        ]
    );
}

fn grouped(lab: &Lab, id: &str, annotation: &str) -> Launch {
    let mut launch = lab.sleeper(id);
    launch.spec = launch.spec.annotation(annotation, "grove");
    launch
}

async fn share_one_shim(lab: &Lab, annotation: &str) -> Result<()> {
    let first = lab.run(grouped(lab, "grove", annotation)).await?;
    let second = lab.run(grouped(lab, "birch", annotation)).await?;
    ensure!(
        first.shim.reply == second.shim.reply,
        "{:?} {:?}",
        first.shim.reply,
        second.shim.reply
    );
    ensure!(first.shim.pid == second.shim.pid);
    ensure!(first.pid != second.pid);
    for c in [&first, &second] {
        let address = std::fs::read_to_string(c.bundle.path.join("address"))?;
        ensure!(address == c.shim.reply.address, "{}: {address:?}", c.id());
        ensure!(c.task().pids(c.id()).await? == [c.pid]);
    }
    lab.retire(second).await?;
    ensure!(first.status().await? == Status::RUNNING);
    lab.retire(first).await
}

async fn containers_of_a_sandbox_share_one_shim(lab: &Lab) -> Result<()> {
    share_one_shim(lab, "io.kubernetes.cri.sandbox-id").await
}

async fn containers_of_a_runc_group_share_one_shim(lab: &Lab) -> Result<()> {
    share_one_shim(lab, "io.containerd.runc.v2.group").await
}

async fn containers_without_a_group_have_shims_of_their_own(lab: &Lab) -> Result<()> {
    let first = lab.run(lab.sleeper("birch")).await?;
    let second = lab.run(lab.sleeper("beech")).await?;
    ensure!(first.shim.pid != second.shim.pid && first.shim.reply != second.shim.reply);
    lab.retire(first).await?;
    ensure!(second.status().await? == Status::RUNNING);
    lab.retire(second).await
}

async fn the_shim_outlives_its_first_container(lab: &Lab) -> Result<()> {
    let sandbox = "io.kubernetes.cri.sandbox-id";
    let first = lab.run(grouped(lab, "grove", sandbox)).await?;
    let second = lab.run(grouped(lab, "birch", sandbox)).await?;
    let shim = Process::open(first.shim.pid);
    lab.retire(first).await?;
    ensure!(second.status().await? == Status::RUNNING);
    let third = lab.run(grouped(lab, "beech", sandbox)).await?;
    ensure!(third.shim.pid == second.shim.pid);
    lab.retire(second).await?;
    lab.retire(third).await?;
    if let Some(shim) = shim {
        shim.exited().await?;
    }
    Ok(())
}

async fn the_delete_command_for_one_container_leaves_the_other(lab: &Lab) -> Result<()> {
    let sandbox = "io.kubernetes.cri.sandbox-id";
    let first = lab.run(grouped(lab, "grove", sandbox)).await?;
    let second = lab.run(grouped(lab, "birch", sandbox)).await?;
    second.kill(libc::SIGKILL).await?;
    within("Wait", second.wait()).await??;
    second.delete().await?;
    lab.bury(&second.bundle).await?;
    ensure!(first.status().await? == Status::RUNNING);
    ensure!(first.task().pids("grove").await? == [first.pid]);
    // Nor does the sandbox's own, while the group's shim is alive.
    let third = lab.run(grouped(lab, "beech", sandbox)).await?;
    first.kill(libc::SIGKILL).await?;
    within("Wait", first.wait()).await??;
    first.delete().await?;
    lab.bury(&first.bundle).await?;
    ensure!(third.status().await? == Status::RUNNING);
    lab.retire(third).await
}

async fn fifty_containers_fit_into_one_shim(lab: &Lab) -> Result<()> {
    let sandbox = "io.kubernetes.cri.sandbox-id";
    let mut all = vec![lab.run(grouped(lab, "grove", sandbox)).await?];
    let shim = all[0].shim.clone();
    for n in 1..50 {
        let launch = grouped(lab, &format!("birch{n}"), sandbox);
        let bundle = lab.bundle(&launch.id, Some(&launch.spec))?;
        let joined = lab
            .start_shim(&bundle, &Start { options: launch.options.clone(), ..Start::default() })
            .await?;
        ensure!(joined.pid == shim.pid);
        let c = lab.create_in(joined, bundle, launch).await??;
        c.start().await?;
        all.push(c);
    }
    for c in all.into_iter().rev() {
        lab.retire(c).await?;
    }
    Ok(())
}

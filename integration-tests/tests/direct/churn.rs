//! Many lives in one shim: what it holds afterwards is what it held before. 100 of each by default;
//! BERTH_SOAK sets another number. Must not know how long a cycle takes.

use anyhow::{Result, ensure};
use integration_tests::deadline::{eventually, within};
use integration_tests::lab::{Container, Lab};
use integration_tests::machine;
use integration_tests::stdio::Streams;
use integration_tests::suite::Suite;
use integration_tests::trials;

/// Adds the trials.
pub fn register(suite: &mut Suite) {
    trials!(
        suite,
        "churn",
        [
            containers_come_and_go_without_a_trace,
            execs_come_and_go_without_a_trace,
            refused_creates_come_and_go_without_a_trace,
        ]
    );
}

fn cycles() -> usize {
    std::env::var("BERTH_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// What a shim holds: descriptors, resident KiB, threads, children.
struct Holding {
    descriptors: Vec<String>,
    resident_kib: u64,
}

/// Looks once the shim has let go of what it is about to let go of.
async fn holding(keeper: &Container, at_most: Option<usize>) -> Result<Holding> {
    let shim = keeper.shim.pid;
    eventually("the shim has no child but its init", || {
        let children = machine::children(shim);
        let settled = children.len() == 1 && children[0].pid == keeper.pid;
        let open = machine::descriptors(shim)?.len();
        Ok((settled && at_most.is_none_or(|most| open <= most)).then_some(()))
    })
    .await?;
    Ok(Holding {
        descriptors: machine::descriptors(shim)?,
        resident_kib: machine::memory_kib(shim, "status", "VmRSS")?,
    })
}

async fn keeper(lab: &Lab) -> Result<Container> {
    let mut launch = lab.sleeper("keeper");
    launch.spec = launch.spec.in_pod("keeper");
    lab.run(launch).await
}

/// Runs `cycle` a few times to warm up, then as often as asked, and compares what the shim holds.
async fn leaves_no_trace(
    lab: &Lab,
    mut cycle: impl AsyncFnMut(&Container, usize) -> Result<()>,
) -> Result<()> {
    let keeper = keeper(lab).await?;
    let warm = 20;
    for n in 0..warm {
        cycle(&keeper, n).await?;
    }
    let before = holding(&keeper, None).await?;
    for n in warm..warm + cycles() {
        cycle(&keeper, n).await?;
    }
    let after = holding(&keeper, Some(before.descriptors.len())).await;
    let after = match after {
        Ok(after) => after,
        Err(err) => {
            let now = machine::descriptors(keeper.shim.pid)?;
            return Err(err.context(format!("held {:?}, holds {now:?}", before.descriptors)));
        }
    };
    let growth = after.resident_kib.saturating_sub(before.resident_kib);
    eprintln!(
        "{} cycles: resident {} KiB, then {} KiB",
        cycles(),
        before.resident_kib,
        after.resident_kib
    );
    // A garbage collector's arena is no measure of a leak over so few cycles.
    ensure!(lab.under_test.reference || growth <= 1024, "resident memory grew by {growth} KiB");
    let others = machine::cgroups_named(lab.scratch.cgroup())?;
    let strangers: Vec<_> = others
        .iter()
        .filter(|folder| !folder.ends_with(lab.scratch.cgroup()) && !folder.ends_with("keeper"))
        .collect();
    ensure!(strangers.is_empty(), "cgroups are left: {strangers:?}");
    lab.retire(keeper).await
}

async fn containers_come_and_go_without_a_trace(lab: &Lab) -> Result<()> {
    leaves_no_trace(lab, async |_, n| {
        let mut launch = lab.sleeper(&format!("birch{n}"));
        launch.spec = launch.spec.in_pod("keeper");
        launch.streams = Streams::Output;
        let c = lab.run(launch).await?;
        c.kill(libc::SIGKILL).await?;
        ensure!(within("Wait", c.wait()).await?? == 137);
        c.delete().await?;
        lab.dismiss(c).await
    })
    .await
}

async fn execs_come_and_go_without_a_trace(lab: &Lab) -> Result<()> {
    leaves_no_trace(lab, async |keeper, n| {
        let id = format!("leaf{n}");
        let leaf = lab.exec(keeper, &id, &["echo", "leaf"], Streams::Output).await?;
        ensure!(within("Wait", keeper.task().wait("keeper", &id)).await??.exit_status == 0);
        ensure!(leaf.io.stdout_text().await? == "leaf\n");
        keeper.task().delete("keeper", &id).await?;
        Ok(())
    })
    .await
}

async fn refused_creates_come_and_go_without_a_trace(lab: &Lab) -> Result<()> {
    leaves_no_trace(lab, async |_, n| {
        let id = format!("birch{n}");
        let launch = lab.launch(&id, lab.spec(&id, &["no-such-program"]).in_pod("keeper"));
        let bundle = lab.bundle(&id, Some(&launch.spec))?;
        let shim = lab.start_shim(&bundle, &Default::default()).await?;
        let created = lab.create_in(shim.clone(), bundle.clone(), launch).await?;
        ensure!(created.is_err());
        lab.dismiss_shim(&shim, &bundle).await
    })
    .await
}

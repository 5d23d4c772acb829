//! Fifty containers launched at once, each with its own shim: the time until the last one runs.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use tokio::task::JoinSet;

use super::duel::Duel;
use super::figures::{Comparison, Figures, Unit};
use super::progress::Progress;
use super::world::{Container, Prepared, World, ms_since};

const LAUNCHES: usize = 50;

/// Measures `bursts` bursts of each side, after one that does not count.
pub async fn measure(duel: &mut Duel, bursts: usize, figures: &mut Figures) -> Result<()> {
    let mut burst = Comparison::new("burst50", "50 launches at once", Unit::Ms);
    let mut progress = Progress::new("burst", bursts);
    for round in 0..=bursts {
        for side in duel.order()? {
            let time = one_burst(duel.world(side), round).await?;
            if round > 0 {
                burst.push(side, time);
            }
        }
        progress.step(round + 1, 1);
    }
    figures.comparisons.push(burst);
    Ok(())
}

async fn one_burst(world: &Arc<World>, round: usize) -> Result<f64> {
    let prepare = |launch| world.prepare(&format!("burst-{round}-{launch}"), None);
    let prepared: Vec<Prepared> = (0..LAUNCHES).map(prepare).collect::<Result<_>>()?;

    let begin = Instant::now();
    let launches = prepared.into_iter().map(|prepared| {
        let world = world.clone();
        async move { world.run_prepared(prepared).await }
    });
    let running: Vec<Container> = at_once(launches).await?;
    let time = ms_since(begin);

    let ends = running.into_iter().map(|container| {
        let world = world.clone();
        async move { world.end(container).await }
    });
    at_once(ends).await?;
    Ok(time)
}

/// Runs all of them side by side; the first failure is the outcome, once none is under way any more.
async fn at_once<T, F>(steps: impl Iterator<Item = F>) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let steps: JoinSet<Result<T>> = steps.collect();
    steps.join_all().await.into_iter().collect()
}

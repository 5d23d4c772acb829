//! Execs in a running container: the whole of one, and its Start alone.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::duel::Duel;
use super::figures::{Comparison, Figures, Side, Unit};
use super::progress::Progress;
use super::world::{Container, ms_since};
use crate::deadline::within;

/// Measures `runs` execs of each side, after `warm_up` that do not count.
pub async fn measure(
    duel: &mut Duel,
    runs: usize,
    warm_up: usize,
    figures: &mut Figures,
) -> Result<()> {
    let mut whole = Comparison::new("exec", "exec, start to delete", Unit::Ms);
    let mut start = Comparison::new("exec_start", "start of an exec", Unit::Ms);
    let berth = duel.world(Side::Berth).run("exec").await?;
    let reference = duel.world(Side::Reference).run("exec").await?;
    let mut progress = Progress::new("exec", runs);
    for run in 0..warm_up + runs {
        for side in duel.order()? {
            let container = match side {
                Side::Berth => &berth,
                Side::Reference => &reference,
            };
            let times = one_exec(container, &format!("e{run}")).await?;
            if run >= warm_up {
                whole.push(side, times.whole);
                start.push(side, times.start);
            }
        }
        progress.step(run + 1, warm_up);
    }
    duel.world(Side::Berth).end(berth).await?;
    duel.world(Side::Reference).end(reference).await?;
    figures.comparisons.extend([whole, start]);
    Ok(())
}

/// Milliseconds.
struct Times {
    whole: f64,
    start: f64,
}

async fn one_exec(container: &Container, exec: &str) -> Result<Times> {
    let request = container.exec_request(exec, &["true"]);
    let (task, id) = (&container.shim.task, container.id());
    let begin = Instant::now();
    within("Exec", task.exec(&request)).await??;
    let before_start = Instant::now();
    within("Start", task.start(id, exec)).await??;
    let start = ms_since(before_start);
    let ended = within("Wait", task.wait(id, exec)).await??;
    within("Delete", task.delete(id, exec)).await??;
    let whole = ms_since(begin);
    ensure!(ended.exit_status == 0, "exec of true ended with {}", ended.exit_status);
    Ok(Times { whole, start })
}

//! A container's whole life, phase by phase: what each call of containerd waits for.

use std::time::Instant;

use anyhow::{Context, Result};

use super::duel::Duel;
use super::figures::{Comparison, Figures, Unit};
use super::progress::Progress;
use super::world::{World, ms_since};
use crate::deadline::{Process, within};

/// The phases in their order: name in the summary, title in table and chart.
const PHASES: [(&str, &str); 8] = [
    ("shim_start", "shim start"),
    ("create", "create"),
    ("start", "start"),
    ("kill", "kill"),
    ("wait", "wait for the end"),
    ("delete", "delete"),
    ("shutdown", "shutdown, shim gone"),
    ("delete_command", "delete command after"),
];

/// The phases that make up the lifecycle: all but the last, which containerd runs when it is over.
const LIFE: usize = PHASES.len() - 1;

/// Where Kill stands among the phases; Wait comes after it.
const KILL: usize = 3;

/// Measures `runs` lives of each side, after `warm_up` that do not count.
pub async fn measure(
    duel: &mut Duel,
    runs: usize,
    warm_up: usize,
    figures: &mut Figures,
) -> Result<()> {
    let mut life = Comparison::new("lifecycle", "whole lifecycle", Unit::Ms);
    // A shim that answers Kill before the process is dead only moves the time to Wait.
    let mut to_the_end = Comparison::new("kill_to_end", "kill and wait together", Unit::Ms);
    let mut phases = PHASES.map(|(name, title)| Comparison::new(name, title, Unit::Ms));
    let mut progress = Progress::new("lifecycle", runs);
    for run in 0..warm_up + runs {
        for side in duel.order()? {
            let times = one_life(duel.world(side), &format!("life-{run}")).await?;
            if run < warm_up {
                continue;
            }
            life.push(side, times[..LIFE].iter().sum());
            to_the_end.push(side, times[KILL] + times[KILL + 1]);
            for (phase, time) in phases.iter_mut().zip(times) {
                phase.push(side, time);
            }
        }
        progress.step(run + 1, warm_up);
    }
    figures.comparisons.push(life);
    figures.comparisons.extend(phases);
    figures.comparisons.push(to_the_end);
    Ok(())
}

/// Milliseconds of each phase. What containerd does between them (bundle, snapshot, connecting) is not
/// counted.
async fn one_life(world: &World, id: &str) -> Result<[f64; PHASES.len()]> {
    let prepared = world.prepare(id, None)?;
    let mut times = Stopwatch::default();

    let reply = times.take(world.start_command(&prepared)).await?;
    let shim = world.connect(&prepared, &reply).await?;
    let process = Process::open(shim.pid).context("the shim is gone before Create")?;
    let container = times.take(world.create(prepared, shim)).await?;
    times.take(container.start()).await?;
    let task = &container.shim.task;
    times.take(within("Kill", task.kill(id, "", libc::SIGKILL as u32, false))).await??;
    times.take(within("Wait", task.wait(id, ""))).await??;
    times.take(within("Delete", task.delete(id, ""))).await??;
    times
        .take(async {
            // The connection breaks when the shim is gone before its answer is out.
            within("Shutdown", task.shutdown(id)).await?.ok();
            process.exited().await
        })
        .await?;
    times.take(world.delete_command(&container.prepared)).await?;

    world.remove(&container.prepared)?;
    times.0.try_into().ok().context("as many times as phases")
}

#[derive(Default)]
struct Stopwatch(Vec<f64>);

impl Stopwatch {
    async fn take<T>(&mut self, step: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let outcome = step.await;
        self.0.push(ms_since(start));
        outcome
    }
}

//! What a pod's shim holds, by the kernel's own account (`/proc/PID/smaps_rollup`,
//! Documentation/filesystems/proc.rst): with one container running, and after an exec in it. Several pods
//! are alive at once, as on a node: then they share their binary's pages, and PSS counts each its part.

use std::time::Duration;

use anyhow::Result;

use super::duel::Duel;
use super::figures::{Comparison, Figures, Side, Unit};
use super::progress::Progress;
use super::world::{Container, World};
use crate::machine::memory_kib;

/// What a shim allocates or frees after its last answer is over by then.
pub const SETTLE: Duration = Duration::from_millis(200);

/// Pods alive at once.
const ALIVE: usize = 5;

/// The two sizes that say what one more process costs a node, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Proportional set size: its own pages, and its part of those that it shares.
    pub pss: u64,
    /// Pages that it alone holds and has written: what freeing it would give back for sure.
    pub private_dirty: u64,
}

impl Memory {
    /// Reads both of a live process.
    pub fn of(pid: u32) -> Result<Memory> {
        let field = |name: &str| memory_kib(pid, "smaps_rollup", name);
        Ok(Memory { pss: field("Pss")?, private_dirty: field("Private_Dirty")? })
    }
}

/// Two comparisons, of one kind of size each.
pub struct Sizes {
    pss: Comparison,
    private_dirty: Comparison,
}

impl Sizes {
    /// Named `{before}pss{after}` and `{before}private_dirty{after}`, their titles ending in `when`.
    pub fn new(before: &str, after: &str, when: &str) -> Sizes {
        let one = |name: &str, title: &str| {
            let (name, title) = (format!("{before}{name}{after}"), format!("{title}, {when}"));
            Comparison::new(name, title, Unit::KiB)
        };
        Sizes { pss: one("pss", "PSS"), private_dirty: one("private_dirty", "private dirty") }
    }

    /// Adds a measurement of both.
    pub fn push(&mut self, side: Side, memory: Memory) {
        self.pss.push(side, memory.pss as f64);
        self.private_dirty.push(side, memory.private_dirty as f64);
    }

    /// Hands both over.
    pub fn into_figures(self, figures: &mut Figures) {
        figures.comparisons.extend([self.private_dirty, self.pss]);
    }
}

/// Measures `rounds` rounds of each side.
pub async fn measure(duel: &mut Duel, rounds: usize, figures: &mut Figures) -> Result<()> {
    let mut running = Sizes::new("", "", "one container");
    let mut after_exec = Sizes::new("", "_after_exec", "after an exec");
    let mut progress = Progress::new("memory", rounds);
    for round in 0..rounds {
        for side in duel.order()? {
            for [first, second] in one_round(duel.world(side), round).await? {
                running.push(side, first);
                after_exec.push(side, second);
            }
        }
        progress.step(round + 1, 0);
    }
    running.into_figures(figures);
    after_exec.into_figures(figures);
    Ok(())
}

async fn one_round(world: &World, round: usize) -> Result<Vec<[Memory; 2]>> {
    let mut pods = Vec::new();
    for pod in 0..ALIVE {
        pods.push(world.run(&format!("memory-{round}-{pod}")).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let running: Vec<Memory> = pods.iter().map(of_shim).collect::<Result<_>>()?;
    for pod in &pods {
        world.exec(pod, "one", &["true"]).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let after_exec: Vec<Memory> = pods.iter().map(of_shim).collect::<Result<_>>()?;
    for pod in pods {
        world.end(pod).await?;
    }
    Ok(running.into_iter().zip(after_exec).map(|(first, second)| [first, second]).collect())
}

fn of_shim(container: &Container) -> Result<Memory> {
    Memory::of(container.shim.pid)
}

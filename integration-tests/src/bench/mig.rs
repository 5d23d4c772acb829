//! What a MIG instance adds to a launch: one that stands already, and one that is made for it, against the same container without a request.
//!
//! Decides when the next launch may begin: when what the last one had is as it was before. The simulated driver takes no time of its own here, so that making
//! an instance costs what Berth adds to what a driver takes.

use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::contenders::Contenders;
use super::figures::{Figures, Unit};
use super::gpu::image;
use super::interrupt;
use super::occupied::Occupied;
use super::progress::Progress;
use super::stats::Samples;
use super::world::{World, ms_since};
use crate::wait;

/// Asks for one instance.
const ONE_SLICE: (&str, &str) = ("berth.dev/mig", "1g.10gb");

/// The GPU that stays free of grants, in MIG mode.
const FREE: &str = "0";

/// How a node treats an instance that nobody uses any more.
struct Kind {
    node: Occupied,
    world: World,
    /// Grants that are left between launches.
    left: usize,
}

impl Kind {
    async fn up(contenders: &Contenders, linger: &str, left: usize) -> Result<Self> {
        let node = Occupied::up()?;
        node.place.gpus.sim.set_mig_mode(FREE, true)?;
        node.place.gpus.set("mig-linger", linger)?;
        let left = node.place.grants()?.len() + left;
        let world = World::with(contenders.berth.clone(), node.env(), image).await?;
        Ok(Self { node, world, left })
    }

    /// Milliseconds of Create and Start. Returns when the instance is idle, or gone.
    async fn launch(&self, id: &str, ask: Option<(&str, &str)>) -> Result<f64> {
        let prepared = self.world.prepare_asking(id, ask)?;
        let reply = self.world.start_command(&prepared).await?;
        let shim = self.world.connect(&prepared, &reply).await?;
        let begin = Instant::now();
        let container = self.world.create(prepared, shim).await?;
        container.start().await?;
        let time = ms_since(begin);
        self.world.end(container).await?;
        let settled = || {
            let grants = self.node.place.grants().ok()?;
            let used =
                grants.iter().any(|grant| !grant.slots.is_empty() && !grant.members.is_empty());
            (!used && grants.len() <= self.left).then_some(())
        };
        wait::until("the instance is given back", settled).context("between launches")?;
        Ok(time)
    }
}

/// Measures `runs` launches of each kind, in turns, after `warm_up` that do not count.
///
/// # Errors
/// When a launch fails.
pub async fn measure(
    contenders: &Contenders,
    runs: usize,
    warm_up: usize,
    figures: &mut Figures,
) -> Result<()> {
    let standing = Kind::up(contenders, "3600", 1).await?;
    let made = Kind::up(contenders, "0", 0).await?;
    let (mut plain, mut existing, mut created) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut progress = Progress::new("mig", runs);
    for run in 0..warm_up + runs {
        if interrupt::asked() {
            bail!("interrupted");
        }
        let without = standing.launch(&format!("plain-{run}"), None).await?;
        let stood = standing.launch(&format!("standing-{run}"), Some(ONE_SLICE)).await?;
        let anew = made.launch(&format!("made-{run}"), Some(ONE_SLICE)).await?;
        if run >= warm_up {
            plain.push(without);
            existing.push(stood);
            created.push(anew);
        }
        progress.step(run + 1, warm_up);
    }
    let added = |with: &Samples, without: &Samples| Some(with.median()? - without.median()?);
    for (name, value) in [
        ("mig_existing_added_p50_ms", added(&existing, &plain)),
        ("mig_create_overhead_ms", added(&created, &existing)),
    ] {
        if let Some(value) = value {
            figures.note(name, value, Unit::Ms);
        }
    }
    Ok(())
}

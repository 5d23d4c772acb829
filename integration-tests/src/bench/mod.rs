//! `make bench`: Berth beside containerd-shim-runc-v2, without containerd, with the same OCI runtime and
//! alternating in one run; and what a GPU adds, on a simulated node. Decides which parts run and where their figures go. Asserts nothing about speed.

pub mod admission;
pub mod burst;
pub mod chart;
pub mod contenders;
pub mod duel;
pub mod exec;
pub mod figures;
pub mod gpu;
pub mod interrupt;
pub mod lifecycle;
pub mod memory;
pub mod mig;
pub mod occupied;
pub mod options;
pub mod page;
pub mod pods;
pub mod progress;
pub mod stats;
pub mod streams;
pub mod summary;
pub mod table;
pub mod world;

use anyhow::Result;

use self::contenders::Contenders;
use self::duel::Duel;
use self::figures::{Figures, Unit};
use self::occupied::Occupied;
use self::options::{Options, Part};

/// Making and destroying an instance by children of their own takes its time.
const MIG_RUNS: usize = 100;

/// Runs the parts that `options` ask for. Whatever happens, nothing of them stays behind.
pub async fn measure(options: &Options, contenders: &Contenders) -> Result<Figures> {
    let mut figures = Figures::default();
    let mut duel = Duel::new(contenders.berth.clone(), contenders.reference.clone()).await?;
    let (runs, warm_up) = (options.runs, options.warm_up());
    if options.wants(Part::Lifecycle) {
        lifecycle::measure(&mut duel, runs, warm_up, &mut figures).await?;
        figures.note("lifecycle_runs", runs as f64, Unit::Count);
    }
    if options.wants(Part::Gpu) {
        let node = Occupied::up()?;
        admission::measure(&node, options.admissions(), &mut figures)?;
        gpu::measure(&node, contenders, runs, warm_up, &mut figures).await?;
        figures.note("gpu_runs", runs as f64, Unit::Count);
        drop(node);
        mig::measure(contenders, runs.min(MIG_RUNS), warm_up, &mut figures).await?;
    }
    if options.wants(Part::Exec) {
        exec::measure(&mut duel, runs, warm_up, &mut figures).await?;
        streams::measure(&mut duel, runs * 10, warm_up * 10, &mut figures).await?;
    }
    if options.wants(Part::Burst) {
        burst::measure(&mut duel, options.bursts(), &mut figures).await?;
    }
    if options.wants(Part::Memory) {
        memory::measure(&mut duel, options.memory_rounds(), &mut figures).await?;
    }
    if options.wants(Part::Pods) {
        pods::measure(&mut duel, options.pods(), &mut figures).await?;
    }
    if let Some(size) = contenders.stripped_size() {
        figures.note("shim_stripped_bytes", size as f64, Unit::Bytes);
    }
    Ok(figures)
}

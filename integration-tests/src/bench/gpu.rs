//! What a GPU adds to a launch: a container with one through Berth, the same without through Berth, and the same without through
//! containerd-shim-runc-v2, on a node with two hundred grants.
//!
//! Decides what a launch is: Create and Start, as containerd waits for them. The image has a glibc and a loader cache like that of
//! an image with CUDA in it; it, the driver's files and the container's own layer are in the scratch folder.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use simnode::elf;

use super::contenders::Contenders;
use super::figures::{Comparison, Figures, Side, Unit};
use super::interrupt;
use super::occupied::{ONE_GPU, Occupied};
use super::progress::Progress;
use super::world::{World, ms_since};
use crate::images::glibc::Layout;

/// Libraries in the image besides the libc's: an image with CUDA and Python has some hundreds.
const LIBRARIES: usize = 400;

/// Who launches what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Launch {
    Gpu,
    Plain,
    Reference,
}

/// Measures `runs` launches of each kind, in turns, after `warm_up` that do not count.
///
/// # Errors
/// When a launch fails.
pub async fn measure(
    node: &Occupied,
    contenders: &Contenders,
    runs: usize,
    warm_up: usize,
    figures: &mut Figures,
) -> Result<()> {
    let berth = World::with(contenders.berth.clone(), node.env(), image).await?;
    let reference = World::with(contenders.reference.clone(), Vec::new(), image).await?;
    let mut gpu =
        Comparison::new("gpu_vs_plain_reference", "launch with a GPU / without one", Unit::Ms);
    let mut plain = Comparison::new("glibc_launch", "launch without a GPU", Unit::Ms);
    let mut order = [Launch::Gpu, Launch::Plain, Launch::Reference];
    let mut progress = Progress::new("gpu", runs);
    for run in 0..warm_up + runs {
        if interrupt::asked() {
            bail!("interrupted");
        }
        // Each follows each of the others equally often: six orders in six runs.
        order.rotate_left(1);
        if run % 3 == 0 {
            order.swap(0, 1);
        }
        for launch in order {
            let world = if launch == Launch::Reference { &reference } else { &berth };
            let time =
                one_launch(world, launch, &format!("{launch:?}-{run}").to_lowercase()).await?;
            if run < warm_up {
                continue;
            }
            match launch {
                Launch::Gpu => gpu.push(Side::Berth, time),
                Launch::Plain => plain.push(Side::Berth, time),
                Launch::Reference => {
                    gpu.push(Side::Reference, time);
                    plain.push(Side::Reference, time);
                }
            }
        }
        progress.step(run + 1, warm_up);
    }
    let added = |with: Option<f64>, without: Option<f64>| Some(with? - without?);
    for (name, value) in [
        ("gpu_added_p10_ms", added(gpu.berth.p10(), plain.berth.p10())),
        ("gpu_added_p50_ms", added(gpu.berth.median(), plain.berth.median())),
        ("gpu_added_p99_ms", added(gpu.berth.p99(), plain.berth.p99())),
    ] {
        // Too few runs for a percentile say nothing of it.
        if let Some(value) = value {
            figures.note(name, value, Unit::Ms);
        }
    }
    figures.comparisons.extend([plain, gpu]);
    Ok(())
}

/// Milliseconds of Create and Start.
async fn one_launch(world: &World, launch: Launch, id: &str) -> Result<f64> {
    let prepared = world.prepare_asking(id, (launch == Launch::Gpu).then_some(ONE_GPU))?;
    let reply = world.start_command(&prepared).await?;
    let shim = world.connect(&prepared, &reply).await?;
    let begin = Instant::now();
    let container = world.create(prepared, shim).await?;
    container.start().await?;
    let time = ms_since(begin);
    world.end(container).await?;
    Ok(time)
}

/// Debian's layout with many libraries, all of them in its loader cache.
pub(super) fn image(root: &Path) -> Result<()> {
    Layout::Debian.build(root)?;
    let folder = root.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    for nth in 0..LIBRARIES {
        let soname = format!("libsomething-of-the-image-{nth}.so.{}", nth % 20);
        fs::write(folder.join(&soname), elf::shared_object(elf::Machine::host(), &soname))?;
    }
    // A tree of our own making: nothing in it can lead ldconfig astray.
    let status = Command::new("/sbin/ldconfig").arg("-r").arg(root).status();
    ensure!(status.context("run ldconfig")?.success(), "ldconfig failed");
    Ok(())
}

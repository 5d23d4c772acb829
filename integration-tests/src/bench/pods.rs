//! One pod with few and with many containers in one shim: how long they take to come up, one after the
//! other, and what the shim then holds.

use std::time::Instant;

use anyhow::Result;

use super::duel::Duel;
use super::figures::{Comparison, Figures, Unit};
use super::memory::{Memory, SETTLE, Sizes};
use super::progress::Progress;
use super::world::{Container, World, ms_since};
use crate::deadline::{Process, within};

/// Pod sizes. Large pods take their time; a third as many of them say enough.
const SIZES: [usize; 3] = [1, 10, 50];
const LARGE: usize = 50;

/// Measures `pods` pods of each size and side.
pub async fn measure(duel: &mut Duel, pods: usize, figures: &mut Figures) -> Result<()> {
    let mut join = Comparison::new("member_start", "start command in a pod", Unit::Ms);
    for size in SIZES {
        let title = format!("create and start, pod of {size}");
        let mut create = Comparison::new(format!("pod{size}_create"), title, Unit::Ms);
        let mut sizes = Sizes::new(&format!("pod{size}_"), "", &format!("pod of {size}"));
        let rounds = if size == LARGE { pods.div_ceil(3) } else { pods };
        let mut progress = Progress::new("pods", rounds);
        for round in 0..rounds {
            for side in duel.order()? {
                let pod = one_pod(duel.world(side), &format!("pod{size}-{round}"), size).await?;
                create.push(side, pod.create);
                sizes.push(side, pod.memory);
                pod.joins.iter().for_each(|time| join.push(side, *time));
            }
            progress.step(round + 1, 0);
        }
        figures.comparisons.push(create);
        sizes.into_figures(figures);
    }
    figures.comparisons.push(join);
    Ok(())
}

/// Times in milliseconds.
struct Pod {
    /// Create and Start of all containers.
    create: f64,
    /// The `start` command of each container after the first, answered with the shim that is there.
    joins: Vec<f64>,
    memory: Memory,
}

async fn one_pod(world: &World, pod: &str, size: usize) -> Result<Pod> {
    let mut containers: Vec<Container> = Vec::with_capacity(size);
    let (mut create, mut joins) = (0.0, Vec::new());
    for member in 0..size {
        // The first container is the sandbox, whose id is the pod's.
        let id = if member == 0 { pod.to_string() } else { format!("{pod}-{member}") };
        let prepared = world.prepare(&id, Some(pod))?;
        let begin = Instant::now();
        let reply = world.start_command(&prepared).await?;
        if member > 0 {
            joins.push(ms_since(begin));
        }
        let shim = world.connect(&prepared, &reply).await?;
        let begin = Instant::now();
        let container = world.create(prepared, shim).await?;
        container.start().await?;
        create += ms_since(begin);
        containers.push(container);
    }
    tokio::time::sleep(SETTLE).await;
    let memory = Memory::of(containers[0].shim.pid)?;
    take_down(world, containers).await?;
    Ok(Pod { create, joins, memory })
}

/// Members first, the sandbox last, as the CRI does.
async fn take_down(world: &World, mut containers: Vec<Container>) -> Result<()> {
    while let Some(container) = containers.pop() {
        container.kill_and_delete().await?;
        let process = Process::open(container.shim.pid);
        within("Shutdown", container.shim.task.shutdown(container.id())).await?.ok();
        if let (true, Some(process)) = (containers.is_empty(), process) {
            process.exited().await?;
        }
        world.delete_command(&container.prepared).await?;
        world.remove(&container.prepared)?;
    }
    Ok(())
}

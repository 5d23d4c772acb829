//! CPUs for one container alone.

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::task::Task;
use integration_tests::dice::{Dice, seeds};
use plan::CpuSet;

use crate::ground::{Ground, held, pid, seats};

/// Containers altogether.
const ALL: usize = 20;

/// Containers come and go in an order that a seed decides; nobody's CPUs are ever another's, and those who share are kept off them.
pub fn no_two_of_twenty_containers_have_the_same_cpu(ground: &Ground) -> Result<()> {
    let node = ground.node("")?;
    // All but the first CPU of each NUMA node are for whoever asks.
    let pool: CpuSet = seats(&node)?.iter().flat_map(|seat| seat.cpus.iter().skip(1)).collect();
    drop(node);
    let more = format!("exclusive-cpus = \"{pool}\"\n[policy]\nexclusive-cpus = \"non-cri\"");
    let kubelet = ground.kubelet(&more)?;
    let seed = seeds(1).start;
    eprintln!("BERTH_TEST_SEED={seed}");
    let mut dice = Dice::of(seed);
    let mut running: Vec<(Task<'_>, bool, CpuSet)> = Vec::new();
    let mut begun = 0;
    while begun < ALL || !running.is_empty() {
        let full = running.len() == 4;
        if begun < ALL && !full && (running.is_empty() || dice.below(3) > 0) {
            begun += 1;
            let alone = dice.below(4) > 0;
            let cpus = format!("berth.dev/cpus={}", 1 + dice.below(2));
            let mut flags = vec!["--annotation", "berth.dev/gpus=1"];
            if alone {
                flags.extend(["--annotation", &cpus]);
            }
            let task = Task::detached(&kubelet.containerd, "alone", &flags, &["sleep", "100000"])?;
            let has: CpuSet = held(pid(&task)?)?.cpus.parse()?;
            running.push((task, alone, has));
        } else {
            let (task, ..) = running.swap_remove(dice.below(running.len()));
            task.end()?;
        }
        for (nth, (task, alone, has)) in running.iter().enumerate() {
            let now: CpuSet = held(pid(task)?)?.cpus.parse()?;
            ensure!(now == *has, "{}: {has} became {now}", task.id);
            let others = running.iter().enumerate().filter(|(other, _)| *other != nth);
            let clash = others
                .map(|(_, other)| other)
                .find(|other| (*alone || other.1) && other.2.meets(has));
            ensure!(
                clash.is_none(),
                "{} shares {has} with {}",
                task.id,
                clash.map_or("", |one| &one.0.id)
            );
            ensure!(*alone == has.is_within(&pool), "{}: {has} of the pool {pool}", task.id);
        }
        let verified = kubelet.node.berth(&["ledger", "verify"])?;
        ensure!(verified.code() == 0, "{verified:?}");
    }
    kubelet.node.is_free().context("after the last")
}

//! MIG on every kind of GPU that has it, as many at once as there is room for, and switched on where policy allows.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::gpu::world::World;
use simnode::State;

use super::instances::{is_free_soon, mig, sleeper, split};

/// Profiles by id, as NVIDIA's guide lists them: name, most on a GPU.
type Geometry<'a> = &'a [(u32, &'a str, u32)];

const BIG: [u32; 7] = [19, 20, 15, 14, 9, 5, 0];
const MOST: [u32; 7] = [7, 1, 4, 3, 2, 1, 1];

/// On a machine of this kind: every profile alone, as often as it fits on one GPU, and once more is refused.
fn every_profile_of(stage: &Stage, machine: &str, geometry: Geometry<'_>) -> Result<()> {
    let world = World::up(stage, machine, "")?;
    let gpu = "0";
    if world.node.sim.set_mig_mode(gpu, true)?.is_some() {
        // Ampere takes a reset.
        world.node.sim.reset_gpu(gpu)?;
    }
    for (id, name, most) in geometry {
        let task = sleeper(&world, "all", &format!("{most}x{name}"));
        let task = task.with_context(|| format!("{most} of {name}"))?;
        let state = world.state()?;
        let there: Vec<u32> = state.gpus[0].instances.iter().map(|one| one.profile).collect();
        ensure!(there == vec![*id; *most as usize], "{name}: {there:?}");
        let said = task.exec(&["sh", "-c", "ls /dev/nvidia-caps | wc -l"])?;
        ensure!(said.out.trim_end() == (2 * most).to_string(), "{name}: {said:?}");
        let more = Task::named(&world.containerd, "more");
        let flags = mig(name);
        let flags = flags.each_ref().map(String::as_str);
        let said =
            more.foreground(integration_tests::containerd::task::BERTH, &flags, &["true"])?;
        ensure!(said.code() == 1 && said.err.contains("no room for mig"), "{name}: {said:?}");
        more.removed()?;
        task.end()?;
        is_free_soon(&world, &[])?;
    }
    Ok(())
}

fn big(names: [&'static str; 7]) -> Vec<(u32, &'static str, u32)> {
    (0..7).map(|nth| (BIG[nth], names[nth], MOST[nth])).collect()
}

pub fn every_profile_of_an_a100(stage: &Stage) -> Result<()> {
    let names = ["1g.5gb", "1g.5gb+me", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"];
    every_profile_of(stage, "p4d", &big(names))
}

pub fn every_profile_of_an_h100(stage: &Stage) -> Result<()> {
    let names = ["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"];
    every_profile_of(stage, "p5", &big(names))
}

pub fn every_profile_of_an_h200(stage: &Stage) -> Result<()> {
    let names = ["1g.18gb", "1g.18gb+me", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"];
    every_profile_of(stage, "h200", &big(names))
}

pub fn every_profile_of_a_b200(stage: &Stage) -> Result<()> {
    let names = ["1g.23gb", "1g.23gb+me", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"];
    every_profile_of(stage, "b200", &big(names))
}

pub fn every_profile_of_an_a30(stage: &Stage) -> Result<()> {
    let geometry = [(14, "1g.6gb", 4), (21, "1g.6gb+me", 1), (5, "2g.12gb", 2), (0, "4g.24gb", 1)];
    every_profile_of(stage, "a30", &geometry)
}

/// UUIDs of all MIG devices of the node.
fn uuids(state: &State) -> BTreeSet<String> {
    let all = state.gpus.iter().flat_map(|gpu| &gpu.instances).flat_map(|one| &one.compute);
    all.map(|compute| compute.uuid.clone()).collect()
}

pub fn thirty_two_launches_at_once_get_thirty_two_instances(stage: &Stage) -> Result<()> {
    const LAUNCHES: usize = 32;
    let world = World::up(stage, "p5", "")?;
    for gpu in 0..8 {
        world.node.sim.set_mig_mode(&gpu.to_string(), true)?;
    }
    let launched: Vec<Result<Task<'_>>> = std::thread::scope(|scope| {
        let world = &world;
        let launch =
            |nth: usize| scope.spawn(move || sleeper(world, &format!("many{nth}"), "1g.10gb"));
        let all: Vec<_> = (0..LAUNCHES).map(launch).collect();
        let joined = all.into_iter().map(|one| one.join());
        joined.map(|one| one.unwrap_or_else(|_| anyhow::bail!("a launch panicked"))).collect()
    });
    let tasks: Vec<Task<'_>> = launched.into_iter().collect::<Result<_>>()?;
    let mut seen = BTreeSet::new();
    for task in &tasks {
        let said = task.exec(&["sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES"])?;
        ensure!(seen.insert(said.out.trim_end().to_owned()), "given twice: {}", said.out);
    }
    let there = uuids(&world.state()?);
    ensure!(seen == there && there.len() == LAUNCHES, "{seen:#?}\nis not\n{there:#?}");
    ensure!(world.node.berth(&["ledger", "verify"])?.code() == 0, "sound");
    for task in tasks {
        task.end()?;
    }
    is_free_soon(&world, &[])
}

pub fn a_gpu_is_switched_into_mig_mode_where_policy_allows(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "[policy]\nmig-mode-switch = \"non-cri\"\n")?;
    let modes = |world: &World| -> Result<Vec<bool>> {
        Ok(world.state()?.gpus.iter().map(simnode::state::Gpu::in_mig_mode).collect())
    };
    let one = sleeper(&world, "one", "3g.40gb")?;
    let two = sleeper(&world, "two", "3g.40gb")?;
    ensure!(
        modes(&world)?.iter().filter(|on| **on).count() == 1,
        "one is enough: {:?}",
        modes(&world)?
    );
    let three = sleeper(&world, "three", "7g.80gb")?;
    ensure!(modes(&world)?.iter().filter(|on| **on).count() == 2, "{:?}", modes(&world)?);
    for task in [one, two, three] {
        task.end()?;
    }
    is_free_soon(&world, &[])?;
    ensure!(modes(&world)?.iter().filter(|on| **on).count() == 2, "they stay so");
    Ok(())
}

pub fn a_mode_that_takes_a_reset_is_left_as_it_is(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p4d", "[policy]\nmig-mode-switch = \"non-cri\"\n")?;
    let task = Task::named(&world.containerd, "in-vain");
    let flags = mig("1g.5gb");
    let flags = flags.each_ref().map(String::as_str);
    let said = task.foreground(integration_tests::containerd::task::BERTH, &flags, &["true"])?;
    ensure!(said.code() == 1 && said.err.contains("it takes a reset of the GPU"), "{said:?}");
    task.removed()?;
    for gpu in &world.state()?.gpus {
        let mode = gpu.mig.context("an A100 has MIG")?;
        ensure!(!mode.current && !mode.pending, "{mode:?}");
    }
    is_free_soon(&world, &[])
}

pub fn without_leave_the_mode_stays_and_the_refusal_says_so(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    let task = Task::named(&world.containerd, "in-vain");
    let flags = mig("3x7g.80gb");
    let flags = flags.each_ref().map(String::as_str);
    let said = task.foreground(integration_tests::containerd::task::BERTH, &flags, &["true"])?;
    ensure!(said.code() == 1 && said.err.contains("not in MIG mode"), "{said:?}");
    task.removed()?;
    ensure!(
        world.state()?.gpus.iter().filter(|gpu| gpu.in_mig_mode()).count() == 2,
        "two as before"
    );
    is_free_soon(&world, &[])
}

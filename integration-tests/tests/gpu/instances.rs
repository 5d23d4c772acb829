//! MIG instances: made for the container that asks, at the decided place, and gone with it. Those of others stay as they are.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::gpu::world::{ONE_GPU, SLEEP, World};
use integration_tests::wait;
use serde_json::Value;
use simnode::mig::GpuInstance;
use simnode::{Change, State};

/// A node of H100s whose first two GPUs are in MIG mode.
pub fn split(stage: &Stage, more: &str) -> Result<World> {
    let world = World::up(stage, "p5", more)?;
    for gpu in ["0", "1"] {
        let pending = world.node.sim.set_mig_mode(gpu, true)?;
        ensure!(pending.is_none(), "GPU {gpu}: {pending:?}");
    }
    Ok(world)
}

pub fn mig(what: &str) -> [String; 2] {
    ["--annotation".to_owned(), format!("berth.dev/mig={what}")]
}

pub fn sleeper<'a>(world: &'a World, id: &str, what: &str) -> Result<Task<'a>> {
    let flags = mig(what);
    Task::detached(&world.containerd, id, &flags.each_ref().map(String::as_str), &SLEEP)
}

/// All instances of the node: index of the GPU, profile, first slice.
fn instances(state: &State) -> Vec<(usize, u32, u32)> {
    let of = |(gpu, instances): (usize, &Vec<GpuInstance>)| {
        let one = move |one: &GpuInstance| (gpu, one.profile, one.placement.start);
        instances.iter().map(one).collect::<Vec<_>>()
    };
    state.gpus.iter().map(|gpu| &gpu.instances).enumerate().flat_map(of).collect()
}

/// The same of what the grants say that they hold.
fn granted(world: &World) -> Result<BTreeSet<(String, String, u64)>> {
    let mut all = BTreeSet::new();
    for grant in world.node.grants()? {
        for one in grant["instances"].as_array().context("a list")? {
            let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
            let start = one["start"].as_u64().context("a slice")?;
            ensure!(all.insert((text("gpu"), text("profile"), start)), "given twice: {one}");
        }
    }
    Ok(all)
}

/// Waits until nothing is held, nor of Berth's making.
pub fn is_free_soon(world: &World, left: &[(usize, u32, u32)]) -> Result<()> {
    let is_free = || {
        let gone = world.node.is_free().is_ok() && instances(&world.state().ok()?) == left;
        gone.then_some(())
    };
    let freed = wait::until("instances are destroyed", is_free);
    freed.with_context(|| {
        format!("{:?}, {:?}", world.node.grants(), world.state().map(|s| instances(&s)))
    })
}

fn only<'a>(grant: &'a Value, list: &str) -> Result<&'a Value> {
    let list = grant[list].as_array().with_context(|| format!("{list} in {grant}"))?;
    ensure!(list.len() == 1, "one: {list:?}");
    Ok(&list[0])
}

pub fn an_instance_is_there_as_long_as_its_container(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    let task = sleeper(&world, "one", "1g.10gb")?;
    let grant = world.grant()?;
    let (given, gpu) = (only(&grant, "instances")?, only(&grant, "gpus")?);
    let state = world.state()?;
    let there = instances(&state);
    let index = usize::try_from(gpu["index"].as_u64().context("an index")?)?;
    let start = u32::try_from(given["start"].as_u64().context("a slice")?)?;
    ensure!(there == [(index, 19, start)], "{there:?} is not {given}");
    let made = &state.gpus[index].instances[0];
    ensure!(made.compute.len() == 1 && given["mig_uuid"] == made.compute[0].uuid, "{given}");
    // The static formula of NVIDIA's mig-minors.
    let minor = state.gpus[index].minor;
    let cap = 3 + 135 * minor + 9 * made.id;
    let script = "for node in /dev/nvidia[0-9]* /dev/nvidia-caps/*; do echo \"$node $(cat $node 2>&1)\"; done; \
                  find /proc/driver/nvidia/capabilities -type f | sort; echo $NVIDIA_VISIBLE_DEVICES";
    let said = task.exec(&["sh", "-c", script])?;
    let below = format!("/proc/driver/nvidia/capabilities/gpu{minor}/mig/gi{}", made.id);
    let open = |node: &str| format!("{node} cat: can't open '{node}': No such device or address");
    let wanted = [
        open(&format!("/dev/nvidia{minor}")),
        open(&format!("/dev/nvidia-caps/nvidia-cap{cap}")),
        open(&format!("/dev/nvidia-caps/nvidia-cap{}", cap + 1)),
        format!("{below}/access"),
        format!("{below}/ci0/access"),
        made.compute[0].uuid.clone(),
    ];
    let lines: Vec<&str> = said.out.lines().collect();
    ensure!(lines == wanted, "{lines:#?}\nis not\n{wanted:#?}");
    task.end()?;
    is_free_soon(&world, &[])
}

pub fn several_instances_are_one_grant(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    let task = sleeper(&world, "three", "3x3g.40gb")?;
    let grant = world.grant()?;
    let there = instances(&world.state()?);
    ensure!(there.len() == 3 && there.iter().all(|(_, profile, _)| *profile == 9), "{there:?}");
    ensure!(granted(&world)?.len() == 3, "{grant}");
    let said =
        task.exec(&["sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES; ls /dev/nvidia-caps | wc -l"])?;
    let (uuids, nodes) = said.out.trim_end().split_once('\n').context("two lines")?;
    ensure!(uuids.split(',').count() == 3 && nodes == "6", "{said:?}");
    task.end()?;
    is_free_soon(&world, &[])
}

pub fn an_instance_stays_until_its_container_is_deleted(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    let task = sleeper(&world, "ended", "2g.20gb")?;
    let before = instances(&world.state()?);
    task.kill("SIGKILL")?;
    task.stopped()?;
    ensure!(instances(&world.state()?) == before, "its task has ended and is not deleted");
    task.delete()?;
    task.removed()?;
    is_free_soon(&world, &[])
}

pub fn what_others_made_is_neither_given_nor_touched(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    let foreign = world.node.sim.create_instance("0", "7g.80gb", None, true)?;
    let bare = world.node.sim.create_instance("1", "3g.40gb", Some(0), false)?;
    let theirs = [(0, foreign.profile, 0), (1, bare.profile, 0)];
    let task = sleeper(&world, "one", "3g.40gb")?;
    ensure!(granted(&world)?.iter().all(|(_, _, start)| *start == 4), "{:?}", granted(&world)?);
    let holder = world.grant()?["owner"].as_str().context("a holder")?.to_owned();
    let theirs_on =
        |profile: &str| format!("held by {profile} (an instance that Berth did not make)");
    let words = [theirs_on("7g.80gb"), format!("{} and 3g.40gb ({holder})", theirs_on("3g.40gb"))];
    let words = words.each_ref().map(String::as_str);
    let refusal = no_room(&world, "mig 3g.40gb", words, "nothing smaller fits")?;
    world.refuses(&mig("3g.40gb").each_ref().map(String::as_str), &refusal)?;
    task.end()?;
    is_free_soon(&world, &theirs)
}

pub fn what_others_made_is_given_by_its_name_and_left(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    let foreign = world.node.sim.create_instance("0", "3g.40gb", Some(4), true)?;
    let theirs = [(0, foreign.profile, 4)];
    let uuid = foreign.compute[0].uuid.clone();
    let flags = ["--annotation".to_owned(), format!("berth.dev/devices={uuid}")];
    let flags = flags.each_ref().map(String::as_str);
    let task = Task::detached(&world.containerd, "named", &flags, &SLEEP)?;
    let grant = world.grant()?;
    let given = only(&grant, "instances")?;
    ensure!(given["mig_uuid"] == uuid && given["stage"] == "foreign", "{given}");
    let look =
        "echo $NVIDIA_VISIBLE_DEVICES; cd /proc/driver/nvidia/capabilities; find . -type f | sort";
    let said = task.exec(&["sh", "-c", look])?;
    let minor = world.state()?.gpus[0].minor;
    let below = format!("./gpu{minor}/mig/gi{}", foreign.id);
    ensure!(said.out == format!("{uuid}\n{below}/access\n{below}/ci0/access\n"), "{said:?}");
    let holder = grant["owner"].as_str().context("a holder")?;
    world.refuses(
        &flags,
        &format!("berth: no room for devices {uuid}: {uuid}: held by {holder}; no MIG instance of another's making is free"),
    )?;
    let own = sleeper(&world, "own", "3g.40gb")?;
    own.end()?;
    task.end()?;
    is_free_soon(&world, &theirs)
}

/// A node without room for `wanted`: these words about its first two GPUs, and the others, which are whole.
fn no_room(world: &World, wanted: &str, words: [&str; 2], nearest: &str) -> Result<String> {
    let state = world.state()?;
    let mut parts = Vec::new();
    for (index, gpu) in state.gpus.iter().enumerate() {
        let why = words.get(index).copied().unwrap_or("not in MIG mode");
        parts.push(format!("{}: {why}", gpu.uuid));
    }
    Ok(format!("berth: no room for {wanted}: {}; {nearest}", parts.join("; ")))
}

pub fn whole_gpus_and_instances_live_side_by_side(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    let whole = world.sleeper(&["--annotation", "berth.dev/gpus=6"])?;
    let slice = sleeper(&world, "slice", "1g.10gb")?;
    world.refuses(&ONE_GPU, &whole_refusal(&world)?)?;
    slice.end()?;
    whole.end()?;
    is_free_soon(&world, &[])
}

fn whole_refusal(world: &World) -> Result<String> {
    let grants = world.node.grants()?;
    let whole =
        grants.iter().find(|grant| grant["instances"].as_array().is_some_and(Vec::is_empty));
    let holder = whole.and_then(|grant| grant["owner"].as_str()).context("who holds six")?;
    let mut parts = Vec::new();
    for (index, gpu) in world.state()?.gpus.iter().enumerate() {
        let held = format!("held by {holder}");
        parts.push(format!("{}: {}", gpu.uuid, if index < 2 { "in MIG mode" } else { &held }));
    }
    Ok(format!("berth: no room for gpus 1: {}; nothing is free", parts.join("; ")))
}

pub fn a_freed_instance_is_taken_over_while_it_lingers(stage: &Stage) -> Result<()> {
    let world = split(stage, "mig-linger = 3600\n")?;
    let first = sleeper(&world, "first", "1g.10gb")?;
    let serial = |world: &World| -> Result<Vec<u64>> {
        let state = world.state()?;
        Ok(state.gpus.iter().flat_map(|gpu| &gpu.instances).map(|one| one.serial).collect())
    };
    let made = serial(&world)?;
    first.end()?;
    let second = sleeper(&world, "second", "1g.10gb")?;
    ensure!(serial(&world)? == made && made.len() == 1, "the very instance: {made:?}");
    let said = second.exec(&["sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES"])?;
    let uuid = world
        .state()?
        .gpus
        .iter()
        .flat_map(|gpu| &gpu.instances)
        .map(|one| one.compute[0].uuid.clone())
        .collect::<String>();
    ensure!(said.out.trim_end() == uuid, "{said:?} is not {uuid}");
    // What lingers is not there for ever: a reload of the driver takes it, and then nothing is left to be given back.
    world.node.set("mig-linger", "0")?;
    second.end()?;
    is_free_soon(&world, &[])
}

pub fn an_unknown_profile_is_refused_with_those_that_there_are(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    let task = Task::named(&world.containerd, "unknown");
    let flags = mig("5g.50gb");
    let said = task.foreground(
        integration_tests::containerd::task::BERTH,
        &flags.each_ref().map(String::as_str),
        &["true"],
    )?;
    ensure!(said.code() == 1, "{said:?}");
    for name in ["5g.50gb", "1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"] {
        ensure!(said.err.contains(name), "{name} is not in {}", said.err);
    }
    task.removed()?;
    is_free_soon(&world, &[])
}

pub fn a_reload_of_the_driver_takes_the_instances_and_is_noticed(stage: &Stage) -> Result<()> {
    let world = split(stage, "")?;
    let task = sleeper(&world, "one", "1g.10gb")?;
    world.node.sim.change(Change::Unload)?;
    world.node.sim.change(Change::Load)?;
    task.end()?;
    wait::until("the grant is struck out", || world.node.is_free().ok())?;
    Ok(())
}

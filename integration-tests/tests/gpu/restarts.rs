//! From start to end, and every other way to end: what a container held comes back.

use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::ctr::said;
use integration_tests::containerd::leftovers::none_of;
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::{BERTH, Task};
use integration_tests::deadline::{Process, STUCK};
use integration_tests::gpu::world::{ONE_GPU, SLEEP, World, uuids};
use integration_tests::{machine, wait};

/// Waits until `berth ps` shows nothing, then asks everything.
fn comes_back(world: &World) -> Result<()> {
    wait::until("everything to be given back", || {
        world.node.grants().is_ok_and(|grants| grants.is_empty()).then_some(())
    })?;
    world.node.is_free()
}

fn killed(pid: u32) -> Result<()> {
    let process = Process::open(pid).with_context(|| format!("process {pid} is gone already"))?;
    process.signal(libc::SIGKILL);
    ensure!(process.exited_within(STUCK), "{pid} survives SIGKILL");
    Ok(())
}

pub fn a_container_that_ends_holds_its_gpu_until_it_is_deleted(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let task = Task::detached(
        &world.containerd,
        "ends",
        &ONE_GPU,
        &["sh", "-c", "read code; exit $code"],
    )?;
    let grant = world.grant()?;
    ensure!(grant["state"] == "applied", "{grant}");
    task.type_in("7\n")?;
    task.stopped()?;
    ensure!(world.grant()? == grant, "a stopped container can still be looked at");
    // It needs it no more, though: whoever does, gets it, and the deletion does not take it from them.
    let next = world.sleeper(&ONE_GPU)?;
    ensure!(task.delete()? == 7, "its exit code");
    ensure!(world.grant()?["sandbox"] == next.id, "the next one's");
    next.end()?;
    world.node.is_free()?;
    task.removed()
}

pub fn a_foreground_container_gives_back_what_it_held(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    for code in [0, 3] {
        let task = Task::named(&world.containerd, "once");
        let script = format!("test -c /dev/nvidia0 && exit {code}");
        let said = task.foreground(BERTH, &ONE_GPU, &["sh", "-c", &script])?;
        ensure!(said.code() == code, "{said:?}");
        task.removed()?;
        world.node.is_free()?;
    }
    Ok(())
}

pub fn a_create_that_fails_after_the_grant_gives_it_back(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let task = Task::named(&world.containerd, "missing");
    let said = task.foreground(BERTH, &ONE_GPU, &["/no/such/program"])?;
    ensure!(said.err.contains("OCI runtime create failed: "), "{said:?}");
    world.node.is_free()?;
    task.removed()
}

pub fn a_killed_shim_s_gpus_come_back(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let task = world.sleeper(&ONE_GPU)?;
    killed(task.shim()?.pid)?;
    comes_back(&world)?;
    none_of(&world.containerd, world.containerd.namespace(), &task.id)?;
    task.removed()?;
    world.sleeper(&ONE_GPU)?.end()
}

pub fn a_shim_killed_between_create_and_start_holds_nothing(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let task = Task::named(&world.containerd, "created");
    // ctr writes the file between the two, and cannot: it gives up, and leaves the container created.
    let nowhere =
        world.containerd.scratch.path("no/such/folder/pid").to_string_lossy().into_owned();
    let flags = [&ONE_GPU[..], &["--detach", "--null-io", "--pid-file", &nowhere]].concat();
    let said = task.foreground(BERTH, &flags, &SLEEP)?;
    ensure!(said.code() != 0, "{said:?}");
    task.reaches("CREATED")?;
    ensure!(world.grant()?["state"] == "applied", "all is in place before the start");
    killed(task.shim()?.pid)?;
    comes_back(&world)?;
    none_of(&world.containerd, world.containerd.namespace(), &task.id)?;
    task.removed()
}

/// A container whose shim and init have been killed while no containerd was there to notice. Returns its GPUs.
pub fn left_behind(world: &World) -> Result<Vec<String>> {
    let task = world.sleeper(&ONE_GPU)?;
    let (shim, init) = (task.shim()?.pid, task.process()?.pid);
    let cgroups: Vec<_> =
        integration_tests::containerd::leftovers::cgroups(&world.containerd, &task.id);
    world.containerd.kill()?;
    killed(shim)?;
    killed(init)?;
    // The record speaks of a cgroup too: an empty one is nobody.
    ensure!(cgroups.iter().any(|folder| folder.exists()), "the cgroup is left: {cgroups:?}");
    ensure!(machine::process(init).is_none_or(|row| row.state == 'Z'), "{init} lives");
    let grant = world.grant()?;
    Ok(uuids(&grant).into_iter().map(str::to_owned).collect())
}

pub fn reconcile_gives_back_what_the_dead_hold(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let gpus = left_behind(&world)?;
    let before = fs::read(world.node.ledger()?)?;
    let dry = world.node.json(&["reconcile", "--dry-run"])?;
    ensure!(dry["dry_run"] == true && dry["kept"].as_array().is_some_and(Vec::is_empty), "{dry}");
    let released = dry["released"].as_array().context("a list")?;
    ensure!(released.len() == 1 && uuids(&released[0]) == gpus, "{dry}");
    ensure!(fs::read(world.node.ledger()?)? == before, "a dry run changes nothing");
    let said = world.node.berth(&["reconcile"])?;
    ensure!(said.code() == 0 && said.out.ends_with("1 released, 0 kept\n"), "{said:?}");
    world.node.is_free()?;
    let again = world.node.berth(&["reconcile"])?;
    ensure!(again.out == "0 released, 0 kept\n", "{again:?}");
    world.containerd.launch()
}

pub fn reconcile_leaves_the_living_alone(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let task = world.sleeper(&ONE_GPU)?;
    let before = world.grant()?;
    for dead in ["shim lives", "containerd gone"] {
        let said = world.node.berth(&["reconcile"])?;
        ensure!(said.out == "0 released, 1 kept\n", "{dead}: {said:?}");
        ensure!(world.grant()? == before, "{dead}");
        if dead == "shim lives" {
            world.containerd.kill()?;
        }
    }
    world.containerd.launch()?;
    task.reaches("RUNNING")?;
    task.end()?;
    world.node.is_free()
}

pub fn the_next_admission_takes_back_what_the_dead_hold(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let gpus = left_behind(&world)?;
    // A containerd that knows nothing of the dead.
    let other = world.another(stage)?;
    let task = Task::detached(&other, "next", &ONE_GPU, &SLEEP)?;
    let grant = world.grant()?;
    ensure!(uuids(&grant) == gpus && grant["sandbox"] == task.id, "{grant}");
    task.end()?;
    world.node.is_free()
}

pub fn eight_take_eight_and_the_ninth_waits_its_turn(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let mut tasks = (0..8).map(|_| world.sleeper(&ONE_GPU)).collect::<Result<Vec<_>>>()?;
    let grants = world.node.grants()?;
    let holder = |uuid: &str| {
        let holds = grants.iter().find(|grant| uuids(grant) == [uuid]);
        holds.and_then(|grant| grant["owner"].as_str()).map(str::to_owned)
    };
    let gpus = world.state()?.gpus;
    let candidates = gpus.iter().map(|gpu| {
        let owner = holder(&gpu.uuid).with_context(|| format!("nobody holds {}", gpu.uuid))?;
        Ok(format!("{}: held by {owner}", gpu.uuid))
    });
    let candidates = candidates.collect::<Result<Vec<_>>>()?.join("; ");
    world
        .refuses(&ONE_GPU, &format!("berth: no room for gpus 1: {candidates}; nothing is free"))?;
    let freed = tasks.remove(3);
    let id = freed.id.clone();
    freed.end()?;
    let ninth = world.sleeper(&ONE_GPU)?;
    let held_before = grants.iter().find(|grant| grant["sandbox"] == id).context("its grant")?;
    let now = world.node.grants()?;
    let held_now = now.iter().find(|grant| grant["sandbox"] == ninth.id).context("its grant")?;
    ensure!(uuids(held_before) == uuids(held_now), "{held_before} {held_now}");
    tasks.push(ninth);
    tasks.into_iter().try_for_each(Task::end)?;
    world.node.is_free()
}

pub fn of_two_at_once_for_the_last_gpu_one_wins(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let tasks = [(); 2].map(|()| Task::named(&world.containerd, "race"));
    let run = |task: &Task<'_>| {
        said(&mut task.command(BERTH, &[&ONE_GPU[..], &["--detach", "--null-io"]].concat(), &SLEEP))
    };
    let [one, two] = std::thread::scope(|scope| {
        let threads = [&tasks[0], &tasks[1]].map(|task| scope.spawn(move || run(task)));
        threads.map(|thread| thread.join().expect("it does not panic"))
    });
    let outcomes = [one?, two?];
    let winner = outcomes.iter().position(|said| said.code() == 0).context("one of them wins")?;
    let loser = &outcomes[1 - winner];
    let holder =
        format!("held by {}/{}; nothing is free", world.containerd.namespace(), tasks[winner].id);
    ensure!(loser.code() == 1 && loser.err.contains(&holder), "{outcomes:?}");
    ensure!(world.grant()?["sandbox"] == tasks[winner].id, "the winner's grant alone");
    let mut tasks = Vec::from(tasks);
    let won = tasks.remove(winner);
    world.containerd.note_socket(world.containerd.namespace(), &won.id);
    tasks.remove(0).removed()?;
    won.end()?;
    world.node.is_free()
}

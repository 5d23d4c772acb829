//! CPUs and memory next to the GPUs: read from inside, from the cgroup's files and from what the operator is shown.
//!
//! Simulated machines name CPUs that the one under test has not, so trials lean on CPU 0 and 1 and on node 0, which are near the GPUs of
//! `one`: what is reserved leaves one CPU or the other.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::containerd::{Containerd, leftovers};
use integration_tests::cri::messages::LinuxContainerResources;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP};
use integration_tests::gpu::world::{ONE_GPU, World};
use serde_json::{Value, json};

/// CPU 0 is all that `auto` may give.
const ONLY_0: &str = "reserved-cpus = \"1-4095\"";
/// CPU 1 is for whoever asks for it.
const POOL_1: &str =
    "exclusive-cpus = \"1\"\nreserved-cpus = \"2-4095\"\n[policy]\nexclusive-cpus = \"non-cri\"";

/// What tells a container's CPUs and memory.
const LOOK: &str = "grep -E 'allowed_list' /proc/self/status; head -n1 /proc/self/numa_maps";

/// How a process finds itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inside {
    cpus: String,
    mems: String,
    prefers: bool,
}

impl Inside {
    fn parse(status: &str, maps: &str) -> Result<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| rest.trim().to_owned()).with_context(|| format!("no {name}: {status}"))
        };
        let prefers = maps.split(' ').nth(1).is_some_and(|policy| policy.starts_with("prefer"));
        Ok(Self { cpus: field("Cpus_allowed_list:")?, mems: field("Mems_allowed_list:")?, prefers })
    }

    fn of_process(pid: u32) -> Result<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
        Self::parse(&read("status")?, read("numa_maps")?.lines().next().unwrap_or_default())
    }

    fn of_exec(task: &Task<'_>) -> Result<Self> {
        let said = task.exec(&["sh", "-c", LOOK])?;
        Self::parse(&said.out, said.out.lines().last().unwrap_or_default())
    }
}

/// The container's first process, which an exec must be like.
fn inside(task: &Task<'_>) -> Result<Inside> {
    let first = Inside::of_process(u32::try_from(task.ctr.task_pid(&task.id)?)?)?;
    let later = Inside::of_exec(task)?;
    ensure!(first == later, "the first process is {first:?}, and an exec {later:?}");
    Ok(first)
}

/// What stands in one of the files of the container's cgroups; once, however often the hierarchy is mounted.
fn cgroup_file(containerd: &Containerd, id: &str, name: &str) -> Result<String> {
    let files = leftovers::cgroups(containerd, id).into_iter().map(|folder| folder.join(name));
    let found: Option<PathBuf> = files.into_iter().find(|file| file.exists());
    let file = found.with_context(|| format!("no {name} of {id}"))?;
    Ok(fs::read_to_string(file)?.trim().to_owned())
}

fn flags<'a>(annotations: &[&'a str]) -> Vec<&'a str> {
    annotations.iter().flat_map(|one| ["--annotation", *one]).collect()
}

/// The only container of the only grant.
fn member(world: &World) -> Result<Value> {
    Ok(world.grant()?["members"][0].clone())
}

fn has_numa() -> bool {
    fs::metadata("/proc/self/numa_maps").is_ok()
}

pub fn near_cpus_are_given_before_the_first_instruction(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", ONLY_0)?;
    let task = Task::named(&world.containerd, "looks");
    let said =
        task.foreground(integration_tests::containerd::task::BERTH, &ONE_GPU, &["sh", "-c", LOOK])?;
    let first = Inside::parse(&said.out, said.out.lines().last().unwrap_or_default())?;
    ensure!(first.cpus == "0" && first.prefers == has_numa(), "{first:?}");
    task.removed()?;
    let task = world.sleeper(&ONE_GPU)?;
    ensure!(inside(&task)? == first, "{first:?}");
    ensure!(cgroup_file(&world.containerd, &task.id, "cpuset.cpus")? == "0", "its cgroup");
    let member = member(&world)?;
    ensure!(
        member["cpus"]
            == json!({"requested": null, "effective": "0", "exclusive": false, "reason": ""}),
        "{member:#}"
    );
    ensure!(
        member["memory"]
            == json!({"requested": null, "effective": null, "preferred": "0", "reason": ""}),
        "{member:#}"
    );
    let explained = world.node.berth(&["explain", &task.id])?.out;
    ensure!(
        explained.contains("CPUs 0\n") && explained.contains("Memory of NUMA nodes 0 preferred\n"),
        "{explained}"
    );
    task.end()?;
    world.node.is_free()
}

pub fn without_a_request_cpus_and_memory_are_left_alone(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", ONLY_0)?;
    let plain = world.sleeper(&[])?;
    let alone = inside(&plain)?;
    ensure!(!alone.prefers, "{alone:?}");
    let off =
        world.sleeper(&flags(&["berth.dev/gpus=1", "berth.dev/cpus=off", "berth.dev/numa=off"]))?;
    ensure!(inside(&off)? == alone, "off is as it was");
    let member = member(&world)?;
    ensure!(
        member["cpus"]["effective"].is_null() && member["memory"]["preferred"].is_null(),
        "{member:#}"
    );
    off.end()?;
    let pinned = world.sleeper(&ONE_GPU)?;
    ensure!(inside(&pinned)?.cpus == "0" && inside(&plain)? == alone, "and another is not touched");
    pinned.end()?;
    plain.end()?;
    world.node.is_free()
}

pub fn a_launcher_s_cpus_are_narrowed_to_those_near(stage: &Stage) -> Result<()> {
    let more = format!("{ONLY_0}\n[policy]\nnamespaces = [\"tests\"]");
    let kubelet = Kubelet::up(stage, "one", &more)?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let mut ids = Vec::new();
    for (name, requested, effective, line) in [
        ("both", "0-1", "0", "CPUs 0-1 requested -> 0\n"),
        ("far", "1", "1", "CPUs 1 requested -> 1: none of CPUs 1 are near its GPUs (0)\n"),
    ] {
        let id = pod.run_adjusted(name, &SLEEP, |config| {
            let linux = config.linux.get_or_insert_default();
            requested.clone_into(&mut linux.resources.get_or_insert_default().cpuset_cpus);
        })?;
        let process = Inside::of_process(pod.pid_of(&id)?)?;
        ensure!(process.cpus == effective, "{name}: {process:?}");
        let explained = kubelet.node.berth(&["explain", &id])?.out;
        ensure!(explained.contains(line), "{name}: {explained}");
        ids.push(id);
    }
    pod.remove(&ids.iter().map(String::as_str).collect::<Vec<_>>())?;
    kubelet.node.is_free()
}

pub fn exclusive_cpus_are_of_one_container_and_never_shared(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p4d", POOL_1)?;
    let ask = flags(&["berth.dev/gpus=1", "berth.dev/cpus=1"]);
    let own = world.sleeper(&ask)?;
    ensure!(inside(&own)?.cpus == "1", "of the pool");
    let member = world.grant()?["members"][0]["cpus"].clone();
    ensure!(member["exclusive"] == true && member["effective"] == "1", "{member:#}");
    let shared = world.sleeper(&ONE_GPU)?;
    ensure!(inside(&shared)?.cpus == "0", "whoever shares is kept out of the pool");
    let holder = format!("{}/{}", own.ctr.namespace(), own.id);
    world.refuses(
        &ask,
        &format!(
            "berth: no room for cpus 1: 1 held by {holder}; of node.exclusive-cpus 1, none are free; nothing is free"
        ),
    )?;
    let verified = world.node.berth(&["ledger", "verify"])?;
    ensure!(verified.code() == 0, "{verified:?}");
    own.end()?;
    let next = world.sleeper(&ask)?;
    ensure!(inside(&next)?.cpus == "1", "given back with the container");
    next.end()?;
    shared.end()?;
    world.node.is_free()
}

pub fn exclusive_cpus_are_refused_without_a_pool_or_leave(stage: &Stage) -> Result<()> {
    let ask = flags(&["berth.dev/gpus=1", "berth.dev/cpus=8"]);
    let world = World::up(stage, "one", "")?;
    world.refuses(
        &ask,
        "berth: annotation berth.dev/cpus=\"8\": this node has no CPUs to give to one container alone; write auto, or the \
         node's operator sets them aside with node.exclusive-cpus",
    )?;
    world.node.configure("exclusive-cpus = \"0-1\"")?;
    world.refuses(
        &ask,
        &format!(
            "berth: annotation berth.dev/cpus: containers of containerd namespace \"{}\" may not ask: policy.exclusive-cpus is \
             \"off\", and auto would share CPUs; the node's operator can allow it: policy.exclusive-cpus = \"non-cri\"",
            world.containerd.namespace()
        ),
    )?;
    world.node.configure("exclusive-cpus = \"0-1\"\n[policy]\nexclusive-cpus = \"non-cri\"")?;
    world.refuses(
        &ask,
        "berth: no room for cpus 8: of node.exclusive-cpus 0-1, 0-1 are free; nearest fit: cpus 2",
    )?;
    world.node.is_free()
}

pub fn strict_memory_holds_a_container_to_its_nodes_or_is_refused(stage: &Stage) -> Result<()> {
    let strict = flags(&["berth.dev/gpus=1", "berth.dev/numa=strict"]);
    let world = World::up(stage, "one", "")?;
    let task = world.sleeper(&strict)?;
    let seen = inside(&task)?;
    ensure!(seen.mems == "0" && !seen.prefers, "{seen:?}");
    ensure!(cgroup_file(&world.containerd, &task.id, "cpuset.mems")? == "0", "its cgroup");
    ensure!(member(&world)?["memory"]["effective"] == "0", "it is shown");
    task.end()?;
    world.node.is_free()?;
    let silent = World::up(stage, "t4", "")?;
    silent.refuses(
        &strict,
        "berth: annotation berth.dev/numa=\"strict\": the machine does not say which memory is near the container's GPUs; \
         write prefer, or leave it out",
    )?;
    silent.node.is_free()
}

pub fn a_gpu_near_no_cpu_of_this_machine_leaves_them_alone(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let plain = world.sleeper(&[])?;
    let task = world.sleeper(&ONE_GPU)?;
    ensure!(inside(&task)? == inside(&plain)?, "no node, no preference");
    let reason = member(&world)?["cpus"]["reason"].clone();
    ensure!(reason == "the machine does not say which CPUs are near its GPUs", "{reason}");
    task.end()?;
    plain.end()?;
    world.node.is_free()
}

pub fn gpus_of_two_nodes_come_with_a_map(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p4d", "")?;
    let gpus = world.state()?.gpus;
    let on = |node: u32| {
        let gpu = gpus.iter().find(|gpu| gpu.node == Some(node));
        gpu.map(|gpu| gpu.uuid.clone()).context("a GPU on each node")
    };
    let (near, far) = (on(0)?, on(1)?);
    let devices = format!("berth.dev/devices={near},{far}");
    let task = world.sleeper(&flags(&[&devices]))?;
    let said = task.exec(&["sh", "-c", "echo \"$BERTH_GPU_CPUS\"; cat /run/berth/gpu-cpus"])?;
    let lines: Vec<&str> = said.out.lines().collect();
    ensure!(lines.len() == 3, "{said:?}");
    let mut entries: Vec<&str> = lines[0].split(';').collect();
    ensure!(entries == lines[1..], "the variable and the file say the same: {said:?}");
    entries.sort_unstable();
    let of = |uuid: &str| entries.iter().find_map(|entry| entry.strip_prefix(&format!("{uuid}=")));
    let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
    let cpus = of(&near).with_context(|| format!("{said:?}"))?;
    ensure!(
        cpus.starts_with('0') && cpus.len() <= online.trim().len().max(11),
        "{cpus} of {online}"
    );
    ensure!(of(&far).is_some(), "{said:?}");
    let written = task.exec(&["sh", "-c", "echo x >/run/berth/gpu-cpus"])?;
    ensure!(written.code() != 0, "it is the node's word");
    task.end()?;
    let one = world.sleeper(&ONE_GPU)?;
    let said = one.exec(&["sh", "-c", "echo \"[$BERTH_GPU_CPUS]\"; ls /run/berth"])?;
    ensure!(said.out.starts_with("[]\n") && !said.out.contains("gpu-cpus"), "{said:?}");
    one.end()?;
    world.node.is_free()
}

/// Updates as the kubelet sends them, with a restart of containerd in between.
pub fn updates_are_merged_with_what_is_near(stage: &Stage) -> Result<()> {
    let more = format!("{ONLY_0}\n[policy]\nnamespaces = [\"tests\"]");
    let kubelet = Kubelet::up(stage, "one", &more)?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let id = pod.run("main", &SLEEP)?;
    let is = |effective: &str, requested: Value, reason: &str| -> Result<()> {
        let cpus = kubelet.only_grant()?["members"][0]["cpus"].clone();
        let said = cpus["reason"].as_str().unwrap_or_default().to_owned();
        ensure!(cpus["effective"] == effective && cpus["requested"] == requested, "{cpus:#}");
        ensure!(said.starts_with(reason) && said.is_empty() == reason.is_empty(), "{cpus:#}");
        let asked =
            requested.as_str().map_or_else(String::new, |one| format!("{one} requested -> "));
        let why = if said.is_empty() { said } else { format!(": {said}") };
        let line = format!("CPUs {asked}{effective}{why}\n");
        let explained = kubelet.node.berth(&["explain", &id])?.out;
        ensure!(explained.contains(&line), "{line:?}: {explained}");
        let process = Inside::of_process(pod.pid_of(&id)?)?;
        ensure!(process.cpus == effective && process.prefers == has_numa(), "{process:?}");
        let file = cgroup_file(&kubelet.containerd, &id, "cpuset.cpus")?;
        ensure!(file == effective, "{file} is not {effective}");
        Ok(())
    };
    let update = |cpus: &str, quota: i64| {
        let changed = LinuxContainerResources {
            cpuset_cpus: cpus.to_owned(),
            cpu_period: 100_000,
            cpu_quota: quota,
            ..Default::default()
        };
        kubelet.cri.update(&id, changed)
    };
    is("0", Value::Null, "")?;
    update("", 50_000)?;
    is("0", Value::Null, "")?;
    update("0-1", 50_000)?;
    is("0", json!("0-1"), "")?;
    update("1", 50_000)?;
    is("1", json!("1"), "none of CPUs 1 are near its GPUs (0)")?;
    kubelet.containerd.stop()?;
    kubelet.containerd.launch()?;
    kubelet.cri.wait_until_ready()?;
    is("1", json!("1"), "none of CPUs 1")?;
    update("0-1", 150_000)?;
    is("0-1", json!("0-1"), "its quota needs 2 CPUs")?;
    update("0-1", 100_000)?;
    is("0", json!("0-1"), "")?;
    let entries = json!({pod.name(): {"main": "0-1"}});
    let state =
        json!({"policyName": "static", "defaultCpuSet": "", "entries": entries, "checksum": 1});
    fs::create_dir_all(kubelet.node.path("kubelet"))?;
    fs::write(kubelet.node.path("kubelet/cpu_manager_state"), state.to_string())?;
    update("0-1", 100_000)?;
    is("0-1", json!("0-1"), "the kubelet gave it these CPUs for itself")?;
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

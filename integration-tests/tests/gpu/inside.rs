//! What a container sees of the node's GPUs: what it was given, and nothing else; or nothing at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::{BERTH, RUNC, Task};
use integration_tests::gpu::world::{ONE_GPU, SLEEP, World, uuids};
use integration_tests::images::glibc::Layout;
use simnode::state::Gpu;

/// What the kernel says of a node that the device rule lets through: nothing drives it here.
const ALLOWED: &str = "No such device or address";
const DENIED: &str = "Operation not permitted";

/// Opens each node and tells what the kernel said.
const OPEN_ALL: &str =
    "for node in /dev/nvidia* /dev/nvidia-caps/*; do echo \"$node|$(cat $node 2>&1)\"; done";

/// The words after each node's name.
fn opened(task: &Task<'_>, script: &str) -> Result<BTreeMap<String, String>> {
    let said = task.exec(&["sh", "-c", script])?;
    let lines = said.out.lines().filter_map(|line| line.split_once('|'));
    let word = |words: &str| words.rsplit(": ").next().unwrap_or_default().to_owned();
    Ok(lines.map(|(node, words)| (node.to_owned(), word(words))).collect())
}

/// The GPUs that this world's only grant is of, and the others.
fn given_and_others(world: &World) -> Result<(Vec<Gpu>, Vec<Gpu>)> {
    let grant = world.grant()?;
    let given = uuids(&grant);
    Ok(world.state()?.gpus.into_iter().partition(|gpu| given.contains(&gpu.uuid.as_str())))
}

pub fn only_granted_nodes_are_there_and_open(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let task = world.sleeper(&["--annotation", "berth.dev/gpus=2"])?;
    let (given, others) = given_and_others(&world)?;
    ensure!((given.len(), others.len()) == (2, 6), "two of eight: {given:?}");
    let control = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"].map(str::to_owned);
    let own = given.iter().map(|gpu| format!("/dev/nvidia{}", gpu.minor));
    let wanted = control.into_iter().chain(own).map(|node| (node, ALLOWED.to_owned())).collect();
    let mut seen = opened(&task, OPEN_ALL)?;
    seen.retain(|node, _| !node.contains('*'));
    ensure!(seen == wanted, "{seen:#?}\nis not\n{wanted:#?}");
    task.end()?;
    world.node.is_free()
}

pub fn an_ungranted_gpu_made_by_hand_does_not_open(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let task = world.sleeper(&ONE_GPU)?;
    let (given, others) = given_and_others(&world)?;
    let make = |minor: u32| {
        format!("mknod /tmp/n{minor} c 195 {minor}; echo \"{minor}|$(cat /tmp/n{minor} 2>&1)\";")
    };
    // 254 is the driver's modeset node, which nobody asked for.
    let minors = others.iter().map(|gpu| gpu.minor).chain([254]);
    let script: String = minors.clone().map(make).collect();
    let seen = opened(&task, &script)?;
    let wanted = minors.map(|minor| (minor.to_string(), DENIED.to_owned())).collect();
    ensure!(seen == wanted, "{seen:#?}");
    // The rule, not the making: its own opens under any name.
    let own = given[0].minor;
    let seen = opened(&task, &make(own))?;
    ensure!(seen.get(&own.to_string()).is_some_and(|said| said == ALLOWED), "{seen:#?}");
    task.end()
}

pub fn proc_driver_shows_the_granted_gpus_alone(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let task = world.sleeper(&["--annotation", "berth.dev/gpus=2"])?;
    let (given, others) = given_and_others(&world)?;
    let read = |script: &str| Ok::<_, anyhow::Error>(task.exec(&["sh", "-c", script])?.out);
    let listed = read("ls /proc/driver/nvidia/gpus")?;
    let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    let wanted: BTreeSet<String> = given.iter().map(|gpu| gpu.route.device.to_string()).collect();
    ensure!(listed == wanted, "{listed:?} is not {wanted:?}");
    let information = read("cat /proc/driver/nvidia/gpus/*/information")?;
    ensure!(given.iter().all(|gpu| information.contains(&gpu.uuid)), "{information}");
    // Not under any other way in, either.
    let everything = read("grep -r . /proc/driver/nvidia/")?;
    for other in &others {
        let (uuid, address) = (&other.uuid, other.route.device.to_string());
        ensure!(!everything.contains(uuid) && !everything.contains(&address), "{other:?} shows");
    }
    let params = read("cat /proc/driver/nvidia/params")?;
    ensure!(params.lines().any(|line| line == "ModifyDeviceFiles: 0"), "{params}");
    let version = fs::read_to_string(world.node.root().join("proc/driver/nvidia/version"))?;
    ensure!(read("cat /proc/driver/nvidia/version")? == version, "the node's own version");
    let written = task.exec(&["sh", "-c", "echo 1 > /proc/driver/nvidia/params"])?;
    ensure!(written.code() != 0, "the container cannot change it");
    task.end()
}

pub fn the_environment_names_grant_and_gpus(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    // What the image or its user says of the same variable does not stand beside ours.
    let env = ["--env", "NVIDIA_VISIBLE_DEVICES=all", "--env", "BERTH_GRANT=mine"];
    let flags = [&["--annotation", "berth.dev/gpus=2"][..], &env].concat();
    let task = world.sleeper(&flags)?;
    let grant = world.grant()?;
    let said = task.exec(&["sh", "-c", "tr '\\0' '\\n' </proc/1/environ"])?.out;
    let values = |name: &str| -> Vec<String> {
        let lines = said.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).collect()
    };
    let id = grant["grant"].as_str().context("an id")?.to_owned();
    ensure!(values("BERTH_GRANT") == [id], "{said}");
    ensure!(values("NVIDIA_VISIBLE_DEVICES") == [uuids(&grant).join(",")], "{said}");
    task.end()
}

pub fn nvidia_smi_lists_the_granted_gpu_alone(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let image = world.has(Layout::Debian)?;
    let task = world.sleeper_of(image, &ONE_GPU)?;
    let (given, _) = given_and_others(&world)?;
    let said = task.exec(&["nvidia-smi", "-L"])?;
    ensure!(said.code() == 0 && said.out.lines().count() == 1, "{said:?}");
    ensure!(said.out.starts_with("GPU 0: ") && said.out.contains(&given[0].uuid), "{said:?}");
    task.end()
}

pub fn without_a_request_nothing_of_it_is_there(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let task = world.sleeper(&[])?;
    let script = "ls -d /dev/nvidia* /proc/driver/nvidia /usr/local/nvidia /etc/ld.so.c*; env";
    let seen = task.exec(&["sh", "-c", script])?;
    ensure!(!seen.out.contains("nvidia") && !seen.out.contains("ld.so"), "{seen:?}");
    ensure!(!seen.out.contains("NVIDIA") && !seen.out.contains("BERTH"), "{seen:?}");
    task.end()?;
    // Not even looked at: no ledger, no cache, no driver files.
    for place in ["run", "state"] {
        ensure!(!world.node.path(place).exists(), "{place} was made for a plain container");
    }
    Ok(())
}

pub fn without_a_request_config_json_is_what_containerd_wrote(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let task = Task::named(&world.containerd, "plain");
    let bundle = world.containerd.bundles(world.containerd.namespace()).join(&task.id);
    let mut written = Vec::new();
    // Of the same name each time, so that nothing in it differs but by who handled it.
    for runtime in [RUNC, BERTH] {
        let said = task.foreground(runtime, &["--detach", "--null-io"], &SLEEP)?;
        ensure!(said.code() == 0, "{said:?}");
        world.containerd.note_socket(world.containerd.namespace(), &task.id);
        written.push(fs::read(bundle.join("config.json"))?);
        task.ctr.ok(&["task", "delete", "--force", &task.id])?;
        task.ctr.ok(&["containers", "delete", &task.id])?;
    }
    ensure!(
        written[0] == written[1],
        "config.json was changed: {:?}",
        String::from_utf8_lossy(&written[1])
    );
    task.removed()
}

//! What is chosen: close pairs, exactly the devices named, and what `NVIDIA_VISIBLE_DEVICES` asks where it may.

use anyhow::{Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::world::{ONE_GPU, World, uuids};

/// Two GPUs on such a node are on one NUMA node, and so is the next pair.
fn pairs_are_close(stage: &Stage, profile: &str, closeness: &str) -> Result<()> {
    let world = World::up(stage, profile, "")?;
    let two = ["--annotation", "berth.dev/gpus=2"];
    // One that breaks a pair: the next pair is made elsewhere.
    let tasks = [world.sleeper(&ONE_GPU)?, world.sleeper(&two)?, world.sleeper(&two)?];
    for task in &tasks[1..] {
        let explained = world.node.json(&["explain", &task.id])?;
        let grant = &explained["grants"][0];
        let (one, other) = (&grant["gpus"][0], &grant["gpus"][1]);
        ensure!(one["numa_node"].is_u64() && one["numa_node"] == other["numa_node"], "{grant:#}");
        ensure!(
            grant["closeness"].as_str().is_some_and(|words| words.starts_with(closeness)),
            "{grant:#}"
        );
    }
    tasks.into_iter().try_for_each(integration_tests::containerd::task::Task::end)?;
    world.node.is_free()
}

pub fn two_gpus_of_a_p5_are_a_close_pair(stage: &Stage) -> Result<()> {
    pairs_are_close(stage, "p5", "NVLink x18, one NUMA node (")
}

pub fn two_gpus_of_a_p4d_are_a_close_pair(stage: &Stage) -> Result<()> {
    pairs_are_close(stage, "p4d", "NVLink x12, ")
}

pub fn devices_are_given_exactly(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let gpus = world.state()?.gpus;
    // Far apart, and not in order: what is named counts.
    let devices = format!("berth.dev/devices={},{}", gpus[6].uuid, gpus[1].uuid);
    let task = world.sleeper(&["--annotation", &devices])?;
    let grant = world.grant()?;
    ensure!(uuids(&grant) == [&gpus[1].uuid, &gpus[6].uuid], "in the driver's order: {grant:#}");
    let nodes = task.exec(&["sh", "-c", "echo /dev/nvidia[0-9]*"])?.out;
    ensure!(
        nodes == format!("/dev/nvidia{} /dev/nvidia{}\n", gpus[1].minor, gpus[6].minor),
        "{nodes}"
    );
    task.end()?;
    world.node.is_free()
}

pub fn visible_devices_ask_where_the_operator_lets_them(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "a30", "[policy]\nenv-requests = \"non-cri\"")?;
    let gpus = world.state()?.gpus;
    let all: Vec<&str> = gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
    let by_uuid = format!("NVIDIA_VISIBLE_DEVICES={},{}", all[2], all[0]);
    for (variable, wanted) in [
        ("NVIDIA_VISIBLE_DEVICES=all", &all[..]),
        ("NVIDIA_VISIBLE_DEVICES=1,3", &[all[1], all[3]]),
        (&by_uuid, &[all[0], all[2]]),
    ] {
        let task = world.sleeper(&["--env", variable])?;
        let grant = world.grant()?;
        ensure!(uuids(&grant) == wanted && grant["decided_by"] == "berth", "{variable}: {grant:#}");
        task.end()?;
    }
    for nothing in ["void", "none", ""] {
        let task = world.sleeper(&["--env", &format!("NVIDIA_VISIBLE_DEVICES={nothing}")])?;
        world.node.is_free()?;
        task.end()?;
    }
    // What an annotation says beats it.
    let task = world.sleeper(&[&ONE_GPU[..], &["--env", "NVIDIA_VISIBLE_DEVICES=all"]].concat())?;
    ensure!(uuids(&world.grant()?).len() == 1, "the annotation's");
    task.end()?;
    world.refuses(
        &["--env", "NVIDIA_VISIBLE_DEVICES=7"],
        "berth: NVIDIA_VISIBLE_DEVICES=\"7\": 7: no such GPU on this node; \
         write indices or UUIDs of nvidia-smi -L, all, or none",
    )
}

pub fn visible_devices_ask_nothing_by_themselves(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let task = world.sleeper(&["--env", "NVIDIA_VISIBLE_DEVICES=all"])?;
    let seen = task.exec(&["sh", "-c", "ls -d /dev/nvidia* /proc/driver/nvidia; env"])?.out;
    ensure!(!seen.contains("/nvidia") && !seen.contains("BERTH"), "{seen}");
    world.node.is_free()?;
    task.end()
}

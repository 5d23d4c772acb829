//! Execs get what the first process got, however they come to be.

use anyhow::{Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::gpu::world::{ONE_GPU, World, uuids};
use integration_tests::images::glibc::Layout;

/// What of a process's environment is about GPUs.
fn about_gpus(task: &Task<'_>, script: &str) -> Result<Vec<String>> {
    let said = task.exec(&["sh", "-c", script])?;
    let about = |line: &&str| line.starts_with("BERTH_") || line.starts_with("NVIDIA_");
    let mut lines: Vec<String> = said.out.lines().filter(about).map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

pub fn an_exec_has_the_first_process_s_environment(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let task = world.sleeper(&["--annotation", "berth.dev/gpus=2"])?;
    let first = about_gpus(&task, "tr '\\0' '\\n' </proc/1/environ")?;
    let grant = world.grant()?;
    let grant_id = grant["grant"].as_str().unwrap_or_default();
    let wanted = [
        format!("BERTH_GRANT={grant_id}"),
        format!("NVIDIA_VISIBLE_DEVICES={}", uuids(&grant).join(",")),
    ];
    ensure!(first == wanted, "{first:?}");
    ensure!(about_gpus(&task, "env")? == wanted, "in an exec as in the first process");
    task.end()
}

pub fn an_exec_uses_the_gpu_as_the_first_process_does(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let image = world.has(Layout::Debian)?;
    let task = Task::named(&world.containerd, "smi").of(image);
    let script = "nvidia-smi -L; read forever";
    task.start(&ONE_GPU, &["sh", "-c", &format!("({script}) >/tmp/said 2>&1; sleep 100000")])?;
    let by_exec = task.exec(&["nvidia-smi", "-L"])?;
    ensure!(by_exec.code() == 0 && by_exec.out.lines().count() == 1, "{by_exec:?}");
    let by_first = task.exec(&["cat", "/tmp/said"])?;
    ensure!(by_exec.out == by_first.out, "{by_exec:?} but {by_first:?}");
    task.end()
}

pub fn an_exec_after_a_restart_of_containerd_has_it_too(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let task = world.sleeper(&ONE_GPU)?;
    let before = about_gpus(&task, "env")?;
    ensure!(before.len() == 2, "{before:?}");
    world.containerd.stop()?;
    world.containerd.launch()?;
    task.reaches("RUNNING")?;
    ensure!(about_gpus(&task, "env")? == before, "the shim remembers");
    task.end()?;
    world.node.is_free()
}

pub fn an_exec_in_a_container_without_a_gpu_is_left_alone(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let beside = world.sleeper(&ONE_GPU)?;
    let plain = world.sleeper(&["--env", "NVIDIA_VISIBLE_DEVICES=all"])?;
    // Unless the operator says otherwise the variable alone asks for nothing, and stays what it was.
    let seen = about_gpus(&plain, "env")?;
    ensure!(seen == ["NVIDIA_VISIBLE_DEVICES=all"], "{seen:?}");
    plain.end()?;
    beside.end()?;
    world.node.is_free()
}

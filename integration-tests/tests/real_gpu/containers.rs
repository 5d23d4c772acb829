//! Containers with this machine's GPUs, by a private containerd: CUDA computes on what was granted, and sees nothing else.

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::ctr::Said;
use integration_tests::containerd::task::{BERTH, Task};
use integration_tests::gpu::world::{ONE_GPU, SLEEP, uuids};

use crate::cuda;
use crate::ground::{Ground, IMAGE, lacking};

/// A container of the image with the CUDA program that sleeps, and the GPUs that it was granted, sorted.
fn sleeper<'a>(ground: &'a Ground, flags: &[&str]) -> Result<(Task<'a>, Vec<String>)> {
    let task = Task::named(ground.containerd()?, "gpu").of(IMAGE);
    task.start(flags, &SLEEP)?;
    let grants = ground.berth()?.grants()?;
    let mut granted: Vec<String> =
        grants.iter().flat_map(|grant| uuids(grant)).map(str::to_owned).collect();
    granted.sort();
    Ok((task, granted))
}

/// Runs a program as a container's first process.
fn run(ground: &Ground, flags: &[&str], command: &[&str]) -> Result<Said> {
    let task = Task::named(ground.containerd()?, "gpu").of(IMAGE);
    let said = task.foreground(BERTH, flags, command)?;
    task.removed()?;
    Ok(said)
}

/// That CUDA could start in a container here.
fn needs_uvm(ground: &Ground) -> Result<()> {
    let missing = || lacking("nvidia-uvm is not loaded: nvidia-modprobe -u -c0");
    if ground.has_uvm()? { Ok(()) } else { Err(missing()) }
}

/// Every GPU that can be given: none in MIG mode.
fn all(ground: &Ground) -> Result<Vec<String>> {
    let topo = ground.berth()?.json(&["topo"])?;
    let gpus = topo["gpus"].as_array().context("a list of GPUs")?;
    let whole = gpus.iter().filter(|gpu| gpu["mig"] == false);
    let mut all: Vec<String> =
        whole.filter_map(|gpu| gpu["uuid"].as_str()).map(str::to_owned).collect();
    all.sort();
    Ok(all)
}

fn asks_for(gpus: usize) -> [String; 2] {
    ["--annotation".to_owned(), format!("berth.dev/gpus={gpus}")]
}

pub fn cuda_has_the_granted_gpu_and_its_memory(ground: &Ground) -> Result<()> {
    let _turn = ground.turn();
    needs_uvm(ground)?;
    let said = run(ground, &ONE_GPU, &[cuda::NAME])?;
    let seen = cuda::seen(&said)?;
    ensure!(seen.gpus.len() == 1, "one was asked for: {seen:?}");
    ensure!(seen.library.starts_with("/usr/local/nvidia/lib64"), "the driver's: {seen:?}");
    ground.berth()?.is_free()
}

pub fn cuda_has_all_gpus_where_all_are_granted(ground: &Ground) -> Result<()> {
    let _turn = ground.turn();
    needs_uvm(ground)?;
    ground.containerd()?;
    let all = all(ground)?;
    let flags = asks_for(all.len());
    let said = run(ground, &flags.each_ref().map(String::as_str), &[cuda::NAME])?;
    let seen = cuda::seen(&said)?;
    ensure!(seen.gpus == all, "{seen:?}, not {all:?}");
    ground.berth()?.is_free()
}

pub fn nvidia_smi_lists_the_granted_gpu_alone(ground: &Ground) -> Result<()> {
    let _turn = ground.turn();
    let (task, granted) = sleeper(ground, &ONE_GPU)?;
    let said = task.exec(&["nvidia-smi", "-L"])?;
    ensure!(said.code() == 0 && granted.len() == 1, "{granted:?}: {said:?}");
    let gpus: Vec<&str> = said.out.lines().filter(|line| line.starts_with("GPU ")).collect();
    ensure!(gpus.len() == 1 && gpus[0].contains(&granted[0]), "{granted:?}: {gpus:?}");
    task.end()?;
    ground.berth()?.is_free()
}

pub fn an_exec_has_the_gpu_too(ground: &Ground) -> Result<()> {
    let _turn = ground.turn();
    needs_uvm(ground)?;
    let (task, granted) = sleeper(ground, &ONE_GPU)?;
    let known = task.exec(&["ldconfig", "-p"])?;
    let path = "libcuda.so.1 (libc6,x86-64) => /usr/local/nvidia/lib64/libcuda.so.1";
    let path =
        path.replace(",x86-64", if cfg!(target_arch = "aarch64") { ",AArch64" } else { ",x86-64" });
    ensure!(known.out.contains(&path), "{path} is not in {}", known.out);
    let seen = cuda::seen(&task.exec(&[cuda::NAME])?)?;
    ensure!(seen.gpus == granted, "{seen:?}, not {granted:?}");
    task.end()?;
    ground.berth()?.is_free()
}

pub fn without_a_request_there_is_none(ground: &Ground) -> Result<()> {
    let _turn = ground.turn();
    let said = run(ground, &[], &["sh", "-c", "ls -d /dev/nvidia* /usr/local/nvidia; env"])?;
    ensure!(!said.out.contains("nvidia") && !said.out.contains("NVIDIA"), "{said:?}");
    let cuda = run(ground, &[], &[cuda::NAME])?;
    ensure!(cuda.code() != 0 && cuda.err.contains("libcuda.so.1 does not load"), "{cuda:?}");
    Ok(())
}

pub fn no_room_is_said_and_what_is_given_back_can_be_had(ground: &Ground) -> Result<()> {
    let _turn = ground.turn();
    ground.containerd()?;
    let all = all(ground)?;
    let flags = asks_for(all.len());
    let (task, granted) = sleeper(ground, &flags.each_ref().map(String::as_str))?;
    ensure!(granted == all, "{granted:?}, not {all:?}");
    let refused = run(ground, &ONE_GPU, &["true"])?;
    ensure!(refused.code() != 0 && refused.err.contains("berth: no room for"), "{refused:?}");
    for gpu in &all {
        ensure!(refused.err.contains(gpu), "{gpu} is not named: {refused:?}");
    }
    task.end()?;
    let said = run(ground, &ONE_GPU, &["true"])?;
    ensure!(said.code() == 0, "{said:?}");
    ground.berth()?.is_free()
}

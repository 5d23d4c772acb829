//! Machines of other kinds than most trials play on: what Berth makes of each is what that machine is.

use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::world::{World, uuids};
use serde_json::Value;
use simnode::State;
use simnode::pci::Ancestor;

/// Two GPUs on such a machine: close to each other, their nodes in the container and no other GPU's, and the whole machine in topo.
fn two_gpus_of(stage: &Stage, profile: &str, closeness: &str) -> Result<()> {
    let world = World::up(stage, profile, "")?;
    let task = world.sleeper(&["--annotation", "berth.dev/gpus=2"])?;
    let (grant, state) = (world.grant()?, world.state()?);
    ensure!(
        grant["closeness"].as_str().is_some_and(|words| words.starts_with(closeness)),
        "{grant:#}"
    );
    let given = uuids(&grant);
    let own = state.gpus.iter().filter(|gpu| given.contains(&gpu.uuid.as_str()));
    let own: Vec<String> = own.map(|gpu| format!("nvidia{}", gpu.minor)).collect();
    let [one, other] = &own[..] else { anyhow::bail!("{grant:#}") };
    let listed = task.exec(&["sh", "-c", "ls /dev | grep nvidia; ls /proc/driver/nvidia/gpus"])?;
    let mut wanted: Vec<&str> = vec!["nvidia-uvm", "nvidia-uvm-tools", one, other, "nvidiactl"];
    let shown: Vec<String> = given
        .iter()
        .map(|uuid| Ok(state.gpus[state.find(uuid)?].route.device.to_string()))
        .collect::<Result<_>>()?;
    wanted.extend(shown.iter().map(String::as_str));
    ensure!(listed.out.lines().eq(wanted.iter().copied()), "{listed:?} is not {wanted:?}");
    is_shown(&world.node.json(&["topo"])?, &state)?;
    task.end()?;
    world.node.is_free()
}

/// That `berth topo` shows this machine.
fn is_shown(topo: &Value, state: &State) -> Result<()> {
    let driver = state.driver.as_ref().context("a driver")?;
    ensure!(topo["driver"]["version"] == driver.version, "{topo:#}");
    let gpus = topo["gpus"].as_array().context("GPUs")?;
    ensure!(gpus.len() == state.gpus.len(), "{topo:#}");
    for (shown, gpu) in gpus.iter().zip(&state.gpus) {
        ensure!(shown["uuid"] == gpu.uuid && shown["model"] == gpu.model, "{shown:#}");
        ensure!(shown["memory_mib"] == gpu.model().memory, "{shown:#}");
        ensure!(shown["numa_node"].as_u64() == gpu.node.map(u64::from), "{shown:#}");
        for other in state.gpus.iter().filter(|other| other.uuid != gpu.uuid) {
            let link = &shown["links"][&other.uuid];
            ensure!(link["nvlinks"] == gpu.links_to(other), "{link} to {}", other.uuid);
            ensure!(link["ancestor"] == word(gpu.ancestor(other)), "{link} to {}", other.uuid);
        }
    }
    Ok(())
}

/// As `nvidia-smi topo -m` has it.
fn word(ancestor: Ancestor) -> &'static str {
    match ancestor {
        Ancestor::Internal => "X",
        Ancestor::Single => "PIX",
        Ancestor::Multiple => "PXB",
        Ancestor::HostBridge => "PHB",
        Ancestor::Node => "NODE",
        Ancestor::System => "SYS",
    }
}

pub fn two_gpus_of_an_h200_machine(stage: &Stage) -> Result<()> {
    two_gpus_of(stage, "h200", "NVLink x18, one NUMA node (")
}

pub fn two_gpus_of_a_b200_machine(stage: &Stage) -> Result<()> {
    two_gpus_of(stage, "b200", "NVLink x18, one PCIe switch, one NUMA node (")
}

pub fn two_gpus_of_a_gb200_machine(stage: &Stage) -> Result<()> {
    two_gpus_of(stage, "gb200", "NVLink x18, one NUMA node (")
}

/// The memory of a GB200 is a NUMA node without CPUs, and the one that NVML tells. Where a container's CPUs are to be is another.
pub fn a_gb200_is_at_its_cpus_and_not_at_its_memory(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "gb200", "")?;
    let task = world.sleeper(&["--annotation", "berth.dev/gpus=4"])?;
    let cpus = |node: u64| {
        let file = format!("sys/devices/system/node/node{node}/cpulist");
        fs::read_to_string(world.node.root().join(file)).map(|list| list.trim().to_owned())
    };
    let (state, grant, topo) = (world.state()?, world.grant()?, world.node.json(&["topo"])?);
    for (index, gpu) in state.gpus.iter().enumerate() {
        let memory = u64::from(gpu.memory_node.context("memory of its own")?);
        ensure!(cpus(memory)?.is_empty(), "node {memory} has CPUs");
        for shown in [&topo["gpus"][index], &grant["gpus"][index]] {
            let near = shown["numa_node"].as_u64().context("a NUMA node")?;
            ensure!(!cpus(near)?.is_empty(), "without CPUs: {shown:#}");
        }
    }
    task.end()?;
    world.node.is_free()
}

//! The node that the lab booted, and how trials look at it.
//!
//! Decides what of the node is real: everything but the GPUs and the driver. Must not know what is tried.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::task::Task;
use integration_tests::gpu::GpuNode;
use integration_tests::gpu::kubelet::Kubelet;
use integration_tests::under_test::under_test;
use integration_tests::versions::Installation;
use plan::{CpuSet, NodeSet};

/// Where the kernel shows CPUs and NUMA nodes.
const SYSTEM: &str = "sys/devices/system";

/// The node.
pub struct Ground {
    /// The profile whose GPUs sit on the node's NUMA nodes.
    profile: String,
    installation: Installation,
}

/// A simulated GPU, and the NUMA node that it is on.
pub struct Seat {
    /// Its UUID.
    pub uuid: String,
    /// The node.
    pub node: u32,
    /// The nodes next to it: that one and, where a processor has several, those of the same processor that are least far.
    pub near: NodeSet,
    /// CPUs of these nodes, as the kernel has them.
    pub cpus: CpuSet,
}

/// What holds a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its CPUs.
    pub cpus: String,
    /// Its memory nodes.
    pub mems: String,
}

impl Ground {
    /// The node that this runs on, or why nothing can be tried here.
    pub fn look() -> Result<Self, String> {
        let profile = std::env::var("BERTH_LAB_PROFILE").map_err(|_| {
            "this machine is no lab node (several NUMA nodes, cgroup v2 alone, systemd): `make lab` boots one".to_owned()
        })?;
        let installation = Installation::of_the_machine().map_err(|error| format!("{error:#}"))?;
        Ok(Self { profile, installation })
    }

    /// GPUs on the node's own CPUs and memory, with `more` in Berth's configuration.
    ///
    /// # Errors
    /// When they cannot be made, or sit on nodes that the machine has not.
    pub fn node(&self, more: &str) -> Result<GpuNode> {
        let node = GpuNode::up(&self.profile, more)?;
        for part in ["cpu", "node"] {
            let simulated = node.root().join(SYSTEM).join(part);
            fs::remove_dir_all(&simulated)?;
            symlink(Path::new("/").join(SYSTEM).join(part), &simulated)?;
        }
        Ok(node)
    }

    /// The same, and a containerd on it, with pods.
    ///
    /// # Errors
    /// As there, and when containerd does not start.
    pub fn kubelet(&self, more: &str) -> Result<Kubelet> {
        self.kubelet_on(self.node(more)?)
    }

    /// A containerd on this node.
    ///
    /// # Errors
    /// When it does not start.
    pub fn kubelet_on(&self, node: GpuNode) -> Result<Kubelet> {
        Kubelet::of(&self.installation, &under_test()?.shim, node)
    }
}

/// The first GPU of each NUMA node that has one.
///
/// # Errors
/// When the node cannot be read, or has no such NUMA node.
pub fn seats(node: &GpuNode) -> Result<Vec<Seat>> {
    let mut seats: BTreeMap<u32, Seat> = BTreeMap::new();
    for gpu in node.sim.state()?.gpus {
        let Some(number) = gpu.node else { continue };
        let near = near(number)?;
        let mut cpus = CpuSet::none();
        for node in near.iter() {
            cpus = cpus.or(&numa(node, "cpulist")?.parse()?);
        }
        seats.entry(number).or_insert(Seat { uuid: gpu.uuid, node: number, near, cpus });
    }
    ensure!(seats.len() > 1, "a lab node has GPUs on several NUMA nodes");
    Ok(seats.into_values().collect())
}

/// The nodes next to this one, from what the kernel says of processors and distances.
fn near(number: u32) -> Result<NodeSet> {
    let package = |node: u32| -> Result<Option<String>> {
        let cpus: CpuSet = numa(node, "cpulist")?.parse()?;
        let Some(first) = cpus.first() else { return Ok(None) };
        let path = format!("/{SYSTEM}/cpu/cpu{first}/topology/physical_package_id");
        Ok(Some(fs::read_to_string(path)?))
    };
    let distances = numa(number, "distance")?;
    let distances: Vec<u32> = distances.split(' ').flat_map(str::parse).collect();
    let mut mates = Vec::new();
    for (node, distance) in (0..).zip(distances) {
        if node != number && package(node)? == package(number)? {
            mates.push((distance, node));
        }
    }
    let least = mates.iter().map(|(distance, _)| *distance).min();
    let mates = mates.iter().filter(|(distance, _)| Some(*distance) == least);
    Ok(mates.map(|(_, node)| *node).chain([number]).collect())
}

/// What the kernel says of a NUMA node.
///
/// # Errors
/// When it has no such node.
pub fn numa(number: u32, file: &str) -> Result<String> {
    let path = Path::new("/").join(SYSTEM).join(format!("node/node{number}")).join(file);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.trim().to_owned())
}

/// What holds a process, from `/proc`.
///
/// # Errors
/// When it is gone.
pub fn held(pid: u32) -> Result<Held> {
    Held::parse(&fs::read_to_string(format!("/proc/{pid}/status"))?)
}

impl Held {
    /// From the text of `/proc/<pid>/status`.
    ///
    /// # Errors
    /// When it says nothing of it.
    pub fn parse(status: &str) -> Result<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| rest.trim().to_owned()).with_context(|| format!("no {name}: {status}"))
        };
        Ok(Self { cpus: field("Cpus_allowed_list:")?, mems: field("Mems_allowed_list:")? })
    }
}

/// What stands in a file of a process's cgroup.
///
/// # Errors
/// When it has none.
pub fn cgroup_file(pid: u32, name: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let place = text.lines().find_map(|line| line.strip_prefix("0::/")).context("cgroup v2")?;
    let file = Path::new("/sys/fs/cgroup").join(place).join(name);
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Ok(text.trim().to_owned())
}

/// The first process of a container that ctr made.
///
/// # Errors
/// When it has none.
pub fn pid(task: &Task<'_>) -> Result<u32> {
    Ok(u32::try_from(task.ctr.task_pid(&task.id)?)?)
}

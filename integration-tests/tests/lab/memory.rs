//! Memory next to the GPU, counted by where the pages of a process really are.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use integration_tests::containerd::task::Task;
use integration_tests::gpu::kubelet::Kubelet;
use integration_tests::{machine, wait};
use plan::NodeSet;

use crate::ground::{Ground, Seat, cgroup_file, held, pid, seats};

/// Fills 64 MiB and keeps them: `dd` cannot write on before the sleeper reads, which it never does.
const FILL: [&str; 3] = ["sh", "-c", "dd if=/dev/zero bs=64M count=1 | sleep 100000"];
/// Pages of that buffer.
const PAGES: u64 = (64 << 20) / 4096;

pub fn strict_memory_comes_from_the_gpu_s_node_alone(ground: &Ground) -> Result<()> {
    let kubelet = ground.kubelet("")?;
    for seat in seats(&kubelet.node)? {
        let task = filled(&kubelet, &seat, "strict")?;
        let mems = held(pid(&task)?)?.mems;
        let file = cgroup_file(pid(&task)?, "cpuset.mems")?;
        ensure!(mems == file, "held to {mems}, and its cgroup says {file}");
        ensure!(mems == strict(&kubelet, &seat)?, "{mems}, GPU of node {}", seat.node);
        is_local(&task, &seat)?;
        task.end()?;
    }
    kubelet.node.is_free()
}

pub fn preferred_memory_comes_from_the_gpu_s_node_while_it_has_room(ground: &Ground) -> Result<()> {
    let kubelet = ground.kubelet("")?;
    for seat in seats(&kubelet.node)? {
        let task = filled(&kubelet, &seat, "prefer")?;
        is_local(&task, &seat)?;
        task.end()?;
    }
    kubelet.node.is_free()
}

pub fn strict_is_refused_where_the_cgroup_cannot_give_it(ground: &Ground) -> Result<()> {
    let kubelet = ground.kubelet("")?;
    let seats = seats(&kubelet.node)?;
    let [first, .., last] = &seats[..] else { anyhow::bail!("two NUMA nodes") };
    let parent = Parent::holding(&kubelet, first.node)?;
    let place = format!("/{}/only-{}/one", kubelet.containerd.scratch.cgroup(), first.node);
    let ask =
        |numa: &str| [format!("berth.dev/devices={}", last.uuid), format!("berth.dev/numa={numa}")];
    let [device, numa] = ask("strict");
    let flags = ["--cgroup", &place, "--annotation", &device, "--annotation", &numa];
    let refused = Task::named(&kubelet.containerd, "refused");
    let said = refused.foreground(integration_tests::containerd::task::BERTH, &flags, &["true"])?;
    let words = format!(
        "memory of NUMA nodes {} is near the container's GPUs, and its cgroup can give only that of {}",
        strict(&kubelet, last)?,
        first.node
    );
    ensure!(said.code() == 1 && said.err.contains(&words), "{said:?}");
    refused.removed()?;
    let [device, numa] = ask("prefer");
    let flags = ["--cgroup", &place, "--annotation", &device, "--annotation", &numa];
    let task = Task::detached(&kubelet.containerd, "prefers", &flags, &["sleep", "100000"])?;
    let mems = held(pid(&task)?)?.mems;
    ensure!(mems == first.node.to_string(), "{mems}");
    let explained = kubelet.node.berth(&["explain", &task.id])?.out;
    ensure!(explained.contains("Memory"), "{explained}");
    task.end()?;
    drop(parent);
    kubelet.node.is_free()
}

/// The nodes that `strict` holds a container to: those next to its GPU, and the GPU's own memory where that is a node.
fn strict(kubelet: &Kubelet, seat: &Seat) -> Result<String> {
    let state = kubelet.node.sim.state()?;
    let own = state.gpus[state.find(&seat.uuid)?].memory_node;
    let own: NodeSet = own.into_iter().collect();
    Ok(seat.near.or(&own).to_string())
}

/// A container with the seat's GPU that has filled its memory.
fn filled<'a>(kubelet: &'a Kubelet, seat: &Seat, numa: &str) -> Result<Task<'a>> {
    let (device, numa) =
        (format!("berth.dev/devices={}", seat.uuid), format!("berth.dev/numa={numa}"));
    let flags = ["--annotation", &device, "--annotation", &numa];
    Task::detached(&kubelet.containerd, "memory", &flags, &FILL)
}

/// That at least 99 of 100 pages of the process that filled them are next to the seat.
fn is_local(task: &Task<'_>, seat: &Seat) -> Result<()> {
    let init = pid(task)?;
    let pages = wait::until("the pages are filled", || {
        pages(init).filter(|pages| pages.iter().sum::<u64>() >= PAGES)
    })?;
    let all: u64 = pages.iter().sum();
    let near = |(node, pages): (u32, &u64)| seat.near.has(node).then_some(*pages);
    let local: u64 = (0..).zip(&pages).filter_map(near).sum();
    ensure!(local * 100 >= all * 99, "GPU of node {}: pages by node {:?}", seat.node, &pages[..8]);
    Ok(())
}

/// Pages by NUMA node of whichever process of the container has most of them.
fn pages(init: u32) -> Option<Vec<u64>> {
    let children = machine::children(init).into_iter().map(|row| row.pid);
    let most = children.chain([init]).filter_map(|pid| {
        let maps = fs::read_to_string(format!("/proc/{pid}/numa_maps")).ok()?;
        Some(count(&maps))
    });
    most.max_by_key(|pages| pages.iter().sum::<u64>())
}

fn count(maps: &str) -> Vec<u64> {
    let mut pages = vec![0; 64];
    let anonymous = maps.lines().filter(|line| line.contains(" anon="));
    for (node, amount) in anonymous.flat_map(|line| line.split(' ')).filter_map(|word| {
        let (node, amount) = word.strip_prefix('N')?.split_once('=')?;
        Some((node.parse::<usize>().ok()?, amount.parse::<u64>().ok()?))
    }) {
        if let Some(sum) = pages.get_mut(node) {
            *sum += amount;
        }
    }
    pages
}

/// A cgroup that can give memory of one node alone, for containers to be in.
struct Parent(PathBuf);

impl Parent {
    fn holding(kubelet: &Kubelet, node: u32) -> Result<Self> {
        let top = PathBuf::from("/sys/fs/cgroup").join(kubelet.containerd.scratch.cgroup());
        let folder = top.join(format!("only-{node}"));
        fs::create_dir_all(&folder)?;
        fs::write(top.join("cgroup.subtree_control"), "+cpuset +memory +pids +cpu")?;
        fs::write(folder.join("cpuset.mems"), node.to_string())?;
        Ok(Self(folder))
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

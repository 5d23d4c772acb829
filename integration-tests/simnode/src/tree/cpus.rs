//! `/sys/devices/system`: CPUs, their caches, and NUMA nodes.

use crate::error::NodeError;
use crate::machine::{Machine, list, mask};

use super::write::Tree;

const CPU: &str = "sys/devices/system/cpu";
const NODE: &str = "sys/devices/system/node";

pub(super) fn write(tree: &Tree, machine: &Machine) -> Result<(), NodeError> {
    let all: Vec<u32> = (0..machine.cpus()).collect();
    for name in ["online", "possible", "present"] {
        tree.line(format!("{CPU}/{name}"), list(&all))?;
    }
    for name in ["isolated", "nohz_full", "offline"] {
        tree.line(format!("{CPU}/{name}"), "")?;
    }
    all.iter().try_for_each(|number| cpu(tree, machine, *number))?;
    (0..machine.nodes()).try_for_each(|number| node(tree, machine, number))?;
    let nodes = |keep: &dyn Fn(u32) -> bool| {
        list(&(0..machine.nodes()).filter(|n| keep(*n)).collect::<Vec<_>>())
    };
    let with_cpus = nodes(&|node| node < machine.cpu_nodes());
    let with_memory = nodes(&|node| machine.memory_of(node) > 0);
    for (name, value) in [
        ("online", nodes(&|_| true)),
        ("possible", nodes(&|_| true)),
        ("has_cpu", with_cpus),
        ("has_memory", with_memory.clone()),
        ("has_normal_memory", with_memory),
        ("has_generic_initiator", String::new()),
    ] {
        tree.line(format!("{NODE}/{name}"), value)?;
    }
    Ok(())
}

fn cpu(tree: &Tree, machine: &Machine, number: u32) -> Result<(), NodeError> {
    let core = machine.core_of(number);
    let socket = machine.socket_of(number);
    let siblings = machine.cpus_where(|other| machine.core_of(other) == core);
    let package = machine.cpus_where(|other| machine.socket_of(other) == socket);
    let cache = |other| machine.core_of(other) / machine.l3_cores;
    let cached = machine.cpus_where(|other| cache(other) == cache(number));
    for (name, value) in [
        ("topology/core_id", (core % machine.cores).to_string()),
        ("topology/physical_package_id", socket.to_string()),
        ("topology/thread_siblings_list", list(&siblings)),
        ("topology/core_siblings_list", list(&package)),
        ("cache/index3/level", "3".to_owned()),
        ("cache/index3/shared_cpu_list", list(&cached)),
    ] {
        tree.line(format!("{CPU}/cpu{number}/{name}"), value)?;
    }
    let node = machine.node_of(number);
    tree.link(format!("{CPU}/cpu{number}/node{node}"), format!("../../node/node{node}"))
}

fn node(tree: &Tree, machine: &Machine, number: u32) -> Result<(), NodeError> {
    let cpus = machine.node_cpus(number);
    let kib = machine.memory_of(number) * 1024;
    let distances = (0..machine.nodes()).map(|to| machine.distance(number, to).to_string());
    let meminfo = format!(
        "Node {number} MemTotal:       {kib} kB\n\
         Node {number} MemFree:        {kib} kB\n\
         Node {number} MemUsed:        0 kB\n"
    );
    tree.file(format!("{NODE}/node{number}/meminfo"), meminfo)?;
    tree.line(format!("{NODE}/node{number}/distance"), distances.collect::<Vec<_>>().join(" "))?;
    tree.line(format!("{NODE}/node{number}/cpulist"), list(&cpus))?;
    tree.line(format!("{NODE}/node{number}/cpumap"), mask(&cpus, machine.cpus()))
}

//! The machine's CPUs and NUMA nodes, as sysfs has them.
//!
//! Decides what is assumed where a machine does not say: nothing, so that nothing is pinned by it. Read once with the rest of the
//! inventory. Source: kernel Documentation/ABI/stable/sysfs-devices-node and .../sysfs-devices-system-cpu, Documentation/admin-guide/cputopology.rst.

use std::fs;
use std::str::FromStr;

use plan::cpus::NumaNode;
use plan::{CpuSet, PciAddress, Topology};

use crate::{Host, keep};

const CPU: &str = "/sys/devices/system/cpu";
const NODE: &str = "/sys/devices/system/node";

/// What the host says of its CPUs and memory; empty where it has no NUMA nodes in sysfs.
pub fn topology(host: &Host) -> Topology {
    let Some(online) = list(host, &format!("{NODE}/online")) else { return Topology::default() };
    let with_memory = ["has_memory", "has_normal_memory"]
        .into_iter()
        .find_map(|name| list(host, &format!("{NODE}/{name}")))
        .unwrap_or_else(CpuSet::none);
    let node = |id: u32| NumaNode {
        id,
        cpus: list(host, &format!("{NODE}/node{id}/cpulist")).unwrap_or_default(),
        memory: with_memory.has(id),
        distances: text(host, &format!("{NODE}/node{id}/distance"))
            .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
            .unwrap_or_default(),
    };
    let nodes: Vec<NumaNode> = online.iter().map(node).collect();
    let cpus: CpuSet = nodes.iter().flat_map(|node| node.cpus.iter()).collect();
    let aside = |name: &str| list(host, &format!("{CPU}/{name}")).unwrap_or_default();
    Topology {
        packages: groups(host, &cpus, "topology/core_siblings_list"),
        caches: groups(host, &cpus, "cache/index3/shared_cpu_list"),
        cores: groups(host, &cpus, "topology/thread_siblings_list"),
        isolated: aside("isolated"),
        nohz_full: aside("nohz_full"),
        gpu_memory: gpu_memory(host).collect(),
        nodes,
    }
}

/// The sets that `file` says the CPUs are in, each once, of CPUs that are online.
fn groups(host: &Host, cpus: &CpuSet, file: &str) -> Vec<CpuSet> {
    let mut rest = cpus.clone();
    let mut found = Vec::new();
    while let Some(cpu) = rest.first() {
        let group = list(host, &format!("{CPU}/cpu{cpu}/{file}")).map(|group| group.and(&rest));
        match group.filter(|group| group.has(cpu)) {
            Some(group) => {
                rest = rest.without(&group);
                found.push(group);
            }
            None => rest = rest.without(&[cpu].into_iter().collect()),
        }
    }
    found
}

/// GPUs whose memory is a NUMA node of its own: the driver's `numa_status` names it (Grace Hopper, Grace Blackwell).
fn gpu_memory(host: &Host) -> impl Iterator<Item = (PciAddress, u32)> {
    const GPUS: &str = "/proc/driver/nvidia/gpus";
    let names = keep::names(&host.path(GPUS)).unwrap_or_default();
    names.into_iter().filter_map(move |name| {
        let status = text(host, &format!("{GPUS}/{name}/numa_status"))?;
        let node = status.lines().find_map(|line| line.strip_prefix("Node:"))?;
        // -1 where there is none.
        Some((name.parse().ok()?, node.trim().parse().ok()?))
    })
}

fn text(host: &Host, path: &str) -> Option<String> {
    fs::read_to_string(host.path(path)).ok()
}

fn list(host: &Host, path: &str) -> Option<CpuSet> {
    // nohz_full reads as "(null)" where the kernel was not told of any.
    text(host, path).and_then(|text| CpuSet::from_str(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn host(root: &Path) -> Host {
        Host {
            root: root.into(),
            driver_root: "/".into(),
            nvml: "x".into(),
            run: root.join("run"),
            state: root.join("state"),
        }
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    #[test]
    fn a_machine_of_two_nodes_and_one_of_memory_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        for (path, text) in [
            ("node/online", "0-2\n"),
            ("node/has_memory", "0,2\n"),
            ("node/node0/cpulist", "0-1,4-5\n"),
            ("node/node0/distance", "10 21 80\n"),
            ("node/node1/cpulist", "2-3,6\n"),
            ("node/node1/distance", "21 10 120\n"),
            ("node/node2/cpulist", "\n"),
            ("node/node2/distance", "80 120 10\n"),
            ("cpu/isolated", "5\n"),
            ("cpu/nohz_full", "  (null)\n"),
            ("cpu/cpu0/topology/thread_siblings_list", "0,4\n"),
            ("cpu/cpu1/topology/thread_siblings_list", "1,5\n"),
            // 7 is offline.
            ("cpu/cpu2/topology/thread_siblings_list", "2,6\n"),
            ("cpu/cpu3/topology/thread_siblings_list", "3,7\n"),
            ("cpu/cpu0/topology/core_siblings_list", "0-1,4-5\n"),
            ("cpu/cpu2/topology/core_siblings_list", "2-3,6-7\n"),
            ("cpu/cpu0/cache/index3/shared_cpu_list", "0-1,4-5\n"),
        ] {
            write(root, &format!("/sys/devices/system/{path}"), text);
        }
        let status = "Node:\t\t 2\nStatus:\t\t online\n";
        write(root, "/proc/driver/nvidia/gpus/0008:01:00.0/numa_status", status);
        write(root, "/proc/driver/nvidia/gpus/0009:01:00.0/numa_status", "Node:\t\t -1\n");
        let seen = topology(&host(root));
        let set = |text: &str| -> CpuSet { text.parse().expect("a list") };
        let nodes: Vec<_> = seen.nodes.iter().map(|n| (n.id, n.cpus.clone(), n.memory)).collect();
        let wanted =
            [(0, set("0-1,4-5"), true), (1, set("2-3,6"), false), (2, CpuSet::none(), true)];
        assert_eq!(nodes, wanted);
        assert_eq!(seen.nodes[2].distances, [80, 120, 10]);
        assert_eq!(seen.cores, ["0,4", "1,5", "2,6", "3"].map(set));
        assert_eq!(seen.packages, ["0-1,4-5", "2-3,6"].map(set));
        assert_eq!(seen.caches, ["0-1,4-5"].map(set), "the others do not say");
        assert_eq!((seen.isolated, seen.nohz_full), (set("5"), CpuSet::none()));
        let memory: Vec<_> =
            seen.gpu_memory.iter().map(|(pci, id)| (pci.to_string(), *id)).collect();
        assert_eq!(memory, [("0008:01:00.0".to_owned(), 2)]);
    }

    #[test]
    fn a_machine_that_says_nothing_is_empty() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(topology(&host(dir.path())).is_empty());
    }
}

//! `berth topo`: GPUs as a matrix of closeness, with who holds them; the form is that of `nvidia-smi topo -m`.

use std::collections::BTreeMap;

use engine::{Ancestor, Gpu, Grant, Inventory, Node, Peer};
use serde::Serialize;
use serde_json::json;

use crate::{table, view};

const LEGEND: &[&str] = &[
    "Legend:",
    "  X     the GPU itself",
    "  NV#   # NVLinks between the two",
    "  PIX   one PCIe switch at most",
    "  PXB   several PCIe switches, not the host bridge",
    "  PHB   the PCIe host bridge of one CPU",
    "  NODE  several host bridges within one NUMA node",
    "  SYS   the link between NUMA nodes",
];

#[derive(Debug, Serialize)]
struct GpuJson {
    index: u32,
    uuid: String,
    pci: String,
    model: String,
    memory_mib: u64,
    numa_node: Option<u32>,
    mig: bool,
    holders: Vec<String>,
    /// By the other's UUID.
    links: BTreeMap<String, LinkJson>,
}

#[derive(Debug, Serialize)]
struct LinkJson {
    nvlinks: u32,
    ancestor: &'static str,
}

/// Prints the node's GPUs.
pub fn run(node: &Node, json: bool) -> anyhow::Result<()> {
    let (inventory, grants) = (node.inventory()?, node.grants()?);
    if json {
        let gpus: Vec<GpuJson> = inventory.gpus.iter().map(|gpu| as_json(gpu, &grants)).collect();
        let driver = inventory.driver.as_ref();
        let driver = driver.map(|d| json!({"version": d.version, "cuda": d.cuda.to_string()}));
        return view::print_json(&json!({ "driver": driver, "gpus": gpus }));
    }
    match &inventory.driver {
        None => view::print_lines(&["No NVIDIA driver is loaded on this node.".to_owned()]),
        Some(driver) => {
            let head = format!(
                "Driver {}, CUDA {}, {} GPUs",
                driver.version,
                driver.cuda,
                inventory.gpus.len()
            );
            let mut lines = vec![head, String::new()];
            lines.extend(matrix(&inventory, &grants));
            lines.push(String::new());
            lines.extend(LEGEND.iter().map(|&line| line.to_owned()));
            view::print_lines(&lines)
        }
    }
}

fn matrix(inventory: &Inventory, grants: &[Grant]) -> Vec<String> {
    let names: Vec<String> = inventory.gpus.iter().map(|gpu| format!("GPU{}", gpu.index)).collect();
    let mut head = vec![""];
    head.extend(names.iter().map(String::as_str));
    head.extend(["NUMA", "MODEL", "HELD BY"]);
    let rows: Vec<Vec<String>> = inventory
        .gpus
        .iter()
        .zip(&names)
        .map(|(gpu, name)| {
            let mut row = vec![name.clone()];
            row.extend(inventory.gpus.iter().map(|other| match gpu.peers.get(&other.uuid) {
                _ if other.uuid == gpu.uuid => "X".to_owned(),
                Some(peer) => short(*peer),
                None => "?".into(),
            }));
            row.push(gpu.numa_node.map_or_else(|| "-".into(), |node| node.to_string()));
            row.push(gpu.model.clone());
            row.push(match holders(gpu, grants) {
                held if !held.is_empty() => held.join(" "),
                _ if gpu.mig => "- (MIG mode)".into(),
                _ => "-".into(),
            });
            row
        })
        .collect();
    table::lines(&head, &rows)
}

fn holders(gpu: &Gpu, grants: &[Grant]) -> Vec<String> {
    let holding = grants.iter().filter(|grant| grant.gpus.iter().any(|held| held.uuid == gpu.uuid));
    holding.map(|grant| grant.label.clone()).collect()
}

fn short(peer: Peer) -> String {
    match peer.nvlinks {
        0 => ancestor(peer.ancestor).to_owned(),
        links => format!("NV{links}"),
    }
}

/// The short names of `nvidia-smi topo -m`; two GPUs on one board count as one switch.
fn ancestor(ancestor: Ancestor) -> &'static str {
    match ancestor {
        Ancestor::Internal | Ancestor::SingleSwitch => "PIX",
        Ancestor::MultipleSwitches => "PXB",
        Ancestor::HostBridge => "PHB",
        Ancestor::Node => "NODE",
        Ancestor::System => "SYS",
    }
}

fn as_json(gpu: &Gpu, grants: &[Grant]) -> GpuJson {
    GpuJson {
        index: gpu.index,
        uuid: gpu.uuid.to_string(),
        pci: gpu.pci.to_string(),
        model: gpu.model.clone(),
        memory_mib: gpu.memory.0,
        numa_node: gpu.numa_node,
        mig: gpu.mig,
        holders: holders(gpu, grants),
        links: gpu
            .peers
            .iter()
            .map(|(uuid, peer)| {
                let link = LinkJson { nvlinks: peer.nvlinks, ancestor: ancestor(peer.ancestor) };
                (uuid.to_string(), link)
            })
            .collect(),
    }
}

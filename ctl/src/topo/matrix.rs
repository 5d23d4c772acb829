//! `berth topo` without more: GPUs as a matrix of closeness, with who holds them; the form is that of `nvidia-smi topo -m`.
//!
//! Decides its columns and words.

use engine::{Ancestor, Gpu, Grant, Inventory, Peer};

use super::seating::{Part, Seating, Strip};
use crate::table;

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

/// The driver, the matrix, the MIG instances, and what its words mean.
pub fn lines(seating: &Seating, inventory: &Inventory, grants: &[Grant]) -> Vec<String> {
    let Some(driver) = &inventory.driver else { return vec![seating.head()] };
    let number = inventory.gpus.len();
    let head = format!("Driver {}, CUDA {}, {number} GPUs", driver.version, driver.cuda);
    let mut lines = vec![head, String::new()];
    lines.extend(matrix(inventory, grants));
    let instances = instances(seating);
    if !instances.is_empty() {
        lines.push(String::new());
        lines.extend(table::lines(&["MIG", "INSTANCE", "SLICES", "HELD BY"], &instances));
    }
    lines.push(String::new());
    lines.extend(LEGEND.iter().map(|&line| line.to_owned()));
    lines
}

/// A row for each MIG instance, in the order of the GPUs' indices.
fn instances(seating: &Seating) -> Vec<Vec<String>> {
    let mut strips: Vec<&Strip> = seating.strips().collect();
    strips.sort_by_key(|strip| strip.index);
    let row = |strip: &Strip, part: &Part| {
        let who = part.who.iter().map(|nth| seating.holders[*nth].label.clone());
        let who: Vec<String> = who.collect();
        vec![
            format!("GPU{}", strip.index),
            part.name().unwrap_or_default(),
            part.range(),
            match (who.is_empty(), part.is_foreign()) {
                (true, _) => "- (not made by Berth)".to_owned(),
                (false, true) => format!("{} (not made by Berth)", who.join(" ")),
                (false, false) => who.join(" "),
            },
        ]
    };
    strips.iter().flat_map(|strip| strip.instances().map(|part| row(strip, part))).collect()
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

/// Labels of the grants that hold it, or a part of it.
pub fn holders(gpu: &Gpu, grants: &[Grant]) -> Vec<String> {
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
pub fn ancestor(ancestor: Ancestor) -> &'static str {
    match ancestor {
        Ancestor::Internal | Ancestor::SingleSwitch => "PIX",
        Ancestor::MultipleSwitches => "PXB",
        Ancestor::HostBridge => "PHB",
        Ancestor::Node => "NODE",
        Ancestor::System => "SYS",
    }
}

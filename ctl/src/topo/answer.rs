//! `berth topo --json`: decides the stable field names (documented in docs/berth.md).

use std::collections::BTreeMap;

use engine::{Gpu, Grant, Inventory};
use serde::Serialize;
use serde_json::{Value, json};

use super::matrix::{ancestor, holders};
use super::seating::{Part, Seating, Slices};

#[derive(Debug, Serialize)]
struct GpuJson {
    index: u32,
    uuid: String,
    pci: String,
    model: String,
    memory_mib: u64,
    numa_node: Option<u32>,
    memory_node: Option<u32>,
    mig: bool,
    holders: Vec<String>,
    instances: Vec<InstanceJson>,
    /// By the other's UUID.
    links: BTreeMap<String, LinkJson>,
}

#[derive(Debug, Serialize)]
struct LinkJson {
    nvlinks: u32,
    ancestor: &'static str,
}

#[derive(Debug, Serialize)]
struct InstanceJson {
    profile: String,
    start: u32,
    slices: u32,
    gpu_instance: Option<u32>,
    mig_uuids: Vec<String>,
    holders: Vec<String>,
    foreign: bool,
}

/// The whole answer.
pub fn of(seating: &Seating, inventory: &Inventory, grants: &[Grant]) -> Value {
    let driver = inventory.driver.as_ref();
    let driver = driver.map(|d| json!({"version": d.version, "cuda": d.cuda.to_string()}));
    let gpus: Vec<GpuJson> = inventory.gpus.iter().map(|one| gpu(one, seating, grants)).collect();
    let topology = &inventory.topology;
    let nodes = topology
        .nodes
        .iter()
        .map(|node| json!({"node": node.id, "cpus": node.cpus.to_string(), "memory": node.memory}));
    let cpus = json!({
        "exclusive": seating.pool.to_string(),
        "exclusive_free": seating.pool_free.to_string(),
        "reserved": seating.reserved.to_string(),
        "isolated": topology.isolated.to_string(),
    });
    json!({"driver": driver, "gpus": gpus, "numa_nodes": nodes.collect::<Vec<_>>(), "cpus": cpus})
}

fn gpu(gpu: &Gpu, seating: &Seating, grants: &[Grant]) -> GpuJson {
    let strip = seating.strips().find(|strip| strip.uuid == gpu.uuid);
    let instances = strip.into_iter().flat_map(|strip| strip.instances());
    GpuJson {
        index: gpu.index,
        uuid: gpu.uuid.to_string(),
        pci: gpu.pci.to_string(),
        model: gpu.model.clone(),
        memory_mib: gpu.memory.0,
        numa_node: gpu.numa_node,
        memory_node: strip.and_then(|strip| strip.memory_node),
        mig: gpu.mig,
        holders: holders(gpu, grants),
        instances: instances.filter_map(|part| instance(part, seating)).collect(),
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

fn instance(part: &Part, seating: &Seating) -> Option<InstanceJson> {
    let Slices::Instance { profile, gpu_instance, mig_uuids, foreign, .. } = &part.what else {
        return None;
    };
    Some(InstanceJson {
        profile: profile.clone(),
        start: part.start,
        slices: part.size,
        gpu_instance: *gpu_instance,
        mig_uuids: mig_uuids.clone(),
        holders: part.who.iter().map(|nth| seating.holders[*nth].label.clone()).collect(),
        foreign: *foreign,
    })
}

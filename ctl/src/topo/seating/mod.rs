//! Who sits where: the node's CPUs, GPUs and slices of GPUs, each with the grants that hold it.
//!
//! ```text
//! inventory, grants, pool ─► Seating ─► tree, map, svg, matrix, JSON
//! ```
//!
//! Decides what belongs together; a value, made once from what the engine tells. Must not know how it is drawn.

mod cpus;
mod gpus;
#[cfg(test)]
mod tests;

use engine::{CpuSet, Driver, Grant, Inventory, Near, NodeSet};

use self::cpus::Holds;
pub use self::cpus::{Cell, Ground, Room};
pub use self::gpus::{Branch, Part, Slices, Strip};
use crate::explain;
use crate::view::{self, GrantView};

/// The node and who holds what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seating {
    /// The driver; none on a node without one.
    pub driver: Option<Driver>,
    /// Grants in the order in which they were made; other fields name them by their place here.
    pub holders: Vec<Holder>,
    /// NUMA nodes that have CPUs or GPUs, ascending.
    pub rooms: Vec<Room>,
    /// GPUs whose NUMA node the machine does not say.
    pub strays: Vec<Strip>,
    /// Further NUMA nodes: without CPUs, and no GPU's memory.
    pub bare: NodeSet,
    /// CPUs that containers may have for themselves.
    pub pool: CpuSet,
    /// Those of them that are there and nobody's.
    pub pool_free: CpuSet,
    /// CPUs that no container with a GPU gets.
    pub reserved: CpuSet,
}

/// One grant, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Whose it is.
    pub label: String,
    /// What is unusual about it; empty where nothing is.
    pub state: String,
    /// The annotations as written, `berth.dev/gpus: "2"`.
    pub requested: Vec<String>,
    /// What it holds: `GPU 3`, `1g.5gb@6 of GPU 0`.
    pub holds: Vec<String>,
    /// What its containers are pinned to, and whose names that is said of; no names where it is said of all.
    pub pinned: Vec<(Vec<String>, String)>,
    /// Names of its containers.
    pub containers: Vec<String>,
}

impl Seating {
    /// Who sits where on the node that `inventory` describes.
    pub fn of(inventory: &Inventory, grants: &[Grant], pool: &CpuSet, reserved: &CpuSet) -> Self {
        let topology = &inventory.topology;
        let holds = Holds::of(grants);
        let mut rooms: Vec<Room> = topology
            .nodes
            .iter()
            .map(|node| Room::new(node, topology, &holds, (pool, reserved)))
            .collect();
        let mut strays = Vec::new();
        let mut of_gpus = NodeSet::none();
        for gpu in &inventory.gpus {
            let strip = Strip::of(gpu, topology, grants);
            of_gpus.extend(strip.memory_node);
            let home = Near::of(&[gpu], topology).and_then(|near| near.own.first());
            match rooms.iter_mut().find(|room| Some(room.id) == home) {
                Some(room) => room.strips.push(strip),
                None => strays.push(strip),
            }
        }
        for room in &mut rooms {
            room.branches = gpus::branches(&room.strips, &inventory.gpus);
        }
        let is_bare = |room: &Room| room.cells.is_empty() && room.strips.is_empty();
        let bare: NodeSet = rooms.iter().filter(|room| is_bare(room)).map(|room| room.id).collect();
        rooms.retain(|room| !is_bare(room));
        let held: CpuSet = holds.own.iter().flat_map(CpuSet::iter).collect();
        let pool_free = pool.and(&topology.cpus()).without(reserved).without(&held);
        Self {
            driver: inventory.driver.clone(),
            holders: grants.iter().map(Holder::of).collect(),
            rooms,
            strays,
            bare: bare.without(&of_gpus),
            pool: pool.clone(),
            pool_free,
            reserved: reserved.clone(),
        }
    }

    /// All GPUs, room by room.
    pub fn strips(&self) -> impl Iterator<Item = &Strip> {
        self.rooms.iter().flat_map(|room| &room.strips).chain(&self.strays)
    }

    /// The GPUs' product name, where all have the same.
    pub fn model(&self) -> Option<&str> {
        let first = self.strips().next()?.model.as_str();
        self.strips().all(|strip| strip.model == first).then_some(first)
    }

    /// What the node is, in a line: `Driver 550.163.01, CUDA 12.4, 8 GPUs`.
    pub fn head(&self) -> String {
        let Some(driver) = &self.driver else {
            return "No NVIDIA driver is loaded on this node.".to_owned();
        };
        let number = self.strips().count();
        let gpus = if number == 1 { "GPU" } else { "GPUs" };
        let model = self.model().map_or_else(String::new, |model| format!(" ({model})"));
        format!("Driver {}, CUDA {}, {number} {gpus}{model}", driver.version, driver.cuda)
    }
}

impl Holder {
    fn of(grant: &Grant) -> Self {
        let grant = view::grant(grant);
        let mut state = Vec::new();
        if grant.state != "applied" {
            state.push(grant.state.to_owned());
        }
        if grant.decided_by != "berth" {
            state.push(format!("decided by {}", grant.decided_by));
        }
        if grant.unconfined {
            state.push("unconfined".to_owned());
        }
        Self {
            state: state.join(", "),
            requested: grant
                .requested
                .iter()
                .map(|(key, value)| format!("{key}: {value:?}"))
                .collect(),
            holds: holds(&grant),
            pinned: pinned(&grant),
            containers: grant.members.iter().map(|member| member.shown().to_owned()).collect(),
            label: grant.owner,
        }
    }
}

fn holds(grant: &GrantView) -> Vec<String> {
    if grant.instances.is_empty() {
        return grant.gpus.iter().map(|gpu| format!("GPU {}", gpu.index)).collect();
    }
    let instances = grant.instances.iter();
    instances
        .map(|one| format!("{}@{} of GPU {}", one.profile, one.start, grant.index_of(one)))
        .collect()
}

/// Containers that are pinned alike are told of together.
fn pinned(grant: &GrantView) -> Vec<(Vec<String>, String)> {
    let mut all: Vec<(Vec<String>, String)> = Vec::new();
    for member in &grant.members {
        let words = explain::pinned(member).join("; ");
        match all.iter_mut().find(|(_, same)| *same == words) {
            Some((names, _)) => names.push(member.shown().to_owned()),
            None => all.push((vec![member.shown().to_owned()], words)),
        }
    }
    if let [(names, _)] = all.as_mut_slice() {
        names.clear();
    }
    all.retain(|(_, words)| !words.is_empty());
    all
}

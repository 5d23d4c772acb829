//! A NUMA node's CPUs, cell by cell.
//!
//! Decides what one cell is: a core, where the threads of each core of the node are held alike, else a CPU.

use engine::{CpuSet, Grant, NumaNode, Topology};

use super::{Branch, Strip};

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The kernel's number.
    pub id: u32,
    /// Whether it has memory.
    pub memory: bool,
    /// Its CPUs.
    pub cpus: CpuSet,
    /// How many cores these are.
    pub cores: usize,
    /// Whether a cell is a core; else it is a CPU.
    pub by_core: bool,
    /// Its CPUs, by the lowest of each cell.
    pub cells: Vec<Cell>,
    /// Its GPUs, in the driver's order.
    pub strips: Vec<Strip>,
    /// How these hang together; by their place in `strips`.
    pub branches: Vec<Branch>,
}

/// CPUs that are held alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Which.
    pub cpus: CpuSet,
    /// What they are for.
    pub ground: Ground,
    /// Grants whose containers run on them.
    pub who: Vec<usize>,
    /// Whether they are somebody's alone.
    pub alone: bool,
}

impl Cell {
    /// Whether the same are on both, and both are for the same.
    fn is_held_as(&self, other: &Self) -> bool {
        (self.ground, &self.who, self.alone) == (other.ground, &other.who, other.alone)
    }
}

/// What CPUs are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// For all.
    Shared,
    /// For whoever asks for CPUs of its own.
    Pool,
    /// The kernel was told to leave them alone.
    Isolated,
    /// The operator keeps them.
    Reserved,
}

impl Room {
    pub(super) fn new(
        node: &NumaNode,
        topology: &Topology,
        holds: &Holds,
        (pool, reserved): (&CpuSet, &CpuSet),
    ) -> Self {
        let cell = |cpus: CpuSet| {
            let first = cpus.first().unwrap_or_default();
            let ground = match first {
                _ if reserved.has(first) => Ground::Reserved,
                _ if pool.has(first) => Ground::Pool,
                _ if topology.isolated.has(first) => Ground::Isolated,
                _ => Ground::Shared,
            };
            let (who, alone) = holds.on(first);
            Cell { cpus, ground, who, alone }
        };
        let single = |cpu: u32| cell([cpu].into_iter().collect());
        let cores = cores(node, topology);
        let is_alike = |core: &CpuSet| {
            let mut threads = core.iter().map(single);
            let first = threads.next();
            first.is_none_or(|first| threads.all(|thread| thread.is_held_as(&first)))
        };
        let by_core = cores.iter().all(is_alike);
        let number = cores.len();
        let cells = match by_core {
            true => cores.into_iter().map(cell).collect(),
            false => node.cpus.iter().map(single).collect(),
        };
        Self {
            id: node.id,
            memory: node.memory,
            cpus: node.cpus.clone(),
            cores: number,
            by_core,
            cells,
            strips: Vec::new(),
            branches: Vec::new(),
        }
    }

    /// Cells that are held alike as one, in the order of their first CPUs, and how many cells each is.
    pub fn together(&self) -> Vec<(Cell, usize)> {
        let mut all: Vec<(Cell, usize)> = Vec::new();
        for cell in &self.cells {
            match all.iter_mut().find(|(one, _)| one.is_held_as(cell)) {
                Some((whole, number)) => {
                    whole.cpus = whole.cpus.or(&cell.cpus);
                    *number += 1;
                }
                None => all.push((cell.clone(), 1)),
            }
        }
        all
    }
}

/// The node's cores, by their lowest CPU; a CPU of which no core is known is one.
fn cores(node: &NumaNode, topology: &Topology) -> Vec<CpuSet> {
    let here = topology.cores.iter().map(|core| core.and(&node.cpus));
    let mut cores: Vec<CpuSet> = here.filter(|core| !core.is_empty()).collect();
    let known: CpuSet = cores.iter().flat_map(CpuSet::iter).collect();
    let rest = node.cpus.without(&known);
    cores.extend(rest.iter().map(|cpu| [cpu].into_iter().collect::<CpuSet>()));
    cores.sort_by_key(CpuSet::first);
    cores
}

/// CPUs that each grant's containers have.
pub(super) struct Holds {
    /// For themselves.
    pub(super) own: Vec<CpuSet>,
    /// With others.
    shared: Vec<CpuSet>,
}

impl Holds {
    pub(super) fn of(grants: &[Grant]) -> Self {
        let union = |sets: &mut dyn Iterator<Item = &CpuSet>| {
            sets.fold(CpuSet::none(), |all, set| all.or(set))
        };
        let own = |grant: &Grant| union(&mut grant.exclusive.values());
        let shared = |grant: &Grant| {
            let sharing = grant.members.iter().filter(|member| !member.pinning.exclusive);
            union(&mut sharing.filter_map(|member| member.pinning.effective.as_ref()))
        };
        Self { own: grants.iter().map(own).collect(), shared: grants.iter().map(shared).collect() }
    }

    /// Who has the CPU, and whether it is somebody's own.
    fn on(&self, cpu: u32) -> (Vec<usize>, bool) {
        let both = self.own.iter().zip(&self.shared).enumerate();
        let who = both
            .filter(|(_, (own, shared))| own.has(cpu) || shared.has(cpu))
            .map(|(nth, _)| nth)
            .collect();
        (who, self.own.iter().any(|own| own.has(cpu)))
    }
}

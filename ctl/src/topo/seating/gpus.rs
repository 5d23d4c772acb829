//! A GPU as a row of slices, and how GPUs hang together.
//!
//! Decides which instances others made: those that a grant says so of, and those that the driver lists and no grant names. What the ledger
//! names and the driver does not list yet is shown, too.

use engine::{Ancestor, Gpu, GpuUuid, Grant, Origin, Stage, Topology};

/// Wider rows than any GPU's are cut.
const MOST_SLICES: u32 = 32;

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strip {
    /// The driver's index.
    pub index: u32,
    /// Identity.
    pub uuid: GpuUuid,
    /// Where it sits.
    pub pci: String,
    /// Product name.
    pub model: String,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// Whether it is in MIG mode.
    pub mig: bool,
    /// The NUMA node that is its own memory.
    pub memory_node: Option<u32>,
    /// Memory slices; 1 where it is not cut.
    pub slices: u32,
    /// What it is cut into, by the first slice; one part where it is not.
    pub parts: Vec<Part>,
}

/// Slices next to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The first.
    pub start: u32,
    /// How many.
    pub size: u32,
    /// Who holds them.
    pub who: Vec<usize>,
    /// What they are.
    pub what: Slices,
}

/// What slices are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slices {
    /// The whole GPU.
    Whole,
    /// In no instance.
    Uncut,
    /// A MIG instance.
    Instance {
        /// `3g.20gb`.
        profile: String,
        /// The driver's id of it, once it is made.
        gpu_instance: Option<u32>,
        /// Its MIG devices, where the driver tells.
        mig_uuids: Vec<String>,
        /// How far it has come, where it does not stand.
        stage: Option<&'static str>,
        /// Whether others made it, whoever holds it.
        foreign: bool,
    },
}

/// How GPUs hang together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Branch {
    /// One, by its place in the list.
    Gpu(usize),
    /// Some that are closer to each other than to others.
    Group {
        /// By what.
        by: &'static str,
        /// They.
        below: Vec<Branch>,
    },
}

/// What may be above GPUs, the furthest first.
const LEVELS: [(Ancestor, &str); 4] = [
    (Ancestor::HostBridge, "PCIe host bridge"),
    (Ancestor::MultipleSwitches, "PCIe switches"),
    (Ancestor::SingleSwitch, "PCIe switch"),
    (Ancestor::Internal, "one board"),
];

impl Strip {
    pub(super) fn of(gpu: &Gpu, topology: &Topology, grants: &[Grant]) -> Self {
        let holds = |grant: &Grant| grant.slots.is_empty() && grant.holds(&gpu.uuid);
        let all = grants.iter().enumerate();
        let whole: Vec<usize> = all.filter(|(_, grant)| holds(grant)).map(|(nth, _)| nth).collect();
        let mut parts = instances(gpu, grants);
        let slices = if gpu.mig || !parts.is_empty() { row(gpu, &parts) } else { 1 };
        match slices {
            1 if parts.is_empty() => {
                parts.push(Part { start: 0, size: 1, who: whole, what: Slices::Whole });
            }
            _ => parts.extend(uncut(slices, &parts, &whole)),
        }
        parts.sort_by_key(|part| part.start);
        Self {
            index: gpu.index,
            uuid: gpu.uuid.clone(),
            pci: gpu.pci.to_string(),
            model: gpu.model.clone(),
            memory_mib: gpu.memory.0,
            mig: gpu.mig,
            memory_node: topology.gpu_memory.get(&gpu.pci).copied(),
            slices,
            parts,
        }
    }

    /// The instances on it.
    pub fn instances(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| matches!(part.what, Slices::Instance { .. }))
    }

    /// What slice `at` is a part of.
    pub fn part_at(&self, at: u32) -> Option<&Part> {
        self.parts
            .iter()
            .find(|part| (part.start..part.start.saturating_add(part.size)).contains(&at))
    }
}

impl Part {
    /// `3g.20gb@4`; nothing where it is no instance.
    pub fn name(&self) -> Option<String> {
        let Slices::Instance { profile, .. } = &self.what else { return None };
        Some(format!("{profile}@{}", self.start))
    }

    /// `4-7`; `4` where it is one slice.
    pub fn range(&self) -> String {
        match self.size {
            0 | 1 => self.start.to_string(),
            size => format!("{}-{}", self.start, self.start.saturating_add(size) - 1),
        }
    }

    /// Whether others made it.
    pub fn is_foreign(&self) -> bool {
        matches!(self.what, Slices::Instance { foreign: true, .. })
    }
}

fn row(gpu: &Gpu, parts: &[Part]) -> u32 {
    let end = |(start, size): (u32, u32)| start.saturating_add(size);
    let offered = gpu
        .profiles
        .iter()
        .flat_map(|profile| profile.starts.iter().map(|start| (*start, profile.slices)));
    let there = parts.iter().map(|part| (part.start, part.size));
    offered.chain(there).map(end).max().unwrap_or(1).clamp(1, MOST_SLICES)
}

/// Those that grants name, and those that the driver lists beside them.
fn instances(gpu: &Gpu, grants: &[Grant]) -> Vec<Part> {
    let mut parts: Vec<(u32, Part)> = Vec::new();
    for (nth, grant) in grants.iter().enumerate() {
        for slot in grant.slots.iter().filter(|slot| slot.gpu == gpu.uuid) {
            let same = |one: &&mut (u32, Part)| (one.0, one.1.start) == (slot.profile, slot.start);
            if let Some((_, part)) = parts.iter_mut().find(same) {
                part.who.push(nth);
                continue;
            }
            let made = slot.instance.as_ref();
            let foreign = slot.foreign || grant.origin != Origin::Berth;
            let what = Slices::Instance {
                profile: slot.name.to_string(),
                gpu_instance: made.map(|made| made.gpu_instance),
                mig_uuids: made
                    .and_then(|made| made.uuid.as_ref())
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                stage: match slot.stage {
                    Stage::Made => None,
                    _ if foreign => None,
                    Stage::Decided | Stage::Begun => Some("being made"),
                    Stage::Ending => Some("being destroyed"),
                },
                foreign,
            };
            let part = Part { start: slot.start, size: slot.size, who: vec![nth], what };
            parts.push((slot.profile, part));
        }
    }
    let is_known =
        |profile: u32, start: u32| parts.iter().any(|one| (one.0, one.1.start) == (profile, start));
    let others = gpu.instances.iter().filter(|one| !is_known(one.profile, one.start));
    let others: Vec<Part> = others
        .map(|one| {
            let name = gpu.profile_by_id(one.profile).map(|profile| profile.name.to_string());
            let devices = one.compute_instances.iter().filter_map(|device| device.uuid.as_ref());
            let what = Slices::Instance {
                profile: name.unwrap_or_else(|| format!("profile {}", one.profile)),
                gpu_instance: Some(one.gpu_instance),
                mig_uuids: devices.map(ToString::to_string).collect(),
                stage: None,
                foreign: true,
            };
            Part { start: one.start, size: one.size, who: Vec::new(), what }
        })
        .collect();
    parts.into_iter().map(|(_, part)| part).chain(others).collect()
}

/// Slices in no instance, those next to each other as one part.
fn uncut(slices: u32, parts: &[Part], whole: &[usize]) -> Vec<Part> {
    let is_in =
        |at: u32, part: &Part| (part.start..part.start.saturating_add(part.size)).contains(&at);
    let mut found: Vec<Part> = Vec::new();
    for at in (0..slices).filter(|at| !parts.iter().any(|part| is_in(*at, part))) {
        match found.last_mut() {
            Some(last) if last.start + last.size == at => last.size += 1,
            _ => found.push(Part { start: at, size: 1, who: whole.to_vec(), what: Slices::Uncut }),
        }
    }
    found
}

/// How the GPUs of one room hang together: below a bridge or switch only those that are not alone there.
pub(super) fn branches(strips: &[Strip], gpus: &[Gpu]) -> Vec<Branch> {
    let all: Vec<usize> = (0..strips.len()).collect();
    let ancestor = |one: usize, other: usize| {
        let gpu = gpus.iter().find(|gpu| gpu.uuid == strips[one].uuid)?;
        gpu.peers.get(&strips[other].uuid).map(|peer| peer.ancestor)
    };
    below(&all, &LEVELS, &ancestor)
}

fn below(
    gpus: &[usize],
    levels: &[(Ancestor, &'static str)],
    ancestor: &dyn Fn(usize, usize) -> Option<Ancestor>,
) -> Vec<Branch> {
    let Some(((level, by), closer)) = levels.split_first() else {
        return gpus.iter().map(|gpu| Branch::Gpu(*gpu)).collect();
    };
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for gpu in gpus {
        let is_near = |other: &usize| ancestor(*gpu, *other).is_some_and(|found| found <= *level);
        match groups.iter_mut().find(|group| group.iter().any(is_near)) {
            Some(group) => group.push(*gpu),
            None => groups.push(vec![*gpu]),
        }
    }
    let branch = |group: Vec<usize>| match group.as_slice() {
        [gpu] => Branch::Gpu(*gpu),
        _ => {
            let mut below = below(&group, closer, ancestor);
            match below.len() {
                // The nearest of what is above all of them says it.
                1 => below.remove(0),
                _ => Branch::Group { by, below },
            }
        }
    };
    groups.into_iter().map(branch).collect()
}

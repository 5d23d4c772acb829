//! Placement: which GPUs, or slices of them, a claim gets.
//!
//! Of whole GPUs: of all sets of the right size, the closest: most NVLinks among its members, then the nearest worst PCI ancestor, then the nearest
//! ancestors altogether, then the fewest NUMA nodes. Among equally close ones, that which leaves the closest GPUs free: pairs and
//! NUMA groups stay whole, and what is already broken is used up first. Among those, the one with the lower UUIDs.
//!
//! Of GPUs in MIG mode: see `slices`.
//!
//! Decides which, and why not the others (`nearness` measures, `search` chooses, `words` explains). Must not
//! know who asks or whether they may.

mod external;
mod named;
mod nearness;
mod search;
mod slices;
mod switch;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::external::external;
use self::nearness::Ground;
use self::slices::Moment;
pub use self::switch::{expected, profiles_of_its_like, to_switch};
use crate::ids::{GpuUuid, PciAddress};
use crate::inventory::{Gpu, Inventory};
use crate::mig::{Devices, Slot};
use crate::nearest::{self, Nearest};
use crate::occupancy::{Holder, Occupancy, Slice};
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::request::Want;

/// What a claim gets, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The GPUs, in the driver's order; of MIG instances, those that they are on.
    pub gpus: Vec<GpuUuid>,
    /// The MIG instances, in the driver's order of their GPUs and by start; none where GPUs are given as a whole.
    #[serde(default)]
    pub slots: Vec<Slot>,
    /// Every GPU of the node and what was decided about it, in the driver's order.
    pub candidates: Vec<Candidate>,
    /// How close the chosen GPUs are, in words: `NVLink x18, one NUMA node (0)`.
    pub closeness: String,
}

/// One GPU as the decision saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// The GPU.
    pub gpu: GpuUuid,
    /// What was decided.
    pub verdict: Verdict,
}

/// What was decided about a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, tag = "is", content = "why")]
pub enum Verdict {
    /// Given.
    Chosen,
    /// It would have done; others are closer or leave better room.
    Passed(String),
    /// It cannot be had: held, excluded, in MIG mode.
    Unavailable(String),
}

/// Decides which GPUs `want` gets. Pure: the same arguments give the same placement, ties go to the lower UUID.
///
/// # Errors
/// [`Refusal::NoRoom`] and its like, naming every candidate and the nearest request that would fit.
pub fn decide(
    want: &Want,
    inventory: &Inventory,
    occupancy: &Occupancy<'_>,
    policy: &Policy,
) -> Result<Placement, Refusal> {
    if inventory.driver.is_none() {
        return Err(Refusal::NoDriver);
    }
    let field = || Field::new(inventory, occupancy, policy);
    match want {
        Want::Whole(number) => {
            let field = field();
            field.whole(number.get() as usize).ok_or_else(|| field.no_whole(want))
        }
        Want::Exactly(gpus) => {
            let field = field();
            field.exactly(gpus).ok_or_else(|| field.not_these(want, gpus))
        }
        Want::Instances(uuids) => named::decide(want, uuids, inventory, occupancy, policy),
        Want::Mig { profile, count } => {
            let asked = slices::Asked { profile, count: count.get() };
            slices::decide(asked, inventory, occupancy, policy)
        }
    }
}

/// Whether `node.gpus` lets Berth hand out this GPU. Entries that name nothing allow nothing.
pub fn is_allowed(gpu: &Gpu, policy: &Policy) -> bool {
    let names = |entry: &String| {
        entry.parse::<GpuUuid>().is_ok_and(|uuid| uuid == gpu.uuid)
            || entry.parse::<PciAddress>().is_ok_and(|pci| pci == gpu.pci)
    };
    policy.gpus.is_empty() || policy.gpus.iter().any(names)
}

/// Holders of one GPU that are named; of a time-sliced one there may be dozens, and each grant keeps these words.
const NAMED: usize = 3;

/// Why a GPU cannot be had now.
enum Obstacle<'a> {
    /// `node.gpus` leaves it out.
    Excluded,
    /// It is split, or about to be.
    Mig,
    /// Somebody has it.
    Held(&'a [Holder<'a>]),
    /// Somebody has slices of it, although it is not in MIG mode.
    Sliced(&'a [Slice<'a>]),
}

/// Every GPU, in the driver's order, with what stands in its way.
struct Field<'a> {
    gpus: Vec<(&'a Gpu, Option<Obstacle<'a>>)>,
}

impl<'a> Field<'a> {
    fn new(inventory: &'a Inventory, occupancy: &'a Occupancy<'a>, policy: &Policy) -> Self {
        let obstacle = |gpu: &Gpu| {
            let holders = occupancy.of_whole(&gpu.uuid);
            match occupancy.of_slices(&gpu.uuid) {
                _ if !is_allowed(gpu, policy) => Some(Obstacle::Excluded),
                _ if !holders.is_empty() => Some(Obstacle::Held(holders)),
                _ if gpu.mig => Some(Obstacle::Mig),
                [] => None,
                slices => Some(Obstacle::Sliced(slices)),
            }
        };
        let mut gpus: Vec<_> = inventory.gpus.iter().map(|gpu| (gpu, obstacle(gpu))).collect();
        gpus.sort_by(|(a, _), (b, _)| (a.index, &a.uuid).cmp(&(b.index, &b.uuid)));
        Self { gpus }
    }

    fn free(&self) -> impl Iterator<Item = &'a Gpu> {
        self.gpus.iter().filter(|(_, obstacle)| obstacle.is_none()).map(|(gpu, _)| *gpu)
    }

    /// The closest `number` free GPUs; `None` where there are not so many.
    fn whole(&self, number: usize) -> Option<Placement> {
        let ground = Ground::new(self.free().collect());
        let chosen = search::best(&ground, number)?;
        let why = words::Passing::new(&ground, chosen);
        Some(self.placement(&ground.members(chosen), |gpu| why.passed(gpu)))
    }

    /// Exactly these; `None` where one of them cannot be had.
    fn exactly(&self, wanted: &[GpuUuid]) -> Option<Placement> {
        let chosen: Vec<&Gpu> = self.free().filter(|gpu| wanted.contains(&gpu.uuid)).collect();
        let all_free = wanted.iter().all(|uuid| chosen.iter().any(|gpu| gpu.uuid == *uuid));
        (all_free && !chosen.is_empty())
            .then(|| self.placement(&chosen, |_| "not among those asked for".to_owned()))
    }

    /// The placement of what is given by name: GPUs as a whole, and instances on others.
    fn given(
        &self,
        given: &Devices,
        inventory: &Inventory,
        passed: impl Fn(&Gpu) -> String,
    ) -> Placement {
        let is_theirs = |gpu: &&Gpu| {
            given.gpus.contains(&gpu.uuid) || given.slots.iter().any(|slot| slot.gpu == gpu.uuid)
        };
        let chosen: Vec<&Gpu> = inventory.gpus.iter().filter(is_theirs).collect();
        let mut placement = self.placement(&chosen, passed);
        placement.slots = in_order(&given.slots, &placement.gpus);
        placement
    }

    fn placement(&self, chosen: &[&Gpu], passed: impl Fn(&Gpu) -> String) -> Placement {
        let is_chosen = |gpu: &Gpu| chosen.iter().any(|one| one.uuid == gpu.uuid);
        let verdict = |gpu: &Gpu, obstacle: &Option<Obstacle<'_>>| match obstacle {
            _ if is_chosen(gpu) => Verdict::Chosen,
            Some(obstacle) => Verdict::Unavailable(obstacle.to_string()),
            None => Verdict::Passed(passed(gpu)),
        };
        let candidates = self.gpus.iter().map(|(gpu, obstacle)| Candidate {
            gpu: gpu.uuid.clone(),
            verdict: verdict(gpu, obstacle),
        });
        let given = self.gpus.iter().filter(|(gpu, _)| is_chosen(gpu));
        Placement {
            gpus: given.map(|(gpu, _)| gpu.uuid.clone()).collect(),
            slots: Vec::new(),
            candidates: candidates.collect(),
            closeness: words::closeness(chosen),
        }
    }

    fn no_whole(&self, want: &Want) -> Refusal {
        let candidates = match self.gpus.is_empty() {
            true => "this node has no GPU".to_owned(),
            false => self.named(self.gpus.iter().map(|(gpu, _)| &gpu.uuid)),
        };
        self.no_room(want, candidates, search::MOST)
    }

    fn not_these(&self, want: &Want, wanted: &[GpuUuid]) -> Refusal {
        let candidates = match wanted.is_empty() {
            true => "no device is named".to_owned(),
            false => self.named(wanted.iter()),
        };
        self.no_room(want, candidates, wanted.len())
    }

    /// `most` are the GPUs that a smaller request of the kind could have.
    fn no_room(&self, want: &Want, candidates: String, most: usize) -> Refusal {
        let most = u32::try_from(self.free().count().min(most)).unwrap_or(u32::MAX);
        let nearest = Nearest::new(nearest::whole(most), "nothing is free");
        let releasing = self.fits_after_releases(want);
        Refusal::NoRoom { wanted: want.to_string(), candidates, nearest, releasing }
    }

    /// `GPU-…: held by …; GPU-…: free`, for each of these.
    fn named<'b>(&self, gpus: impl Iterator<Item = &'b GpuUuid>) -> String {
        let known: BTreeMap<&GpuUuid, &Option<Obstacle<'_>>> =
            self.gpus.iter().map(|(gpu, obstacle)| (&gpu.uuid, obstacle)).collect();
        let state = |uuid: &GpuUuid| match known.get(uuid) {
            None => "not on this node".to_owned(),
            Some(None) => "free".to_owned(),
            Some(Some(obstacle)) => obstacle.to_string(),
        };
        gpus.map(|uuid| format!("{uuid}: {}", state(uuid))).collect::<Vec<_>>().join("; ")
    }

    /// Whether the request would fit once everything that is being given back is free.
    fn fits_after_releases(&self, want: &Want) -> bool {
        let soon_free = |obstacle: &Option<Obstacle<'_>>, mig: bool| match obstacle {
            None => true,
            Some(Obstacle::Held(holders)) => !mig && holders.iter().all(|holder| holder.releasing),
            Some(Obstacle::Sliced(slices)) => slices.iter().all(|slice| slice.holder.releasing),
            Some(Obstacle::Excluded | Obstacle::Mig) => false,
        };
        let soon: Vec<&GpuUuid> = self
            .gpus
            .iter()
            .filter(|(gpu, obstacle)| soon_free(obstacle, gpu.mig))
            .map(|(gpu, _)| &gpu.uuid)
            .collect();
        match want {
            Want::Whole(number) => number.get() as usize <= soon.len().min(search::MOST),
            Want::Exactly(gpus) => !gpus.is_empty() && gpus.iter().all(|gpu| soon.contains(&gpu)),
            Want::Mig { .. } | Want::Instances(_) => false,
        }
    }
}

impl std::fmt::Display for Obstacle<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Excluded => f.write_str("not in node.gpus"),
            Self::Mig => f.write_str("in MIG mode"),
            Self::Held(holders) => f.write_str(&held(holders)),
            Self::Sliced(slices) => {
                let holders: Vec<_> = slices.iter().map(|slice| slice.holder.clone()).collect();
                write!(f, "in slices {}", held(&holders))
            }
        }
    }
}

/// Each once, by GPU and start.
fn in_order(slots: &[Slot], gpus: &[GpuUuid]) -> Vec<Slot> {
    let mut slots = slots.to_vec();
    let gpu = |slot: &Slot| gpus.iter().position(|uuid| *uuid == slot.gpu);
    slots.sort_by_key(|slot| (gpu(slot), slot.start, slot.profile));
    slots.dedup_by_key(|slot| slot.place());
    slots
}

/// `held by … and being released by … and 29 more`.
fn held(holders: &[Holder<'_>]) -> String {
    let word = |holder: &Holder<'_>| match (holder.releasing, holder.external) {
        (true, _) => format!("being released by {}", holder.label),
        (false, true) => format!("held by {} (another allocator's)", holder.label),
        (false, false) => format!("held by {}", holder.label),
    };
    let mut words: Vec<String> = holders.iter().take(NAMED).map(word).collect();
    if let Some(more @ 1..) = holders.len().checked_sub(NAMED) {
        words.push(format!("{more} more"));
    }
    words.join(" and ")
}

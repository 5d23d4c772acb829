//! Placement of MIG instances: which slices of which GPUs a claim gets.
//!
//! Only GPUs in MIG mode are looked at, as whole GPUs come only from the others: neither kind of claim uses up what the other needs.
//! Of all sets of as many places as are asked for, the best
//!
//! 1. takes over most idle instances of Berth's own, because making one takes the driver a while;
//! 2. adds least to the node's loss (`mig::options`), so that most of what may be asked for next still fits;
//! 3. is on the fewest GPUs: instances cannot reach each other's memory, wherever they are (MIG has no peer-to-peer), so nearness is worth
//!    nothing; but one GPU has one set of CPUs next to it, and is one thing that can fail;
//! 4. is on the GPUs with the fewest free slices, so that empty ones stay empty;
//! 5. is on the lower UUIDs, and then at the lower starts.
//!
//! Losses of different GPUs add up, so this is exact: the best places for every number on each GPU by trying all of them, then the best
//! way to share the number out among the GPUs.
//!
//! Decides which, and why not the others (`choice` chooses, `words` explains). Must not know who asks or whether they may.

mod choice;
mod words;

use super::{Candidate, Placement, Verdict, is_allowed};
use crate::inventory::{Gpu, Inventory};
use crate::mig::cut::{Cut, Pattern};
use crate::mig::options::Weights;
use crate::mig::{Instance, ProfileName};
use crate::occupancy::{Holder, Occupancy, Slice};
use crate::policy::Policy;
use crate::refusal::Refusal;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) profile: &'a ProfileName,
    pub(super) count: u32,
}

/// Who still counts as a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Now,
    /// Once all that is being released, and all that is idle, is gone.
    Later,
}

/// One GPU and what stands on it.
struct Chip<'a> {
    gpu: &'a Gpu,
    /// Why none of its slices can be had, whatever is free.
    barred: Option<Barred<'a>>,
    pattern: Pattern<'a>,
    weights: Weights,
    cut: Cut,
    /// Where in the pattern the profile is that is asked for.
    kind: Option<usize>,
    /// Starts of idle instances of that profile, lowest first.
    idle: Vec<u32>,
    /// Who holds slices.
    slices: &'a [Slice<'a>],
    /// Instances that nobody accounts for.
    foreign: Vec<&'a Instance>,
}

/// Why a GPU is out of the question.
enum Barred<'a> {
    /// `node.gpus` leaves it out.
    Excluded,
    /// It is not cut into slices; whether it could be.
    ModeOff { capable: bool },
    /// Somebody has the whole of it.
    Held(&'a [Holder<'a>]),
}

/// Decides which slices are given.
pub(super) fn decide(
    asked: Asked<'_>,
    inventory: &Inventory,
    occupancy: &Occupancy<'_>,
    policy: &Policy,
) -> Result<Placement, Refusal> {
    let chips = chips(asked, inventory, occupancy, policy, Moment::Now);
    words::possible(asked, &chips, policy)?;
    let Some(chosen) = choice::best(&chips, asked.count) else {
        let releasing = room(asked, inventory, occupancy, policy, Moment::Later) >= asked.count;
        return Err(words::no_room(asked, &chips, releasing));
    };
    Ok(placement(&chips, &chosen))
}

/// How many instances could be had of the profile, wherever they are.
pub(super) fn room(
    asked: Asked<'_>,
    inventory: &Inventory,
    occupancy: &Occupancy<'_>,
    policy: &Policy,
    moment: Moment,
) -> u32 {
    chips(asked, inventory, occupancy, policy, moment).iter().map(Chip::room).sum()
}

/// How many of the profile would fit on the GPU if nothing were on it; `None` where it does not have it.
pub(super) fn fits_empty(gpu: &Gpu, profile: &ProfileName) -> Option<u32> {
    let pattern = Pattern::new(gpu);
    let kind = pattern.kinds.iter().position(|kind| kind.profile.name == *profile)?;
    Some(pattern.most(&Cut::NONE, kind))
}

/// All GPUs, by UUID.
fn chips<'a>(
    asked: Asked<'_>,
    inventory: &'a Inventory,
    occupancy: &'a Occupancy<'a>,
    policy: &Policy,
    moment: Moment,
) -> Vec<Chip<'a>> {
    let mut gpus: Vec<&Gpu> = inventory.gpus.iter().collect();
    gpus.sort_by(|a, b| a.uuid.cmp(&b.uuid));
    gpus.into_iter().map(|gpu| Chip::new(asked, gpu, occupancy, policy, moment)).collect()
}

impl<'a> Chip<'a> {
    fn new(
        asked: Asked<'_>,
        gpu: &'a Gpu,
        occupancy: &'a Occupancy<'a>,
        policy: &Policy,
        moment: Moment,
    ) -> Self {
        let pattern = Pattern::new(gpu);
        let slices = occupancy.of_slices(&gpu.uuid);
        let mut idle = idle(gpu, slices, occupancy);
        let accounted = |instance: &&Instance| {
            let known = (instance.profile, instance.start);
            let held = slices.iter().any(|slice| (slice.profile, slice.start) == known);
            held || idle.contains(&known)
        };
        let foreign: Vec<&Instance> =
            gpu.instances.iter().filter(|instance| !accounted(instance)).collect();
        let stays = |holder: &Holder<'_>| moment == Moment::Now || !holder.releasing;
        let mut cut = cut(&pattern, slices, &foreign, stays);
        idle.retain(|_| moment == Moment::Now);
        for (profile, start) in &idle {
            cut = with_idle(&pattern, gpu, &cut, *profile, *start);
        }
        let kind = pattern.kinds.iter().position(|kind| kind.profile.name == *asked.profile);
        let id = kind.map(|kind| pattern.kinds[kind].profile.id);
        let to_adopt = idle.iter().filter(|(profile, _)| Some(*profile) == id);
        let idle = to_adopt.map(|(_, start)| *start).collect();
        let whole = occupancy.of_whole(&gpu.uuid);
        let barred = match gpu.mig {
            _ if !is_allowed(gpu, policy) => Some(Barred::Excluded),
            false => Some(Barred::ModeOff { capable: gpu.mig_capable }),
            true => whole.iter().any(stays).then_some(Barred::Held(whole)),
        };
        let weights = Weights::new(&pattern, &policy.mig_mix);
        Self { gpu, barred, weights, cut, kind, idle, slices, foreign, pattern }
    }

    /// Whether it can give the same places at the same cost.
    fn is_like(&self, other: &Self) -> bool {
        let open = self.barred.is_none() && other.barred.is_none();
        let same = (self.kind, self.cut, &self.idle) == (other.kind, other.cut, &other.idle);
        open && same && self.gpu.profiles == other.gpu.profiles
    }

    /// How many instances of the profile it could give.
    fn room(&self) -> u32 {
        let kind = self.kind.filter(|_| self.barred.is_none());
        kind.map_or(0, |kind| self.pattern.most(&self.cut, kind) + self.idle.len() as u32)
    }
}

/// Profile and start of what is idle on the GPU, each once, lowest profile and start first. What somebody holds is not idle.
fn idle(gpu: &Gpu, slices: &[Slice<'_>], occupancy: &Occupancy<'_>) -> Vec<(u32, u32)> {
    let here = occupancy.idle.iter().filter(|place| place.gpu == gpu.uuid);
    let here = here.map(|place| (place.profile, place.start));
    let is_held =
        |idle: &(u32, u32)| slices.iter().any(|slice| (slice.profile, slice.start) == *idle);
    let mut idle: Vec<(u32, u32)> = here.filter(|idle| !is_held(idle)).collect();
    idle.sort_unstable();
    idle.dedup();
    idle
}

/// The cut with an idle instance, as large as the driver or an observation says; what neither of them knows is not there.
fn with_idle(pattern: &Pattern<'_>, gpu: &Gpu, cut: &Cut, profile: u32, start: u32) -> Cut {
    let known = pattern.kind(profile).map(|kind| pattern.kinds[kind].profile.slices);
    let is_it = |one: &&Instance| (one.profile, one.start) == (profile, start);
    let size = known.or_else(|| Some(gpu.instances.iter().find(is_it)?.size));
    size.map_or(*cut, |size| pattern.with_instance(cut, profile, start, size))
}

/// What the GPU is cut into by those who hold slices and by what nobody accounts for. Where another allocator shares an instance out, it is
/// there once.
fn cut(
    pattern: &Pattern<'_>,
    slices: &[Slice<'_>],
    foreign: &[&Instance],
    stays: impl Fn(&Holder<'_>) -> bool,
) -> Cut {
    let held = slices.iter().filter(|slice| stays(&slice.holder));
    let held = held.map(|slice| (slice.profile, slice.start, slice.size));
    let foreign = foreign.iter().map(|one| (one.profile, one.start, one.size));
    let mut all: Vec<(u32, u32, u32)> = held.chain(foreign).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().fold(Cut::NONE, |cut, (profile, start, size)| {
        pattern.with_instance(&cut, profile, start, size)
    })
}

/// The choice as what is recorded and carried out, with a verdict on every GPU.
fn placement(chips: &[Chip<'_>], chosen: &choice::Chosen) -> Placement {
    let mut order: Vec<usize> = (0..chips.len()).collect();
    order.sort_by_key(|place| (chips[*place].gpu.index, &chips[*place].gpu.uuid));
    let given: Vec<usize> =
        order.iter().copied().filter(|place| !chosen.places[*place].is_empty()).collect();
    let slot = |place: usize, (start, adopted): (u32, bool)| {
        let chip = &chips[place];
        let profile = chip.pattern.kinds[chip.kind?].profile;
        Some(profile.slot(&chip.gpu.uuid, start, adopted))
    };
    let slots = given.iter().flat_map(|place| {
        chosen.places[*place].iter().filter_map(|one| slot(*place, *one)).collect::<Vec<_>>()
    });
    let candidate = |place: &usize| Candidate {
        gpu: chips[*place].gpu.uuid.clone(),
        verdict: match chosen.places[*place].is_empty() {
            false => Verdict::Chosen,
            true => words::verdict(chips, chosen, *place),
        },
    };
    let parents: Vec<&Gpu> = given.iter().map(|place| chips[*place].gpu).collect();
    Placement {
        gpus: parents.iter().map(|gpu| gpu.uuid.clone()).collect(),
        slots: slots.collect(),
        candidates: order.iter().map(candidate).collect(),
        closeness: super::words::closeness(&parents),
    }
}

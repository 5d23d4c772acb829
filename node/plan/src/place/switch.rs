//! Which GPU to switch into MIG mode, where none that is in it has room.
//!
//! Decides only that; whether the driver lets it happen is found out by doing it. Must not be asked where something that is being given
//! back would do, since a switch outlives the request.

use super::nearness::Ground;
use super::search::Score;
use super::{Moment, decide, is_allowed, slices};
use crate::ids::GpuUuid;
use crate::inventory::{Gpu, Inventory};
use crate::mig::{Profile, ProfileName};
use crate::occupancy::Occupancy;
use crate::policy::Policy;
use crate::request::Want;
use crate::trust::{Asker, may_switch_mode};

/// The GPU to switch into MIG mode so that `want` fits: idle, capable, one of `node.gpus`, and of those the one whose loss leaves the closest
/// whole GPUs. `None` where the policy does not let `asker` have that, where it would not help, or where it is not needed.
///
/// One at a time: where a request needs several, ask again with the new inventory. What profiles a GPU will have is known from another of its
/// model that is in MIG mode; else it is told by the name, see [`expected`].
pub fn to_switch(
    want: &Want,
    inventory: &Inventory,
    occupancy: &Occupancy<'_>,
    policy: &Policy,
    asker: &Asker,
) -> Option<GpuUuid> {
    let Want::Mig { profile, count } = want else { return None };
    if !may_switch_mode(asker, policy) || decide(want, inventory, occupancy, policy).is_ok() {
        return None;
    }
    let asked = slices::Asked { profile, count: count.get() };
    let room = slices::room(asked, inventory, occupancy, policy, Moment::Now);
    let missing = count.get().saturating_sub(room);
    let free = |gpu: &&Gpu| !gpu.mig && is_allowed(gpu, policy) && occupancy.is_free(&gpu.uuid);
    let free: Vec<&Gpu> = inventory.gpus.iter().filter(free).collect();
    let would_have = |gpu: &Gpu| match gpu.mig_capable && gpu.instances.is_empty() {
        true => expected(gpu, profile, inventory),
        false => 0,
    };
    let all: u32 = free.iter().map(|gpu| would_have(gpu)).sum();
    if all < missing {
        return None;
    }
    let ground = Ground::new(free);
    let score = |gpu: &Gpu| Some(Score::of(&ground, 1 << ground.position(gpu)?));
    let useful = ground.members(ground.all()).into_iter().filter(|gpu| would_have(gpu) > 0);
    let best =
        useful.filter_map(|gpu| Some((score(gpu)?, gpu))).max_by(|(a, _), (b, _)| a.order(b));
    best.map(|(_, gpu)| gpu.uuid.clone())
}

/// How many instances of the profile fit on the GPU once it is in MIG mode.
///
/// The driver offers profiles only then. So: as many as on another GPU of the model; else by the name. On all GPUs so far a profile has an
/// eighth, a quarter, half or all of the memory, and no more than seven compute slices are there.
pub fn expected(gpu: &Gpu, profile: &ProfileName, inventory: &Inventory) -> u32 {
    if let Some(like) = its_like(gpu, inventory) {
        return slices::fits_empty(like, profile).unwrap_or_default();
    }
    let (compute, gigabytes) = profile.size();
    let parts = |share: &u32| {
        // Names round; a sixteenth off is still that share.
        let whole = u64::from(*share * gigabytes) * 1024;
        whole.abs_diff(gpu.memory.0) * 16 <= gpu.memory.0
    };
    let shares = [1, 2, 4, 8].into_iter().find(parts).unwrap_or_default();
    let most = if profile.brings_media() { 1 } else { 7 / compute.max(1) };
    most.min(shares)
}

/// The profiles that the GPU will have once it is in MIG mode, where that is known: its own, or those of another of its model that is.
pub fn profiles_of_its_like<'a>(gpu: &'a Gpu, inventory: &'a Inventory) -> Option<&'a [Profile]> {
    its_like(gpu, inventory).map(|like| &like.profiles[..])
}

fn its_like<'a>(gpu: &'a Gpu, inventory: &'a Inventory) -> Option<&'a Gpu> {
    let alike = |other: &&Gpu| {
        other.mig
            && other.model == gpu.model
            && other.memory == gpu.memory
            && !other.profiles.is_empty()
    };
    let own = Some(gpu).filter(|gpu| !gpu.profiles.is_empty());
    own.or_else(|| inventory.gpus.iter().find(alike))
}

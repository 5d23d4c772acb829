//! Where the driver puts a GPU instance that nobody placed, and what it calls it.
//!
//! The driver does not say how it chooses. What is here gives the placements and ids of every published listing that was found:
//! 4-2-1, 3-2-1-1, seven of one slice (6, 4, 5, 0, 1, 2, 3), three of two (4, 0, 2), and the refusal of 1-1-2-3.

use super::profile::GpuProfile;
use super::{GpuInstance, Placement};
use crate::state::Gpu;

/// Whether an instance of `profile` could be at `placement`.
#[must_use]
pub fn free(gpu: &Gpu, profile: &GpuProfile, placement: Placement) -> bool {
    let taken = |instance: &GpuInstance| instance.placement.overlaps(placement);
    room(gpu, profile) > 0 && !gpu.instances.iter().any(taken)
}

/// How many more of `profile` there could be at best.
#[must_use]
pub fn remaining(gpu: &Gpu, profile: &GpuProfile) -> u32 {
    // Placements of one profile never overlap each other.
    let free = profile.placements().filter(|placement| free(gpu, profile, *placement)).count();
    room(gpu, profile).min(u32::try_from(free).unwrap_or(u32::MAX))
}

/// What the profile's own limit and the compute slices allow.
fn room(gpu: &Gpu, profile: &GpuProfile) -> u32 {
    let of = |instance: &GpuInstance| super::profile::by_id(gpu.gpu_profiles(), instance.profile);
    let used: u32 = gpu.instances.iter().filter_map(of).map(|profile| profile.slices).sum();
    let all = gpu.gpu_profiles().iter().map(|profile| profile.slices).max().unwrap_or(0);
    let same = gpu.instances.iter().filter(|instance| instance.profile == profile.id).count();
    let own = profile.max.saturating_sub(u32::try_from(same).unwrap_or(u32::MAX));
    own.min(all.saturating_sub(used) / profile.slices)
}

/// The driver's choice: what leaves the most placements open; of equals the lowest start.
#[must_use]
pub fn choose(gpu: &Gpu, profile: &GpuProfile) -> Option<Placement> {
    let mut candidates: Vec<Placement> =
        profile.placements().filter(|placement| free(gpu, profile, *placement)).collect();
    candidates.sort();
    let open = |candidate: Placement| {
        let blocked = |placement: Placement| {
            placement.overlaps(candidate)
                || gpu.instances.iter().any(|instance| instance.placement.overlaps(placement))
        };
        let all = gpu.gpu_profiles().iter().flat_map(GpuProfile::placements);
        all.filter(|placement| !blocked(*placement)).count()
    };
    // The first of the best: max_by_key would take the last.
    candidates.into_iter().rev().max_by_key(|candidate| open(*candidate))
}

/// The id of a new instance at `placement`. The driver has a range for each fraction of the memory: 0 for all of it, 1–2 for
/// halves, 3–6 for quarters, 7–14 for eighths. Halves get theirs in the order in which they are made, the others by where they are.
#[must_use]
pub fn id(gpu: &Gpu, placement: Placement) -> Option<u32> {
    let whole = gpu.gpu_profiles().iter().map(|profile| profile.size).max()?;
    let part = whole / placement.size;
    let position = placement.start / placement.size;
    let free = |id: &u32| gpu.instance(*id).is_none();
    match part {
        1 => Some(0),
        2 => (1..=2).find(free),
        4 => Some(3 + position),
        _ => Some(7 + position),
    }
    .filter(free)
}

//! Compute instance profiles: how the compute slices of a GPU instance can be shared out.
//!
//! They follow from the GPU instance's profile, and their ids are the constants of nvml.h
//! (`NVML_COMPUTE_INSTANCE_PROFILE_…_SLICE`).

use super::Placement;
use super::profile::GpuProfile;
use crate::state::Gpu;

/// How many constants there are (`NVML_COMPUTE_INSTANCE_PROFILE_COUNT`).
pub const INDICES: u32 = 8;

/// Slices of each constant, in its place. 5 is for a card with eight slices, and 7 for a variant that no card here has.
const SLICES: [Option<u32>; 8] = [Some(1), Some(2), Some(3), Some(4), Some(7), None, Some(6), None];

/// A compute instance profile within a GPU instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComputeProfile {
    /// Both the constant of nvml.h and the driver's id.
    pub id: u32,
    /// Compute slices.
    pub slices: u32,
    /// How many there can be in the GPU instance.
    pub max: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
}

impl ComputeProfile {
    /// `2c.3g.40gb`, or the GPU instance's name when it is all of it.
    #[must_use]
    pub fn name(&self, gpu: &GpuProfile) -> String {
        if self.slices == gpu.slices {
            gpu.name.to_owned()
        } else {
            format!("{}c.{}", self.slices, gpu.name)
        }
    }

    /// Everywhere that it can be: side by side from the first slice on.
    pub fn placements(&self) -> impl Iterator<Item = Placement> {
        let slices = self.slices;
        // A second one of three begins in the upper half, as memory does.
        let step = if slices == 3 { 4 } else { slices };
        (0..self.max).map(move |number| Placement { start: number * step, size: slices })
    }
}

/// The one with this id in a GPU instance of `profile`.
#[must_use]
pub fn by_id(gpu: &Gpu, profile: &GpuProfile, id: u32) -> Option<ComputeProfile> {
    let slices = SLICES.get(id as usize).copied().flatten()?;
    let offered = slices == profile.slices || (slices < profile.slices && partial(profile, slices));
    if !offered {
        return None;
    }
    let one = super::profile::by_index(gpu.gpu_profiles(), 0).map_or(0, |one| one.multiprocessors);
    let whole = slices == profile.slices;
    Some(ComputeProfile {
        id,
        slices,
        max: if whole { 1 } else { profile.slices / slices },
        multiprocessors: if whole { profile.multiprocessors } else { slices * one },
    })
}

/// All of them in a GPU instance of `profile`.
pub fn all(gpu: &Gpu, profile: &GpuProfile) -> impl Iterator<Item = ComputeProfile> {
    (0..INDICES).filter_map(|id| by_id(gpu, profile, id))
}

/// Threes and fours are cut from a whole card of seven slices only.
fn partial(profile: &GpuProfile, slices: u32) -> bool {
    match slices {
        1 | 2 => true,
        3 | 4 => profile.slices == 7,
        _ => false,
    }
}

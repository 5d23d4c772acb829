//! GPU instance profiles: what one is, and how they are found.
//!
//! A profile has two numbers. Its *index* is a constant of nvml.h and is what profile infos are asked for by; its *id* is the
//! driver's and is what instances are made by. They are never the same thing.

use super::Placement;

/// `NVML_GPU_INSTANCE_PROFILE_…` of nvml.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Index {
    /// One compute slice.
    Slice1 = 0,
    /// Two.
    Slice2 = 1,
    /// Three.
    Slice3 = 2,
    /// Four.
    Slice4 = 3,
    /// Seven.
    Slice7 = 4,
    /// One, with the media engines (`+me`).
    Slice1Rev1 = 7,
    /// One, with the memory of two.
    Slice1Rev2 = 9,
}

/// How many there are (`NVML_GPU_INSTANCE_PROFILE_COUNT`).
pub const INDICES: u32 = 17;

/// Engines that a GPU instance holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engines {
    /// Copy engines.
    pub copy: u32,
    /// NVDEC.
    pub decoders: u32,
    /// NVENC.
    pub encoders: u32,
    /// JPEG decoders.
    pub jpeg: u32,
    /// Optical flow.
    pub ofa: u32,
}

/// A GPU instance profile of one kind of card.
#[derive(Debug, PartialEq, Eq)]
pub struct GpuProfile {
    /// In nvml.h.
    pub index: Index,
    /// The driver's.
    pub id: u32,
    /// `1g.10gb+me`, without the `MIG ` that NVML puts before it.
    pub name: &'static str,
    /// Compute slices.
    pub slices: u32,
    /// Where the memory slices may start.
    pub starts: &'static [u32],
    /// How many memory slices.
    pub size: u32,
    /// How many there can be on one GPU.
    pub max: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// MiB.
    pub memory: u64,
    /// Its engines.
    pub engines: Engines,
}

impl GpuProfile {
    /// Everywhere that it can be.
    pub fn placements(&self) -> impl Iterator<Item = Placement> {
        self.starts.iter().map(|start| Placement { start: *start, size: self.size })
    }
}

/// The profile with the driver's id.
#[must_use]
pub fn by_id(profiles: &'static [GpuProfile], id: u32) -> Option<&'static GpuProfile> {
    profiles.iter().find(|profile| profile.id == id)
}

/// The profile with the index of nvml.h.
#[must_use]
pub fn by_index(profiles: &'static [GpuProfile], index: u32) -> Option<&'static GpuProfile> {
    profiles.iter().find(|profile| profile.index as u32 == index)
}

/// The profile with that name, or with the driver's id in decimal.
#[must_use]
pub fn named(profiles: &'static [GpuProfile], name: &str) -> Option<&'static GpuProfile> {
    let id = name.parse::<u32>().ok();
    profiles.iter().find(|profile| profile.name == name || Some(profile.id) == id)
}

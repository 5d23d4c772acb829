//! What fits on one GPU beside what is on it.
//!
//! Decides by the four rules of `mig`, on bit masks: a row of slices is a number, bit i its i-th slice. Must not know who holds what, nor
//! which of several fitting places is better.

use super::Profile;
use crate::inventory::Gpu;

/// Slices of one GPU. No GPU has more than 12 so far.
pub(crate) type Row = u16;

/// The most profiles of a GPU that are looked at: NVML enumerates fewer (`NVML_GPU_INSTANCE_PROFILE_COUNT`).
const MOST_PROFILES: usize = 32;

/// One profile of a GPU, ready for comparing.
#[derive(Debug)]
pub(crate) struct Kind<'a> {
    pub(crate) profile: &'a Profile,
    /// Starts and the slices that an instance fills from there, lowest first.
    pub(crate) rows: Vec<(u32, Row)>,
}

/// What a GPU can be cut into.
#[derive(Debug)]
pub(crate) struct Pattern<'a> {
    pub(crate) kinds: Vec<Kind<'a>>,
    /// All slices.
    pub(crate) slices: u32,
    /// Compute slices, all of them: those of the largest profile.
    compute: u32,
}

/// What a GPU is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Slices that are in an instance.
    pub(crate) taken: Row,
    compute: u32,
    media: bool,
    /// Instances of each kind.
    numbers: [u8; MOST_PROFILES],
}

impl<'a> Pattern<'a> {
    pub(crate) fn new(gpu: &'a Gpu) -> Self {
        let kind = |profile: &'a Profile| {
            let row = |start: &u32| Some((*start, row(*start, profile.slices)?));
            let mut rows: Vec<(u32, Row)> = profile.starts.iter().filter_map(row).collect();
            rows.sort_unstable();
            rows.dedup();
            Kind { profile, rows }
        };
        let kinds: Vec<Kind<'a>> = gpu.profiles.iter().take(MOST_PROFILES).map(kind).collect();
        let all = kinds.iter().flat_map(|kind| &kind.rows).fold(0, |all, (_, row)| all | row);
        let compute = kinds.iter().map(|kind| kind.profile.compute).max().unwrap_or_default();
        Self { kinds, slices: Row::BITS - all.leading_zeros(), compute }
    }

    /// Where in [`Self::kinds`] the profile with this id is.
    pub(crate) fn kind(&self, profile: u32) -> Option<usize> {
        self.kinds.iter().position(|kind| kind.profile.id == profile)
    }

    pub(crate) fn free(&self, cut: &Cut) -> u32 {
        self.slices - (cut.taken & self.all()).count_ones()
    }

    /// The compute slices that are left.
    pub(crate) fn compute_left(&self, cut: &Cut) -> u32 {
        self.compute.saturating_sub(cut.compute)
    }

    /// How many more of the kind there may be, wherever they are.
    fn may_add(&self, cut: &Cut, kind: usize) -> u32 {
        let profile = self.kinds[kind].profile;
        let left = profile.max.saturating_sub(cut.number(kind));
        let by_media = if profile.media { u32::from(!cut.media) } else { u32::MAX };
        let by_compute = self.compute_left(cut).checked_div(profile.compute).unwrap_or(u32::MAX);
        left.min(by_media).min(by_compute)
    }

    /// Whether there may be one more of the kind.
    pub(crate) fn may_have(&self, cut: &Cut, kind: usize) -> bool {
        self.may_add(cut, kind) > 0
    }

    /// The starts at which one more fits, lowest first, with the slices that it would fill.
    pub(crate) fn fitting(&self, cut: &Cut, kind: usize) -> impl Iterator<Item = (u32, Row)> {
        let taken = if self.may_have(cut, kind) { cut.taken } else { Row::MAX };
        self.kinds[kind].rows.iter().copied().filter(move |(_, row)| row & taken == 0)
    }

    /// How many of the kind fit beside each other and what is there. They are of one size, so taking each lowest start that is left is best.
    pub(crate) fn most(&self, cut: &Cut, kind: usize) -> u32 {
        let limit = self.may_add(cut, kind);
        let (mut taken, mut most) = (cut.taken, 0);
        for (_, row) in &self.kinds[kind].rows {
            if taken & row == 0 && most < limit {
                taken |= row;
                most += 1;
            }
        }
        most
    }

    /// The cut with one more of the kind in these slices.
    pub(crate) fn with(&self, cut: &Cut, kind: usize, row: Row) -> Cut {
        let profile = self.kinds[kind].profile;
        let mut numbers = cut.numbers;
        numbers[kind] = numbers[kind].saturating_add(1);
        Cut {
            taken: cut.taken | row,
            compute: cut.compute.saturating_add(profile.compute),
            media: cut.media || profile.media,
            numbers,
        }
    }

    /// The cut with an instance that is there, whether or not the driver tells its profile.
    pub(crate) fn with_instance(&self, cut: &Cut, profile: u32, start: u32, size: u32) -> Cut {
        // What reaches past the row leaves nothing to be sure of.
        let row = row(start, size).unwrap_or(Row::MAX);
        match self.kind(profile) {
            Some(kind) => self.with(cut, kind, row),
            None => Cut { taken: cut.taken | row, ..*cut },
        }
    }

    fn all(&self) -> Row {
        row(0, self.slices).unwrap_or_default()
    }
}

impl Cut {
    /// Nothing is on the GPU.
    pub(crate) const NONE: Self =
        Self { taken: 0, compute: 0, media: false, numbers: [0; MOST_PROFILES] };

    /// Instances of the kind.
    pub(crate) fn number(&self, kind: usize) -> u32 {
        self.numbers[kind].into()
    }

    /// Whether one of the instances brings the media engines.
    pub(crate) fn has_media(&self) -> bool {
        self.media
    }
}

/// `size` slices from `start` on; `None` where no row has those.
fn row(start: u32, size: u32) -> Option<Row> {
    let end = start.checked_add(size)?;
    if size == 0 || end > Row::BITS {
        return None;
    }
    let below = |end: u32| (1_u32 << end) - 1;
    Row::try_from(below(end) & !below(start)).ok()
}

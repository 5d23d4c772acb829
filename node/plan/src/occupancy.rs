//! Who holds what right now, as placement needs to know it.
//!
//! Decides nothing: made by `ledger` from its grants.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::ids::GpuUuid;
use crate::mig::{Place, Slot};

/// Holders of each GPU; a GPU without an entry is free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupancy<'a> {
    /// Of whole GPUs. Several only where another allocator shares a GPU out.
    pub holders: BTreeMap<GpuUuid, Vec<Holder<'a>>>,
    /// Of slices of GPUs in MIG mode.
    pub slices: BTreeMap<GpuUuid, Vec<Slice<'a>>>,
    /// Instances that Berth made, that are there, and that nobody holds: whoever asks for their profile may have them as they are.
    pub idle: Vec<Place>,
}

/// One grant's hold on the slices of one MIG instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice<'a> {
    /// The driver's id of its profile on this GPU.
    pub profile: u32,
    /// The first slice.
    pub start: u32,
    /// How many slices.
    pub size: u32,
    /// Whose it is.
    pub holder: Holder<'a>,
}

/// One grant's hold on a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder<'a> {
    /// Who, as refusals name it: `namespace/pod/container`, or `namespace/container` without a pod.
    pub label: Cow<'a, str>,
    /// Whether another allocator decided it.
    pub external: bool,
    /// Whether it is being given back, so that waiting helps.
    pub releasing: bool,
}

impl<'a> Occupancy<'a> {
    /// Adds one hold on a GPU.
    pub fn add(&mut self, gpu: &GpuUuid, holder: Holder<'a>) {
        // Of hundreds of grants only the first few meet a new GPU.
        match self.holders.get_mut(gpu) {
            Some(holders) => holders.push(holder),
            None => {
                self.holders.insert(gpu.clone(), vec![holder]);
            }
        }
    }

    /// Adds one hold on slices of a GPU.
    pub fn add_slice(&mut self, gpu: &GpuUuid, slice: Slice<'a>) {
        match self.slices.get_mut(gpu) {
            Some(slices) => slices.push(slice),
            None => {
                self.slices.insert(gpu.clone(), vec![slice]);
            }
        }
    }

    /// Whether nobody holds the GPU, nor any slice of it.
    pub fn is_free(&self, gpu: &GpuUuid) -> bool {
        self.of_whole(gpu).is_empty() && self.of_slices(gpu).is_empty()
    }

    /// Who holds the GPU as a whole.
    pub fn of_whole(&self, gpu: &GpuUuid) -> &[Holder<'a>] {
        self.holders.get(gpu).map_or(&[], Vec::as_slice)
    }

    /// Who holds slices of it.
    pub fn of_slices(&self, gpu: &GpuUuid) -> &[Slice<'a>] {
        self.slices.get(gpu).map_or(&[], Vec::as_slice)
    }

    /// Who holds a slice that is in the slot, or the GPU as a whole.
    pub(crate) fn of_slot(&self, slot: &Slot) -> impl Iterator<Item = &Holder<'a>> {
        let shared = move |slice: &&Slice<'a>| slot.shares(slice.start, slice.size);
        let slices = self.of_slices(&slot.gpu).iter().filter(shared);
        self.of_whole(&slot.gpu).iter().chain(slices.map(|slice| &slice.holder))
    }
}

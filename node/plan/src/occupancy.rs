//! Who holds what right now, as placement needs to know it.
//!
//! Decides nothing: made by `ledger` from its grants.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::ids::GpuUuid;

/// Holders of each GPU; a GPU without an entry is free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupancy<'a> {
    /// Several only where another allocator shares a GPU out.
    pub holders: BTreeMap<GpuUuid, Vec<Holder<'a>>>,
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

    /// Whether nobody holds the GPU.
    pub fn is_free(&self, gpu: &GpuUuid) -> bool {
        self.holders.get(gpu).is_none_or(Vec::is_empty)
    }
}

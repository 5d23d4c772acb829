//! Who holds what right now, as placement needs to know it.
//!
//! Decides nothing: made by `ledger` from its grants.

use std::collections::BTreeMap;

use crate::ids::{GpuUuid, GrantId};

/// Holders of each GPU; a GPU without an entry is free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Several only where another allocator shares a GPU out.
    pub holders: BTreeMap<GpuUuid, Vec<Holder>>,
}

/// One grant's hold on a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The grant.
    pub grant: GrantId,
    /// Who, as refusals name it: `namespace/pod/container`, or `namespace/container` without a pod.
    pub label: String,
    /// Whether another allocator decided it.
    pub external: bool,
    /// Whether it is being given back, so that waiting helps.
    pub releasing: bool,
}

impl Occupancy {
    /// Whether nobody holds the GPU.
    pub fn is_free(&self, gpu: &GpuUuid) -> bool {
        self.holders.get(gpu).is_none_or(Vec::is_empty)
    }
}

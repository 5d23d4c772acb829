//! Audit: whether a set of grants could ever have been decided. The invariants as a function, for tests, `berth ledger verify` and reconcile.
//!
//! Decides what contradicts what, and the words for it. Must not repair, and must not know where the grants are kept.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{GpuUuid, GrantId};
use crate::inventory::Inventory;
use crate::mig::{ProfileName, Slot};

/// One grant, as far as the audit looks at it: whatever its state, what it holds is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The grant.
    pub grant: GrantId,
    /// `namespace/pod/container`.
    pub label: String,
    /// GPUs that it holds as a whole.
    pub gpus: Vec<GpuUuid>,
    /// MIG instances that it holds.
    pub slots: Vec<Slot>,
    /// Whether another allocator decided it.
    pub external: bool,
}

/// Something that no sequence of right decisions leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Finding {
    /// Two grants that Berth decided share a GPU.
    #[error("{gpu} is held twice: by {one} and by {other}")]
    HeldTwice {
        /// The GPU.
        gpu: GpuUuid,
        /// A grant.
        one: String,
        /// Another.
        other: String,
    },
    /// Another allocator gave what Berth has given.
    #[error(
        "{gpu} is held by {ours}, and another allocator has given it to {theirs}; set node.gpus so that only one of the two allocates it"
    )]
    SharedWithOther {
        /// The GPU.
        gpu: GpuUuid,
        /// Berth's grant.
        ours: String,
        /// The other's.
        theirs: String,
    },
    /// The GPU is not on this node.
    #[error(
        "{gpu}, held by {grant}, is not on this node; was it taken out, or did it fall off the bus?"
    )]
    Gone {
        /// The GPU.
        gpu: GpuUuid,
        /// The grant.
        grant: String,
    },
    /// A whole GPU is held that is in MIG mode.
    #[error("{gpu}, held as a whole by {grant}, is in MIG mode; nothing can run on it as a whole")]
    InMigMode {
        /// The GPU.
        gpu: GpuUuid,
        /// The grant.
        grant: String,
    },
    /// A GPU stands twice in one grant.
    #[error("{gpu} stands twice in {grant}")]
    Repeated {
        /// The GPU.
        gpu: GpuUuid,
        /// The grant.
        grant: String,
    },
    /// MIG instances are held on a GPU that is not in MIG mode.
    #[error(
        "{gpu} is not in MIG mode, and {grant} holds {name} on it; was the mode switched, or the driver loaded anew?"
    )]
    NotInMigMode {
        /// The GPU.
        gpu: GpuUuid,
        /// Name of the profile.
        name: ProfileName,
        /// The grant.
        grant: String,
    },
    /// Two instances have a slice in common.
    #[error("slices of {gpu} are held twice: {one} and {other}")]
    SlicesHeldTwice {
        /// The GPU.
        gpu: GpuUuid,
        /// An instance and its grant: `3g.40gb at 4 by ns/pod/c (g-…)`.
        one: String,
        /// Another.
        other: String,
    },
    /// A GPU is held as a whole by one and in slices by another.
    #[error("{gpu} is held as a whole by {whole}, and in slices: {slice}")]
    WholeAndSliced {
        /// The GPU.
        gpu: GpuUuid,
        /// Who has the whole.
        whole: String,
        /// An instance and its grant.
        slice: String,
    },
    /// Two grants have one id.
    #[error("two grants have the id {id}: {one} and {other}")]
    SameId {
        /// The id.
        id: GrantId,
        /// A grant.
        one: String,
        /// Another.
        other: String,
    },
}

/// Everything that is wrong with these holdings, in a fixed order; empty when they are sound.
pub fn audit(inventory: &Inventory, holdings: &[Holding]) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    let mut ids: BTreeMap<&GrantId, &Holding> = BTreeMap::new();
    for holding in holdings {
        if let Some(first) = ids.insert(&holding.grant, holding) {
            let (one, other) = (first.label.clone(), holding.label.clone());
            found.insert(Finding::SameId { id: holding.grant.clone(), one, other });
        }
        found.extend(alone(inventory, holding));
    }
    for (place, one) in holdings.iter().enumerate() {
        for other in &holdings[place + 1..] {
            found.extend(together(one, other));
        }
    }
    found.into_iter().collect()
}

/// What is wrong with one grant by itself.
fn alone(inventory: &Inventory, holding: &Holding) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for gpu in &holding.gpus {
        let (uuid, grant) = (gpu.clone(), holding.named());
        if !seen.insert(gpu) {
            found.push(Finding::Repeated { gpu: uuid, grant });
            continue;
        }
        match inventory.gpu(gpu) {
            None => found.push(Finding::Gone { gpu: uuid, grant }),
            Some(there) if there.mig && !holding.external => {
                found.push(Finding::InMigMode { gpu: uuid, grant });
            }
            Some(_) => {}
        }
    }
    found.extend(alone_in_slices(inventory, holding));
    found
}

/// The same of its MIG instances.
fn alone_in_slices(inventory: &Inventory, holding: &Holding) -> Vec<Finding> {
    let mut found = Vec::new();
    for (place, slot) in holding.slots.iter().enumerate() {
        let (gpu, grant) = (slot.gpu.clone(), holding.named());
        match inventory.gpu(&slot.gpu) {
            None => found.push(Finding::Gone { gpu, grant }),
            Some(there) if !there.mig => {
                found.push(Finding::NotInMigMode { gpu, name: slot.name.clone(), grant });
            }
            Some(_) => {}
        }
        let others = holding.slots[place + 1..].iter().filter(|other| slot.overlaps(other));
        found.extend(others.map(|other| twice((holding, slot), (holding, other))));
        if holding.gpus.contains(&slot.gpu) {
            found.push(whole_and_sliced(holding, (holding, slot)));
        }
    }
    found
}

fn twice(one: (&Holding, &Slot), other: (&Holding, &Slot)) -> Finding {
    let (gpu, one, other) = (one.1.gpu.clone(), named_slot(one), named_slot(other));
    Finding::SlicesHeldTwice { gpu, one, other }
}

fn whole_and_sliced(whole: &Holding, slice: (&Holding, &Slot)) -> Finding {
    let gpu = slice.1.gpu.clone();
    Finding::WholeAndSliced { gpu, whole: whole.named(), slice: named_slot(slice) }
}

fn named_slot((holding, slot): (&Holding, &Slot)) -> String {
    format!("{} at {} by {}", slot.name, slot.start, holding.named())
}

/// What is wrong between two: other allocators may share GPUs among their own containers, never Berth's.
fn together(one: &Holding, other: &Holding) -> Vec<Finding> {
    if one.external && other.external {
        return Vec::new();
    }
    let (ours, theirs) = if one.external { (other, one) } else { (one, other) };
    let both: BTreeSet<_> = ours.gpus.iter().filter(|gpu| theirs.gpus.contains(gpu)).collect();
    let finding = |gpu: &GpuUuid| match theirs.external {
        true => Finding::SharedWithOther {
            gpu: gpu.clone(),
            ours: ours.named(),
            theirs: theirs.named(),
        },
        false => Finding::HeldTwice { gpu: gpu.clone(), one: ours.named(), other: theirs.named() },
    };
    both.into_iter().map(finding).chain(in_slices(ours, theirs)).collect()
}

fn in_slices(one: &Holding, other: &Holding) -> Vec<Finding> {
    let mut found = Vec::new();
    for slot in &one.slots {
        let overlapping = other.slots.iter().filter(|there| slot.overlaps(there));
        found.extend(overlapping.map(|there| twice((one, slot), (other, there))));
    }
    for (whole, sliced) in [(one, other), (other, one)] {
        let both = sliced.slots.iter().filter(|slot| whole.gpus.contains(&slot.gpu));
        found.extend(both.map(|slot| whole_and_sliced(whole, (sliced, slot))));
    }
    found
}

impl Holding {
    fn named(&self) -> String {
        format!("{} ({})", self.label, self.grant)
    }
}

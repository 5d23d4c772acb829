//! Placements that another allocator decided.
//!
//! Decides only whether they can be true beside what Berth has given. Must not second-guess them, nor know how they were found.

use super::{Field, Placement};
use crate::ids::GpuUuid;
use crate::inventory::{Gpu, Inventory};
use crate::mig::{Devices, Place, Slot};
use crate::occupancy::{Holder, Occupancy, Slice};
use crate::policy::Policy;
use crate::refusal::Refusal;

/// The placement that another allocator decided: what it gave, with the words for it. Berth does not second-guess it, except that a GPU
/// or slice which Berth has given to somebody else cannot be somebody else's too.
///
/// # Errors
/// [`Refusal::PriorUnknownDevice`], [`Refusal::PriorHeld`], naming the GPU and who holds it; `by` is who allocated.
pub fn external(
    by: &str,
    given: &Devices,
    inventory: &Inventory,
    occupancy: &Occupancy<'_>,
) -> Result<Placement, Refusal> {
    for uuid in given.gpus.iter().chain(given.slots.iter().map(|slot| &slot.gpu)) {
        if inventory.gpu(uuid).is_none() {
            let (by, device) = (by.to_owned(), uuid.to_string());
            return Err(Refusal::PriorUnknownDevice { by, device });
        }
    }
    for uuid in &given.gpus {
        let slices = occupancy.of_slices(uuid).iter().map(|slice| &slice.holder);
        ours(by, uuid.to_string(), occupancy.of_whole(uuid).iter().chain(slices))?;
    }
    for slot in &given.slots {
        let shares = |slice: &&Slice<'_>| {
            let end = |start: u32, size: u32| start.saturating_add(size);
            slice.start < end(slot.start, slot.size) && slot.start < end(slice.start, slice.size)
        };
        let slices = occupancy.of_slices(&slot.gpu).iter().filter(shares);
        let all = occupancy.of_whole(&slot.gpu).iter().chain(slices.map(|slice| &slice.holder));
        let named = || format!("{} at slice {} of {}", slot.name, slot.start, slot.gpu);
        ours(by, named(), all)?;
        let overlaps = |place: &Place| {
            let idle = inventory.slot(place);
            *place == slot.place() || idle.is_some_and(|idle| idle.overlaps(slot))
        };
        // It is about to be destroyed, or to be taken over.
        if occupancy.idle.iter().any(overlaps) {
            return Err(Refusal::PriorHeld {
                by: by.to_owned(),
                gpu: named(),
                holder: "Berth, for whoever asks for its profile".to_owned(),
                releasing: true,
            });
        }
    }
    let parents = |gpu: &&Gpu| {
        given.gpus.contains(&gpu.uuid) || given.slots.iter().any(|slot| slot.gpu == gpu.uuid)
    };
    // What others hold and what may be handed out is the other allocator's business here.
    let (nobody, anything) = (Occupancy::default(), Policy::default());
    let field = Field::new(inventory, &nobody, &anything);
    let chosen: Vec<&Gpu> = inventory.gpus.iter().filter(parents).collect();
    let mut placement = field.placement(&chosen, |_| format!("not what {by} decided"));
    placement.slots = in_order(&given.slots, &placement.gpus);
    Ok(placement)
}

/// Refuses where one of the holders is Berth's.
fn ours<'a>(
    by: &str,
    gpu: String,
    mut holders: impl Iterator<Item = &'a Holder<'a>>,
) -> Result<(), Refusal> {
    match holders.find(|holder| !holder.external) {
        None => Ok(()),
        Some(ours) => Err(Refusal::PriorHeld {
            by: by.to_owned(),
            gpu,
            holder: ours.label.clone().into_owned(),
            releasing: ours.releasing,
        }),
    }
}

/// Each once, by GPU and start.
fn in_order(slots: &[Slot], gpus: &[GpuUuid]) -> Vec<Slot> {
    let mut slots = slots.to_vec();
    let gpu = |slot: &Slot| gpus.iter().position(|uuid| *uuid == slot.gpu);
    slots.sort_by_key(|slot| (gpu(slot), slot.start, slot.profile));
    slots.dedup_by_key(|slot| slot.place());
    slots
}

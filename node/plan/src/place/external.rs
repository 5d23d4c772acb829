//! Placements that another allocator decided.
//!
//! Decides only whether they can be true beside what Berth has given. Must not second-guess them, nor know how they were found.

use super::{Field, Placement};
use crate::inventory::Inventory;
use crate::mig::{Devices, Place};
use crate::occupancy::{Holder, Occupancy};
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
        let named = || format!("{} at slice {} of {}", slot.name, slot.start, slot.gpu);
        ours(by, named(), occupancy.of_slot(slot))?;
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
    // What others hold and what may be handed out is the other allocator's business here.
    let (nobody, anything) = (Occupancy::default(), Policy::default());
    let field = Field::new(inventory, &nobody, &anything);
    Ok(field.given(given, inventory, |_| format!("not what {by} decided")))
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

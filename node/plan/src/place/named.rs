//! MIG instances that are asked for by their UUIDs. Somebody else made them, and they are given as they are.
//!
//! Decides whether they can be had. What Berth makes is not asked for like this: it is there for its container alone, or waits for whoever
//! asks for its profile.

use super::{Field, Placement, held, is_allowed};
use crate::ids::MigUuid;
use crate::inventory::Inventory;
use crate::mig::{Devices, Slot};
use crate::nearest::Nearest;
use crate::occupancy::{Holder, Occupancy};
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::request::Want;

/// Why an instance cannot be had.
struct Obstacle {
    words: String,
    /// Whether it is only still being given back.
    releasing: bool,
}

/// The instances with these UUIDs.
///
/// # Errors
/// [`Refusal::NoRoom`], with what is in the way of each.
pub(super) fn decide(
    want: &Want,
    wanted: &[MigUuid],
    inventory: &Inventory,
    occupancy: &Occupancy<'_>,
    policy: &Policy,
) -> Result<Placement, Refusal> {
    let mut slots: Vec<Slot> = Vec::new();
    let mut found = Vec::with_capacity(wanted.len());
    for uuid in wanted {
        let one = available(uuid, inventory, occupancy, policy).and_then(|slot| {
            match slots.iter().any(|other| other.place() == slot.place()) {
                true => Err(obstacle("a part of one of the others".to_owned())),
                false => Ok(slot),
            }
        });
        found.push(one.map(|slot| slots.push(slot)));
    }
    if wanted.is_empty() || found.iter().any(Result::is_err) {
        return Err(refusal(want, wanted, &found, inventory, occupancy, policy));
    }
    let field = Field::new(inventory, occupancy, policy);
    let given = Devices { gpus: Vec::new(), slots };
    Ok(field.given(&given, inventory, |_| "has none of those that were asked for".to_owned()))
}

fn available(
    uuid: &MigUuid,
    inventory: &Inventory,
    occupancy: &Occupancy<'_>,
    policy: &Policy,
) -> Result<Slot, Obstacle> {
    let slot = inventory.mig_device(uuid);
    let slot = slot.ok_or_else(|| obstacle("not on this node".to_owned()))?;
    if inventory.gpu(&slot.gpu).is_none_or(|gpu| !is_allowed(gpu, policy)) {
        return Err(obstacle(format!("on {}, which is not in node.gpus", slot.gpu)));
    }
    if occupancy.idle.contains(&slot.place()) {
        let words = format!("kept for whoever asks for mig {}", slot.name);
        return Err(obstacle(words));
    }
    let holders: Vec<Holder<'_>> = occupancy.of_slot(&slot).cloned().collect();
    match holders.is_empty() {
        true => Ok(slot),
        false => Err(Obstacle {
            words: held(&holders),
            releasing: holders.iter().all(|holder| holder.releasing),
        }),
    }
}

fn obstacle(words: String) -> Obstacle {
    Obstacle { words, releasing: false }
}

fn refusal(
    want: &Want,
    wanted: &[MigUuid],
    found: &[Result<(), Obstacle>],
    inventory: &Inventory,
    occupancy: &Occupancy<'_>,
    policy: &Policy,
) -> Refusal {
    let state = |one: &Result<(), Obstacle>| match one {
        Ok(()) => "free".to_owned(),
        Err(obstacle) => obstacle.words.clone(),
    };
    let each = wanted.iter().zip(found);
    let candidates: Vec<String> =
        each.clone().map(|(uuid, one)| format!("{uuid}: {}", state(one))).collect();
    let mut had: Vec<MigUuid> =
        each.filter(|(_, one)| one.is_ok()).map(|(uuid, _)| uuid.clone()).collect();
    if had.is_empty() {
        had.extend(another(inventory, occupancy, policy).cloned());
    }
    let nearest = Some(had).filter(|had| !had.is_empty()).map(Want::Instances);
    let obstacles = || found.iter().filter_map(|one| one.as_ref().err());
    Refusal::NoRoom {
        wanted: want.to_string(),
        candidates: match candidates.is_empty() {
            true => "no device is named".to_owned(),
            false => candidates.join("; "),
        },
        nearest: Nearest::new(nearest, "no MIG instance of another's making is free"),
        releasing: obstacles().count() > 0 && obstacles().all(|one| one.releasing),
    }
}

/// Any instance that could be asked for.
fn another<'a>(
    inventory: &'a Inventory,
    occupancy: &Occupancy<'_>,
    policy: &Policy,
) -> Option<&'a MigUuid> {
    let instances = inventory.gpus.iter().flat_map(|gpu| &gpu.instances);
    let mut uuids =
        instances.filter_map(|instance| instance.compute_instances.first()?.uuid.as_ref());
    uuids.find(|uuid| available(uuid, inventory, occupancy, policy).is_ok())
}

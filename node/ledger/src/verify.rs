//! Verify: what is wrong with records that can be read, each by itself and together.
//!
//! Decides what contradicts what, from the records alone; what contradicts the node is `plan::audit`'s. Must not repair.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plan::GrantId;
use plan::audit;

use crate::record::{Grant, Origin, Owner, State};

/// Something that no sequence of right changes leads to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// Found by comparing holdings; in `plan`'s own words, so that both audits say the same.
    #[error(transparent)]
    Holding(audit::Finding),
    /// Two grants for one claim.
    #[error(
        "{one} and {other} belong to one owner; run `berth reconcile` when its containers have ended"
    )]
    SameOwner {
        /// A grant.
        one: String,
        /// Another.
        other: String,
    },
    /// CPUs that two have for themselves.
    #[error("CPUs {cpus} are held twice: by {one} and by {other}")]
    CpusTwice {
        /// The CPUs.
        cpus: String,
        /// A grant.
        one: String,
        /// Another, or the same for another of its containers.
        other: String,
    },
    /// The process that was making the container is gone.
    #[error("{grant} is reserved, and nobody is making its container; run `berth reconcile`")]
    Abandoned {
        /// The grant.
        grant: String,
    },
}

/// Grants whose containers are being made.
pub(crate) fn reserved(grants: &[Arc<Grant>]) -> impl Iterator<Item = &Grant> {
    grants.iter().map(Arc::as_ref).filter(|grant| grant.state == State::Reserved)
}

/// All findings, in the order of the grants. `unmarked` are the reserved ones that nobody is working on.
pub(crate) fn findings(grants: &[Arc<Grant>], unmarked: &[GrantId]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut ids: BTreeMap<&GrantId, &Grant> = BTreeMap::new();
    let mut owners: BTreeMap<&Owner, &Grant> = BTreeMap::new();
    for grant in grants.iter().map(Arc::as_ref) {
        if let Some(first) = ids.insert(&grant.id, grant) {
            let (one, other) = (first.label.clone(), grant.label.clone());
            let id = grant.id.clone();
            found.push(Finding::Holding(audit::Finding::SameId { id, one, other }));
        }
        // An owner that asks again while its last grant is being given back has two, rightly.
        if grant.state != State::Releasing
            && let Some(first) = owners.insert(&grant.owner, grant)
        {
            found.push(Finding::SameOwner { one: named(first), other: named(grant) });
        }
        if unmarked.contains(&grant.id) {
            found.push(Finding::Abandoned { grant: named(grant) });
        }
    }
    found.extend(cpus_twice_held(grants));
    found.extend(twice_held(grants).into_iter().map(Finding::Holding));
    found
}

/// CPUs that were given to two containers, or claims, alone.
fn cpus_twice_held(grants: &[Arc<Grant>]) -> Vec<Finding> {
    let held =
        || grants.iter().flat_map(|grant| grant.exclusive.values().map(move |set| (grant, set)));
    let mut found = Vec::new();
    for (place, (one, cpus)) in held().enumerate() {
        for (other, others) in held().skip(place + 1).filter(|(_, others)| others.meets(cpus)) {
            let (one, other) = (named(one), named(other));
            found.push(Finding::CpusTwice { cpus: cpus.and(others).to_string(), one, other });
        }
    }
    found
}

/// GPUs that Berth gave twice. Other allocators may.
fn twice_held(grants: &[Arc<Grant>]) -> Vec<audit::Finding> {
    let mut found = Vec::new();
    let mut holders = BTreeMap::new();
    let whole = |grant: &&Arc<Grant>| grant.origin == Origin::Berth && grant.slots.is_empty();
    for grant in grants.iter().filter(whole) {
        let mut own = BTreeSet::new();
        for given in grant.gpus.iter() {
            let gpu = given.uuid.clone();
            if !own.insert(&given.uuid) {
                found.push(audit::Finding::Repeated { gpu, grant: named(grant) });
            } else if let Some(first) = holders.insert(&given.uuid, grant) {
                let (one, other) = (named(first), named(grant));
                found.push(audit::Finding::HeldTwice { gpu, one, other });
            }
        }
    }
    found
}

fn named(grant: &Grant) -> String {
    format!("{} ({})", grant.label, grant.id)
}

#[cfg(test)]
mod tests;

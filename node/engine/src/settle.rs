//! What taking a claim comes to: it is joined, taken anew, or refused.
//!
//! Decides, with `plan`, from the grants that it is shown. Writes nothing, so that an admission under the node's lock and a rehearsal in
//! memory come to the same. Must not know whether what it comes to is carried out.

use std::borrow::Cow;
use std::sync::Arc;

use ledger::{Grant, Owner, State};
use plan::mig::Slot;
use plan::requirement::Requirements;
use plan::{Inventory, Refusal, Want};

use crate::claim::{
    Claim, Facts, adopt, agree, ceiling, grant, join, owner, place, still_good, suits,
};
use crate::pinning::{Pinned, pinned};
use crate::{Denied, Fault, Node};

/// What there is to know besides the record: as it is, for whoever holds the lock; as it would be, for a rehearsal.
pub(crate) trait Sight {
    /// Whether a grant's owner lives.
    fn lives(&self, grant: &Grant) -> Result<bool, Fault>;

    /// The node, which may have changed since it was looked at: for placing `want`.
    fn now<'a>(&self, want: &Want, inventory: &'a Inventory) -> Result<Cow<'a, Inventory>, Fault>;
}

/// What taking a claim comes to.
#[derive(Debug)]
pub(crate) enum Settled {
    /// Its owner holds it already: the place of that grant.
    Joins { held: usize, pinned: Box<Pinned> },
    /// It is new; `dead` is the place of the grant that it takes over from a former self.
    Takes { dead: Option<usize>, grant: Box<Grant>, slots: Vec<Slot> },
    /// A former self has left instances: what the dead hold is to be given back first.
    Unburied,
}

/// Settles the claim beside these grants.
pub(crate) fn settle(
    node: &Node,
    sight: &impl Sight,
    grants: &[Arc<Grant>],
    claim: &Claim<'_>,
    facts: Facts<'_>,
    required: &Requirements<'_>,
) -> Result<Settled, Denied> {
    let owner = owner(claim, facts.ask);
    let is_held = |grant: &Arc<Grant>| grant.owner == owner && grant.state != State::Releasing;
    let held = grants.iter().position(is_held);
    let mut others = Cow::Borrowed(grants);
    if let Some(held) = held {
        let grant = &grants[held];
        if sight.lives(grant)? {
            agree(grant, claim, facts.inventory)?;
            still_good(&node.host, grant, facts, required)?;
            let pinned = Box::new(pinned(node, grants, grant, facts)?);
            return Ok(Settled::Joins { held, pinned });
        }
        if grant.has_works() {
            return Ok(Settled::Unburied);
        }
        // Of its former self: nothing would keep it alive until the container is armed.
        others.to_mut().remove(held);
    }
    let (grant, slots) = decide(node, sight, &others, claim, owner, facts, required)?;
    Ok(Settled::Takes { dead: held, grant: Box::new(grant), slots })
}

/// Decides about a claim that nobody holds: the grant, with this container in it, and where its instances are.
fn decide(
    node: &Node,
    sight: &impl Sight,
    grants: &[Arc<Grant>],
    claim: &Claim<'_>,
    owner: Owner,
    facts: Facts<'_>,
    required: &Requirements<'_>,
) -> Result<(Grant, Vec<Slot>), Denied> {
    let placement = place(node, sight, grants, claim, facts)?;
    let slots = placement.slots.clone();
    let mut grant = grant(node, claim, facts, owner, placement)?;
    if let Claim::Ours { want, .. } = claim {
        ceiling(node, grants, facts.ask, want, &grant)?;
    }
    suits(&grant, facts, required)?;
    let pinned = pinned(node, grants, &grant, facts)?;
    join(&mut grant, facts, pinned);
    Ok((grant, slots))
}

/// The refusal of a claim, with a nearest fit that would be admitted: `plan` told it by who holds what alone.
pub(crate) fn with_true_nearest(
    refusal: Refusal,
    node: &Node,
    sight: &impl Sight,
    grants: &[Arc<Grant>],
    claim: &Claim<'_>,
    facts: Facts<'_>,
    required: &Requirements<'_>,
) -> Refusal {
    let Claim::Ours { want, request } = claim else { return refusal };
    let fits = |want: &Want| {
        let claim = Claim::Ours { want: want.clone(), request: *request };
        let owner = owner(&claim, facts.ask);
        decide(node, sight, grants, &claim, owner, facts, required).is_ok()
    };
    refusal.with_true_nearest(want, facts.inventory, fits)
}

impl Settled {
    /// Makes it so in the record; the grant, with the container in it. `None` where the dead are to be buried first.
    pub(crate) fn write(
        self,
        grants: &mut Vec<Arc<Grant>>,
        facts: Facts<'_>,
    ) -> Option<Arc<Grant>> {
        match self {
            Self::Joins { held, pinned } => {
                join(Arc::make_mut(&mut grants[held]), facts, *pinned);
                Some(Arc::clone(&grants[held]))
            }
            Self::Takes { dead, mut grant, slots } => {
                if let Some(dead) = dead {
                    grants.remove(dead);
                }
                adopt(grants, &mut grant, &slots);
                let grant = Arc::new(*grant);
                grants.push(Arc::clone(&grant));
                Some(grant)
            }
            Self::Unburied => None,
        }
    }
}

//! A rehearsal: what admission would do, without doing it.
//!
//! ```text
//! the node and the ledger as of now ─► Ask ─► precedence, trust ─► settle ─┬─► written in memory: the next container sees it
//!                                                  ▲                       └─► refused: in the words of the refusal
//!                                                  └── the dead buried, releases awaited, a GPU switched: in memory, too
//! ```
//!
//! Decides nothing by itself: who gets what is told by the functions that an admission asks. Takes no lock, writes nothing, starts nothing but
//! the look at the node that every reader of the inventory may need.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use ledger::{Grant, Ledger, Origin, Owner, State};
use plan::mig::{Instance, Place, ProfileName, Slot};
use plan::requirement::Requirements;
use plan::{Capabilities, GpuUuid, GrantId, Inventory, Pinning, Refusal, Want};

use crate::admit::{Claimed, capabilities};
use crate::ask::Ask;
use crate::claim::{Claim, Facts, look_again, owner};
use crate::extras::Brought;
use crate::pinning::Around;
use crate::reconcile::{dead, is_gone};
use crate::release::retire;
use crate::settle::{Settled, Sight, settle, with_true_nearest};
use crate::{Denied, Fault, Node, prior};

/// A node on which containers are admitted in memory alone.
#[derive(Debug)]
pub struct Rehearsal<'a> {
    node: &'a Node,
    /// None where nothing was ever granted in this boot: there is no folder either, and none is made.
    ledger: Option<Ledger>,
    inventory: Inventory,
    grants: Vec<Arc<Grant>>,
    /// Grants that exist in this rehearsal alone; their owners live.
    own: BTreeSet<GrantId>,
    /// What has been foretold to whom.
    foretold: BTreeMap<Owner, Rehearsed>,
}

/// What would become of a container that is admitted.
#[derive(Debug, Clone, Default)]
pub struct Rehearsed {
    /// The grant as it would be recorded; `None` for a container that gets nothing, or what is foretold.
    pub grant: Option<Arc<Grant>>,
    /// What it would get of GPUs that must be switched into MIG mode first: by the profile's name alone, since the driver says where its
    /// instances go only then.
    pub foretold: Option<Want>,
    /// Whether the claim was held before: by another container of the pod.
    pub joins: bool,
    /// What this container would be held to.
    pub pinning: Pinning,
    /// What would be done to the node for it, in order.
    pub steps: Vec<Step>,
}

/// Something that is done to the node before a container can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// What these grants of the dead hold is given back.
    Bury(Vec<String>),
    /// It is waited until these have given back what they are giving back.
    Wait {
        /// Who.
        labels: Vec<String>,
        /// For how long at most; then the container is refused.
        seconds: u64,
    },
    /// A GPU is switched into MIG mode.
    Switch(GpuUuid),
    /// An instance of Berth's that nobody uses is taken over.
    TakeOver(ProfileName, Place),
    /// An instance is made.
    Make(ProfileName, Place),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bury(labels) => {
                write!(f, "give back what is left of {}", labels.join(", "))
            }
            Self::Wait { labels, seconds } => {
                let labels = labels.join(", ");
                write!(f, "wait until {labels} has given back what it held, {seconds} s at most")
            }
            Self::Switch(gpu) => write!(f, "switch {gpu} into MIG mode"),
            Self::TakeOver(name, place) => {
                write!(f, "take over the idle {name} at slice {} of {}", place.start, place.gpu)
            }
            Self::Make(name, place) => {
                write!(f, "make {name} at slice {} of {}", place.start, place.gpu)
            }
        }
    }
}

impl Node {
    /// A rehearsal on this node, beginning with what is so now.
    ///
    /// # Errors
    /// [`Fault`] when the node or the ledger cannot be read.
    pub fn rehearsal(&self) -> Result<Rehearsal<'_>, Fault> {
        let ledger = if self.has_ledger()? { Some(self.ledger()?) } else { None };
        let grants = ledger.as_ref().map(Ledger::snapshot).transpose()?.unwrap_or_default().grants;
        let mut inventory = self.inventory()?;
        look_again(&self.host, &mut inventory)?;
        Ok(Rehearsal {
            node: self,
            ledger,
            inventory,
            grants,
            own: BTreeSet::new(),
            foretold: BTreeMap::new(),
        })
    }
}

impl Rehearsal<'_> {
    /// What [`Node::admit`] would come to for a container that asks this, after those that were admitted here before.
    ///
    /// # Errors
    /// [`Denied`], as there. What fails only while it is carried out is not found out.
    pub fn admit(&mut self, ask: &Ask) -> Result<Rehearsed, Denied> {
        if !prior::can_matter(self.node, ask)? {
            return Ok(Rehearsed::default());
        }
        let Some(Claimed { claim, .. }) = self.node.claimed(ask, &self.inventory)? else {
            return Ok(Rehearsed::default());
        };
        // What the node has not of them refuses the container, whoever holds what.
        Brought::of(self.node, ask)?;
        let owner = owner(&claim, ask);
        if let Some(foretold) = self.foretold.get(&owner) {
            return Ok(Rehearsed { joins: true, ..foretold.clone() });
        }
        let (capabilities, around) = (capabilities(ask), Around::of(self.node, ask)?);
        let required = Requirements::parse(&ask.env)?;
        let mut steps = Vec::new();
        loop {
            let facts = self.facts(ask, &capabilities, &around);
            let refusal = match settle(self.node, self, &self.grants, &claim, facts, &required) {
                Ok(Settled::Unburied) => None,
                Ok(settled) => {
                    steps.extend(making(&settled));
                    return Ok(self.write(settled, ask, &capabilities, &around, steps));
                }
                Err(Denied::Refused(refusal)) => Some(refusal),
                Err(broken) => return Err(broken),
            };
            // In the order in which an admission makes room.
            let roomless = refusal.as_ref().is_none_or(Refusal::is_for_want_of_room);
            let step = if roomless { self.bury()? } else { None };
            let step = match (step, &refusal) {
                (None, Some(refusal)) if refusal.is_waiting_for_release() => self.wait(),
                (step, _) => step,
            };
            if step.is_some() {
                steps.extend(step);
                continue;
            }
            let Some(refusal) = refusal else { continue };
            match self.switch(&claim, ask) {
                Switched::Known(step) => steps.push(step),
                Switched::Foretold(want, switches) => {
                    steps.extend(switches);
                    let foretold =
                        Rehearsed { foretold: Some(want), steps, ..Rehearsed::default() };
                    let later = Rehearsed { steps: Vec::new(), ..foretold.clone() };
                    self.foretold.insert(owner, later);
                    return Ok(foretold);
                }
                Switched::None if is_mig(&claim) && !self.foretold.is_empty() => {
                    return Err(Fault::Untold.into());
                }
                Switched::None => {
                    let facts = self.facts(ask, &capabilities, &around);
                    let (node, grants) = (self.node, &self.grants);
                    let refusal =
                        with_true_nearest(refusal, node, self, grants, &claim, facts, &required);
                    return Err(refusal.into());
                }
            }
        }
    }

    fn facts<'b>(
        &'b self,
        ask: &'b Ask,
        capabilities: &'b Capabilities,
        around: &'b Around,
    ) -> Facts<'b> {
        Facts { ask, inventory: &self.inventory, capabilities, sandbox_init: None, around }
    }

    fn write(
        &mut self,
        settled: Settled,
        ask: &Ask,
        capabilities: &Capabilities,
        around: &Around,
        steps: Vec<Step>,
    ) -> Rehearsed {
        let joins = matches!(settled, Settled::Joins { .. });
        let mut grants = std::mem::take(&mut self.grants);
        let grant = settled.write(&mut grants, self.facts(ask, capabilities, around));
        self.grants = grants;
        self.own.extend(grant.iter().map(|grant| grant.id.clone()));
        let members = grant.iter().flat_map(|grant| &grant.members);
        let own = members.filter(|member| member.container == ask.container);
        let pinning = own.map(|member| member.pinning.clone()).next().unwrap_or_default();
        Rehearsed { grant, joins, pinning, steps, foretold: None }
    }

    /// Gives back what the dead hold, as whoever finds no room does.
    fn bury(&mut self) -> Result<Option<Step>, Fault> {
        let mut dead = dead(&self.grants, |grant| self.lives(grant))?;
        retire(&mut self.grants, |grant| dead.iter().any(|dead| dead.id == grant.id));
        dead.retain(|grant| is_gone(grant));
        Ok((!dead.is_empty()).then(|| Step::Bury(labels(&dead))))
    }

    /// What is being given back is given back in time, and its instances with it.
    fn wait(&mut self) -> Option<Step> {
        let is_over = |grant: &Arc<Grant>| grant.state == State::Releasing;
        let (over, kept) = std::mem::take(&mut self.grants).into_iter().partition(is_over);
        self.grants = kept;
        let over: Vec<Arc<Grant>> = over;
        for slot in over.iter().flat_map(|grant| &grant.slots) {
            let gpus = self.inventory.gpus.iter_mut().filter(|gpu| gpu.uuid == slot.gpu);
            let stays = |one: &Instance| (one.profile, one.start) != (slot.profile, slot.start);
            gpus.for_each(|gpu| gpu.instances.retain(stays));
        }
        let seconds = self.node.release_wait.as_secs();
        (!over.is_empty()).then(|| Step::Wait { labels: labels(&over), seconds })
    }

    /// Switches a GPU into MIG mode where that would help and policy lets it.
    fn switch(&mut self, claim: &Claim<'_>, ask: &Ask) -> Switched {
        let Claim::Ours { want: want @ Want::Mig { profile, count }, .. } = claim else {
            return Switched::None;
        };
        let (mut left, mut switches) = (Some(*count), Vec::new());
        while let Some(count) = left {
            let wanted = Want::Mig { profile: profile.clone(), count };
            let occupancy = ledger::occupancy(&self.grants);
            let policy = &self.node.policy;
            let chosen =
                plan::place::to_switch(&wanted, &self.inventory, &occupancy, policy, &ask.asker);
            let Some(place) = chosen.and_then(|gpu| self.place_of(&gpu)) else { break };
            let gpu = &self.inventory.gpus[place];
            let step = Step::Switch(gpu.uuid.clone());
            let profiles = plan::place::profiles_of_its_like(gpu, &self.inventory);
            if let Some(profiles) = profiles.map(<[_]>::to_vec) {
                let gpu = &mut self.inventory.gpus[place];
                gpu.profiles = profiles;
                gpu.mig = true;
                return Switched::Known(step);
            }
            // Its driver tells what it can be cut into once it is switched. Whole, nobody gets it any more.
            let gives = plan::place::expected(gpu, profile, &self.inventory);
            left = NonZeroU32::new(count.get().saturating_sub(gives));
            self.inventory.gpus[place].mig = true;
            switches.push(step);
        }
        match switches.is_empty() {
            true => Switched::None,
            false => Switched::Foretold(want.clone(), switches),
        }
    }

    fn place_of(&self, gpu: &GpuUuid) -> Option<usize> {
        self.inventory.gpus.iter().position(|one| one.uuid == *gpu)
    }
}

/// What comes of trying to switch a GPU.
enum Switched {
    None,
    Known(Step),
    /// These will do, by what the profile is called.
    Foretold(Want, Vec<Step>),
}

impl Sight for Rehearsal<'_> {
    fn lives(&self, grant: &Grant) -> Result<bool, Fault> {
        match &self.ledger {
            Some(ledger) if !self.own.contains(&grant.id) => self.node.lives(ledger, grant),
            _ => Ok(true),
        }
    }

    fn now<'a>(&self, _: &Want, inventory: &'a Inventory) -> Result<Cow<'a, Inventory>, Fault> {
        Ok(Cow::Borrowed(inventory))
    }
}

fn is_mig(claim: &Claim<'_>) -> bool {
    matches!(claim, Claim::Ours { want: Want::Mig { .. }, .. })
}

/// The instances that a new grant of Berth's takes.
fn making(settled: &Settled) -> Vec<Step> {
    match settled {
        Settled::Takes { grant, slots, .. } if grant.origin == Origin::Berth => {
            let step = |slot: &Slot| match slot.adopted {
                true => Step::TakeOver(slot.name.clone(), slot.place()),
                false => Step::Make(slot.name.clone(), slot.place()),
            };
            // What others made is given as it is.
            let made = slots.iter().filter(|slot| !is_foreign(grant, slot));
            made.map(step).collect()
        }
        _ => Vec::new(),
    }
}

fn is_foreign(grant: &Grant, slot: &Slot) -> bool {
    grant.slots.iter().any(|given| given.foreign && given.place() == slot.place())
}

fn labels(grants: &[Arc<Grant>]) -> Vec<String> {
    grants.iter().map(|grant| grant.label.clone()).collect()
}

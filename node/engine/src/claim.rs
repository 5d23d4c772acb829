//! Taking a claim: the part of an admission that holds the node lock.
//!
//! Decides, with `plan`, who gets what, and writes it down before anything is done about it. Must not touch devices or the container.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use device::Host;
use ledger::{
    GivenGpu, GivenInstance, GivenSlot, Grant, InProgress, Known, Ledger, Locked, Member, Origin,
    Stage, State,
};
use plan::mig::{Devices, Place, Slot};
use plan::requirement::Requirements;
use plan::{Capabilities, GrantId, Inventory, Pinning, Placement, Refusal, Request, Scope, Want};

use crate::ask::Ask;
use crate::crash::point;
use crate::instances::{computes_of, is_listed};
use crate::node::Node;
use crate::pinning::{Around, Pinned};
use crate::settle::{Settled, Sight, settle, with_true_nearest};
use crate::{Denied, Fault};

/// How long the node lock may be held by others before something is wrong.
pub(crate) const LOCK: Duration = Duration::from_secs(10);
/// How long to wait before looking again at a grant that is being given back.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What is to be taken.
#[derive(Debug)]
pub(crate) enum Claim<'a> {
    /// To be decided here.
    Ours { want: Want, request: Option<&'a Request> },
    /// Decided by another allocator.
    External {
        by: &'static str,
        given: Devices,
        /// The MIG instances as they stand.
        computes: Vec<(Place, GivenInstance)>,
        request: Option<&'a Request>,
    },
}

/// A claim that is held.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) grant: Arc<Grant>,
    /// Held from the reservation until the container is armed; `None` when the claim was there before.
    pub(crate) progress: Option<InProgress>,
    /// The ledger as it is with it.
    pub(crate) known: Known,
}

/// What the decision needs besides the claim.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) ask: &'a Ask,
    pub(crate) inventory: &'a Inventory,
    pub(crate) capabilities: &'a Capabilities,
    pub(crate) sandbox_init: Option<ledger::ProcessId>,
    pub(crate) around: &'a Around,
}

/// Takes the claim, or joins it where the pod (or this container's former self) holds it already. `known` is the ledger as it was just read,
/// if it was.
pub(crate) fn take(
    node: &Node,
    ledger: &Ledger,
    mut known: Option<Known>,
    claim: &Claim<'_>,
    facts: Facts<'_>,
) -> Result<Taken, Denied> {
    let required = Requirements::parse(&facts.ask.env)?;
    let patience = Instant::now() + node.release_wait;
    loop {
        let mut locked = ledger.lock_knowing(LOCK, known.take())?;
        match attempt(node, ledger, &mut locked, claim, facts, &required) {
            Err(Denied::Refused(refusal)) if !refusal.is_for_want_of_room() => {
                return Err(refusal.into());
            }
            Err(Denied::Refused(refusal)) => {
                // What the dead still hold is not held: look before saying no. Under the same lock, so that what another finds first
                // is not missed.
                if !node.bury(ledger, &mut locked)?.is_empty() {
                    continue;
                }
                if refusal.is_waiting_for_release() && Instant::now() < patience {
                    drop(locked);
                    std::thread::sleep(LOOK_AGAIN);
                    continue;
                }
                // Nobody waits for the words.
                let grants = locked.grants().to_vec();
                drop(locked);
                let sight = Present { node, ledger };
                let refusal =
                    with_true_nearest(refusal, node, &sight, &grants, claim, facts, &required);
                return Err(refusal.after_waiting(node.release_wait.as_secs()).into());
            }
            Err(broken) => return Err(broken),
            Ok((grant, progress)) => return Ok(Taken { grant, progress, known: locked.leave() }),
        }
    }
}

fn attempt(
    node: &Node,
    ledger: &Ledger,
    locked: &mut Locked<'_>,
    claim: &Claim<'_>,
    facts: Facts<'_>,
    required: &Requirements<'_>,
) -> Result<(Arc<Grant>, Option<InProgress>), Denied> {
    point("admit.locked");
    let sight = Present { node, ledger };
    loop {
        let settled = settle(node, &sight, locked.grants(), claim, facts, required)?;
        let progress = match &settled {
            Settled::Unburied => {
                node.bury(ledger, locked)?;
                continue;
            }
            Settled::Joins { .. } => None,
            Settled::Takes { grant, .. } => {
                point("admit.decided");
                let progress = ledger.begin(&grant.id)?;
                point("admit.in-progress");
                Some(progress)
            }
        };
        let written = locked.change(|grants| settled.write(grants, facts))?;
        match progress {
            Some(_) => point("admit.reserved"),
            None => point("admit.joined"),
        }
        if let Some(grant) = written {
            return Ok((grant, progress));
        }
    }
}

/// The node as it is, for whoever holds its lock.
struct Present<'a> {
    node: &'a Node,
    ledger: &'a Ledger,
}

impl Sight for Present<'_> {
    fn lives(&self, grant: &Grant) -> Result<bool, Fault> {
        self.node.lives(self.ledger, grant)
    }

    /// The inventory as it is under the lock: which GPUs are in MIG mode, and which instances there are. One that was destroyed since the
    /// node was looked at is in the ledger no more, and would be taken for another's; a GPU that was switched on must not be given as a whole.
    fn now<'a>(&self, want: &Want, inventory: &'a Inventory) -> Result<Cow<'a, Inventory>, Fault> {
        let is_other = |gpu: &plan::Gpu| {
            gpu.mig_capable && device::is_in_mig_mode(&self.node.host, gpu) != gpu.mig
        };
        let wants_slices = matches!(want, Want::Mig { .. } | Want::Instances(_));
        if !wants_slices && !inventory.gpus.iter().any(is_other) {
            return Ok(Cow::Borrowed(inventory));
        }
        let mut now = inventory.clone();
        look_again(&self.node.host, &mut now)?;
        Ok(Cow::Owned(now))
    }
}

/// Which GPUs are in MIG mode, and which instances there are, as the driver lists them now.
pub(crate) fn look_again(host: &Host, inventory: &mut Inventory) -> Result<(), Fault> {
    for gpu in inventory.gpus.iter_mut().filter(|gpu| gpu.mig_capable) {
        gpu.mig = device::is_in_mig_mode(host, gpu);
    }
    Ok(device::instances_now(host, inventory)?)
}

/// A pod's claim has no container's name; without a pod, the container is its own sandbox.
pub(crate) fn owner(claim: &Claim<'_>, ask: &Ask) -> ledger::Owner {
    let of_pod = match claim {
        Claim::Ours { request: Some(request), .. } => request.scope == Scope::Pod,
        _ => false,
    };
    let container = (!of_pod).then(|| ask.name().map(str::to_owned)).flatten();
    ledger::Owner { namespace: ask.namespace.clone(), sandbox: ask.sandbox.clone(), container }
}

/// An external allocation must be what it was: kubelet does not change one under a running pod.
///
/// Nor does a claim of Berth's change under its containers: one that comes with another request is told, not given something else.
pub(crate) fn agree(held: &Grant, claim: &Claim<'_>, inventory: &Inventory) -> Result<(), Refusal> {
    let (by, given) = match claim {
        Claim::External { by, given, .. } => (by, given),
        Claim::Ours { request: None, .. } => return Ok(()),
        Claim::Ours { request: Some(request), .. } => {
            let by = format!("the grant {} that {} holds", held.id, held.label);
            return request.agrees_with(&held.devices(), &by, inventory);
        }
    };
    let allocated = held.devices();
    if given.is_same(&allocated) {
        return Ok(());
    }
    Err(Refusal::Disagrees {
        asked: format!("{by} {given}"),
        allocated: allocated.to_string(),
        by: format!("the grant {} that this container holds", held.id),
    })
}

/// A claim outlives its containers: what it holds must still be there, and must do for this container's image, too.
pub(crate) fn still_good(
    host: &Host,
    held: &Grant,
    facts: Facts<'_>,
    required: &Requirements<'_>,
) -> Result<(), Refusal> {
    let gone = |given: &GivenGpu| Refusal::Gone {
        gpu: given.uuid.to_string(),
        grant: held.id.to_string(),
        holder: held.label.clone(),
    };
    if let Some(given) = held.gpus.iter().find(|given| facts.inventory.gpu(&given.uuid).is_none()) {
        return Err(gone(given));
    }
    // Once it is made, it is to be the very one.
    let is_gone = |slot: &&GivenSlot| is_listed(host, held, slot) == Some(false);
    if let Some(slot) = held.slots.iter().find(is_gone) {
        return Err(Refusal::Gone {
            gpu: format!("{} at slice {} of {}", slot.name, slot.start, slot.gpu),
            grant: held.id.to_string(),
            holder: held.label.clone(),
        });
    }
    suits(held, facts, required)
}

pub(crate) fn join(held: &mut Grant, facts: Facts<'_>, pinned: Pinned) {
    let ask = facts.ask;
    held.members.retain(|member| member.container != ask.container);
    held.members.push(member(ask, pinned.pinning));
    held.exclusive.extend(pinned.exclusive);
    if held.sandbox_init.is_none() {
        held.sandbox_init = facts.sandbox_init;
    }
    held.unconfined |= ask.unconfined().is_some();
}

fn member(ask: &Ask, pinning: Pinning) -> Member {
    Member {
        container: ask.container.clone(),
        name: ask.name().unwrap_or_default().to_owned(),
        init: None,
        cgroup: None,
        pinning,
        extras: ask.request.as_ref().map(|request| request.extras.clone()).unwrap_or_default(),
    }
}

pub(crate) fn place(
    node: &Node,
    sight: &impl Sight,
    grants: &[Arc<Grant>],
    claim: &Claim<'_>,
    facts: Facts<'_>,
) -> Result<Placement, Denied> {
    let inventory = facts.inventory;
    match claim {
        Claim::Ours { want, .. } => {
            let mut occupancy = ledger::occupancy(grants);
            let now = sight.now(want, inventory)?;
            // What somebody else has destroyed cannot be taken over.
            occupancy.idle.retain(|place| {
                now.gpu(&place.gpu)
                    .is_some_and(|gpu| gpu.instance_at(place.profile, place.start).is_some())
            });
            Ok(plan::decide(want, &now, &occupancy, &node.policy)?)
        }
        Claim::External { by, given, .. } => {
            let occupancy = ledger::occupancy(grants);
            Ok(plan::place::external(by, given, inventory, &occupancy)?)
        }
    }
}

/// What is given must do for the container's image.
pub(crate) fn suits(
    grant: &Grant,
    facts: Facts<'_>,
    required: &Requirements<'_>,
) -> Result<(), Refusal> {
    let of = |given: &GivenGpu| facts.inventory.gpu(&given.uuid);
    let gpus: Vec<&plan::Gpu> = grant.gpus.iter().filter_map(of).collect();
    facts.inventory.driver.as_ref().map_or(Ok(()), |driver| required.check(driver, &gpus))
}

/// What a namespace holds already, with what it would get now, must stay below its ceiling.
pub(crate) fn ceiling(
    node: &Node,
    grants: &[Arc<Grant>],
    ask: &Ask,
    want: &Want,
    asked: &Grant,
) -> Result<(), Refusal> {
    let namespace = namespace(ask);
    let held = || {
        grants.iter().map(Arc::as_ref).filter(|grant| {
            // What is being given back is nobody's any more.
            grant.state != State::Releasing
                && grant.kubernetes_namespace.as_deref().unwrap_or(&grant.owner.namespace)
                    == namespace
        })
    };
    let memory = |all: u64, more: plan::Mib| all.saturating_add(more.0);
    let held_memory = held().map(Grant::memory).fold(0, memory);
    let whole = |grant: &Grant| if grant.slots.is_empty() { grant.gpus.len() } else { 0 };
    let counted = |gpus: usize| u32::try_from(gpus).unwrap_or(u32::MAX);
    plan::policy::check_ceiling(
        namespace,
        &node.policy,
        want,
        (counted(held().map(whole).sum()), plan::Mib(held_memory)),
        (counted(whole(asked)), asked.memory()),
    )
}

fn namespace(ask: &Ask) -> &str {
    ask.asker.pod.as_ref().map_or(&ask.namespace, |pod| &pod.namespace)
}

pub(crate) fn grant(
    node: &Node,
    claim: &Claim<'_>,
    facts: Facts<'_>,
    owner: ledger::Owner,
    placement: Placement,
) -> Result<Grant, Denied> {
    let ask = facts.ask;
    let (origin, request) = match claim {
        Claim::Ours { request, .. } => (Origin::Berth, request),
        Claim::External { by, request, .. } => (Origin::External { by: (*by).to_owned() }, request),
    };
    let given = placement.gpus.iter().filter_map(|uuid| facts.inventory.gpu(uuid)).map(given);
    let slots = placement.slots.iter().filter_map(|slot| given_slot(slot, facts.inventory));
    let slots: Vec<GivenSlot> = match claim {
        Claim::Ours { want: want @ Want::Instances(devices), .. } => {
            let computes = computes_of(&node.host, devices, facts.inventory);
            let slots = slots.map(|slot| GivenSlot { foreign: true, ..standing(slot, &computes) });
            let slots: Vec<GivenSlot> = slots.collect();
            // Chosen from what there is now: the node was looked at before.
            let stands = |slot: &GivenSlot| slot.instance.is_some();
            if slots.len() != devices.len() || !slots.iter().all(stands) {
                return Err(Refusal::Changed { wanted: want.to_string() }.into());
            }
            slots
        }
        Claim::Ours { .. } => slots.collect(),
        Claim::External { computes, .. } => slots.map(|slot| standing(slot, computes)).collect(),
    };
    let whole_pod = owner.container.is_none();
    Ok(Grant {
        id: new_id()?,
        owner,
        label: ask.label(whole_pod),
        kubernetes_namespace: ask.asker.pod.as_ref().map(|pod| pod.namespace.clone()),
        origin,
        state: State::Reserved,
        requested: request.map(|request| request.written.clone()).unwrap_or_default(),
        gpus: given.collect(),
        slots,
        capabilities: facts.capabilities.clone(),
        unconfined: ask.unconfined().is_some(),
        candidates: placement.candidates.into(),
        closeness: placement.closeness,
        exclusive: BTreeMap::new(),
        sandbox_init: facts.sandbox_init,
        members: Vec::new(),
        notes: Vec::new(),
        created: seconds_now(),
    })
}

/// Seconds of Unix time.
pub(crate) fn seconds_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// An id that no other grant has.
pub(crate) fn new_id() -> Result<GrantId, Fault> {
    Ok(GrantId::from_bits(random_bits().map_err(Fault::Random)?))
}

pub(crate) fn given(gpu: &plan::Gpu) -> GivenGpu {
    GivenGpu {
        uuid: gpu.uuid.clone(),
        pci: gpu.pci,
        minor: gpu.minor,
        index: gpu.index,
        model: gpu.model.clone(),
        memory: gpu.memory,
        numa_node: gpu.numa_node,
    }
}

/// `None` only for a placement of another inventory.
pub(crate) fn given_slot(slot: &Slot, inventory: &Inventory) -> Option<GivenSlot> {
    let gpu = inventory.gpu(&slot.gpu)?;
    let profile = gpu.profile_by_id(slot.profile)?;
    Some(GivenSlot {
        gpu: slot.gpu.clone(),
        profile: slot.profile,
        name: slot.name.clone(),
        start: slot.start,
        size: slot.size,
        memory: profile.memory,
        sms: profile.sms,
        stage: Stage::Decided,
        instance: None,
        foreign: false,
    })
}

/// An instance that another made, and that stands.
fn standing(slot: GivenSlot, computes: &[(Place, GivenInstance)]) -> GivenSlot {
    let found = computes.iter().find(|(place, _)| *place == slot.place());
    GivenSlot { stage: Stage::Made, instance: found.map(|(_, made)| made.clone()), ..slot }
}

/// Takes the instances that the new grant adopts out of those grants that are being given back with them.
pub(crate) fn adopt(grants: &mut Vec<Arc<Grant>>, grant: &mut Grant, placement: &[Slot]) {
    for adopted in placement.iter().filter(|slot| slot.adopted) {
        let is_it = |slot: &GivenSlot| slot.place() == adopted.place() && slot.stage == Stage::Made;
        let is_over =
            |grant: &Arc<Grant>| grant.state == State::Releasing && grant.slots.iter().any(is_it);
        let Some(at) = grants.iter().position(is_over) else { continue };
        let from = Arc::make_mut(&mut grants[at]);
        let taken = from.slots.iter().position(is_it).map(|slot| from.slots.remove(slot));
        if from.slots.is_empty() {
            grants.remove(at);
        }
        let own = grant.slots.iter_mut().find(|slot| slot.place() == adopted.place());
        if let (Some(taken), Some(own)) = (taken, own) {
            *own = taken;
        }
    }
}

fn random_bits() -> std::io::Result<u64> {
    let mut bits = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bits)?;
    Ok(u64::from_ne_bytes(bits))
}

//! Taking a claim: the part of an admission that holds the node lock.
//!
//! Decides, with `plan`, who gets what, and writes it down before anything is done about it. Must not touch devices or the container.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ledger::{GivenGpu, Grant, InProgress, Known, Ledger, Locked, Member, Origin, State};
use plan::requirement::Requirements;
use plan::{Capabilities, GpuUuid, GrantId, Inventory, Placement, Refusal, Request, Scope, Want};

use crate::ask::Ask;
use crate::crash::point;
use crate::node::Node;
use crate::{Denied, Fault};

/// How long the node lock may be held by others before something is wrong.
pub(crate) const LOCK: Duration = Duration::from_secs(10);
/// How long to wait before looking again at a grant that is being given back.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What is to be taken.
#[derive(Debug)]
pub(crate) enum Claim<'a> {
    /// To be decided here.
    Ours { want: Want, request: Option<&'a Request> },
    /// Decided by another allocator.
    External { by: &'static str, gpus: Vec<GpuUuid>, request: Option<&'a Request> },
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
}

/// Takes the claim, or joins it where the pod (or this container's former self) holds it already.
pub(crate) fn take(
    node: &Node,
    ledger: &Ledger,
    claim: &Claim<'_>,
    facts: Facts<'_>,
) -> Result<Taken, Denied> {
    let required = Requirements::parse(&facts.ask.env)?;
    let patience = Instant::now() + node.release_wait;
    loop {
        let mut locked = ledger.lock(LOCK)?;
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
                drop(locked);
                if refusal.is_waiting_for_release() && Instant::now() < patience {
                    std::thread::sleep(LOOK_AGAIN);
                } else {
                    return Err(refusal.after_waiting(node.release_wait.as_secs()).into());
                }
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
    let owner = owner(claim, facts.ask);
    let held = locked.grants();
    let held = held.iter().position(|g| g.owner == owner && g.state != State::Releasing);
    let mut dead = None;
    if let Some(held) = held {
        if node.lives(ledger, &locked.grants()[held])? {
            agree(&locked.grants()[held], claim)?;
            still_good(&locked.grants()[held], facts, required)?;
            let grant = locked.change(|grants| {
                join(Arc::make_mut(&mut grants[held]), facts);
                Arc::clone(&grants[held])
            })?;
            point("admit.joined");
            return Ok((grant, None));
        }
        // Of its former self: nothing would keep it alive until the container is armed.
        dead = Some(held);
    }
    let placement = match dead {
        None => place(node, locked.grants(), claim, facts, required)?,
        Some(dead) => {
            let mut grants = locked.grants().to_vec();
            grants.remove(dead);
            place(node, &grants, claim, facts, required)?
        }
    };
    point("admit.decided");
    let grant = Arc::new(grant(claim, facts, owner, placement)?);
    let progress = ledger.begin(&grant.id)?;
    point("admit.in-progress");
    locked.change(|grants| {
        if let Some(dead) = dead {
            grants.remove(dead);
        }
        grants.push(Arc::clone(&grant));
    })?;
    point("admit.reserved");
    Ok((grant, Some(progress)))
}

/// A pod's claim has no container's name; without a pod, the container is its own sandbox.
fn owner(claim: &Claim<'_>, ask: &Ask) -> ledger::Owner {
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
fn agree(held: &Grant, claim: &Claim<'_>) -> Result<(), Refusal> {
    let (by, gpus) = match claim {
        Claim::External { by, gpus, .. } => (by, gpus),
        Claim::Ours { request: None, .. } => return Ok(()),
        Claim::Ours { request: Some(request), .. } => {
            let given: Vec<GpuUuid> = held.gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
            let by = format!("the grant {} that {} holds", held.id, held.label);
            return request.agrees_with(&given.into(), &by);
        }
    };
    if gpus.len() == held.gpus.len() && gpus.iter().all(|gpu| held.holds(gpu)) {
        return Ok(());
    }
    let list = |names: Vec<String>| names.join(",");
    Err(Refusal::Disagrees {
        asked: format!("{by} {}", list(gpus.iter().map(ToString::to_string).collect())),
        allocated: list(held.gpus.iter().map(|gpu| gpu.uuid.to_string()).collect()),
        by: format!("the grant {} that this container holds", held.id),
    })
}

/// A claim outlives its containers: what it holds must still be there, and must do for this container's image, too.
fn still_good(held: &Grant, facts: Facts<'_>, required: &Requirements<'_>) -> Result<(), Refusal> {
    let gone = |given: &GivenGpu| Refusal::Gone {
        gpu: given.uuid.to_string(),
        grant: held.id.to_string(),
        holder: held.label.clone(),
    };
    let here = |given: &GivenGpu| facts.inventory.gpu(&given.uuid).ok_or_else(|| gone(given));
    let gpus = held.gpus.iter().map(here).collect::<Result<Vec<_>, _>>()?;
    facts.inventory.driver.as_ref().map_or(Ok(()), |driver| required.check(driver, &gpus))
}

fn join(held: &mut Grant, facts: Facts<'_>) {
    let ask = facts.ask;
    held.members.retain(|member| member.container != ask.container);
    held.members.push(member(ask));
    if held.sandbox_init.is_none() {
        held.sandbox_init = facts.sandbox_init;
    }
    held.unconfined |= ask.unconfined().is_some();
}

fn member(ask: &Ask) -> Member {
    Member {
        container: ask.container.clone(),
        name: ask.name().unwrap_or_default().to_owned(),
        init: None,
        cgroup: None,
    }
}

fn place(
    node: &Node,
    grants: &[Arc<Grant>],
    claim: &Claim<'_>,
    facts: Facts<'_>,
    required: &Requirements<'_>,
) -> Result<Placement, Denied> {
    let (ask, inventory) = (facts.ask, facts.inventory);
    let placement = match claim {
        Claim::Ours { want, .. } => {
            let occupancy = ledger::occupancy(grants);
            let placement = plan::decide(want, inventory, &occupancy, &node.policy)?;
            ceiling(node, grants, ask, &placement, inventory)?;
            placement
        }
        Claim::External { by, gpus, .. } => {
            let occupancy = ledger::occupancy(grants);
            plan::place::external(by, &gpus.clone().into(), inventory, &occupancy)?
        }
    };
    let given: Vec<&plan::Gpu> =
        placement.gpus.iter().filter_map(|uuid| inventory.gpu(uuid)).collect();
    if let Some(driver) = &inventory.driver {
        required.check(driver, &given)?;
    }
    Ok(placement)
}

/// What a namespace holds already, with what it would get now, must stay below its ceiling.
fn ceiling(
    node: &Node,
    grants: &[Arc<Grant>],
    ask: &Ask,
    placement: &Placement,
    inventory: &Inventory,
) -> Result<(), Refusal> {
    let namespace = namespace(ask);
    let held: Vec<&GivenGpu> = grants
        .iter()
        .filter(|grant| {
            grant.kubernetes_namespace.as_deref().unwrap_or(&grant.owner.namespace) == namespace
        })
        .flat_map(|grant| grant.gpus.iter())
        .collect();
    let memory = |total: u64, more: plan::Mib| total.saturating_add(more.0);
    let held_memory = held.iter().map(|gpu| gpu.memory).fold(0, memory);
    let asked: Vec<&plan::Gpu> =
        placement.gpus.iter().filter_map(|uuid| inventory.gpu(uuid)).collect();
    let asked_memory = asked.iter().map(|gpu| gpu.memory).fold(0, memory);
    plan::policy::check_ceiling(
        namespace,
        &node.policy,
        (u32::try_from(held.len()).unwrap_or(u32::MAX), plan::Mib(held_memory)),
        (u32::try_from(asked.len()).unwrap_or(u32::MAX), plan::Mib(asked_memory)),
    )
}

fn namespace(ask: &Ask) -> &str {
    ask.asker.pod.as_ref().map_or(&ask.namespace, |pod| &pod.namespace)
}

fn grant(
    claim: &Claim<'_>,
    facts: Facts<'_>,
    owner: ledger::Owner,
    placement: Placement,
) -> Result<Grant, Fault> {
    let ask = facts.ask;
    let (origin, request) = match claim {
        Claim::Ours { request, .. } => (Origin::Berth, request),
        Claim::External { by, request, .. } => (Origin::External { by: (*by).to_owned() }, request),
    };
    let given = placement.gpus.iter().filter_map(|uuid| facts.inventory.gpu(uuid)).map(given);
    let whole_pod = owner.container.is_none();
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(Grant {
        id: GrantId::from_bits(random_bits().map_err(Fault::Random)?),
        owner,
        label: ask.label(whole_pod),
        kubernetes_namespace: ask.asker.pod.as_ref().map(|pod| pod.namespace.clone()),
        origin,
        state: State::Reserved,
        requested: request.map(|request| request.written.clone()).unwrap_or_default(),
        gpus: given.collect(),
        capabilities: facts.capabilities.clone(),
        unconfined: ask.unconfined().is_some(),
        candidates: placement.candidates.into(),
        closeness: placement.closeness,
        sandbox_init: facts.sandbox_init,
        members: vec![member(ask)],
        notes: Vec::new(),
        created: created.map_or(0, |since| since.as_secs()),
    })
}

fn given(gpu: &plan::Gpu) -> GivenGpu {
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

fn random_bits() -> std::io::Result<u64> {
    let mut bits = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bits)?;
    Ok(u64::from_ne_bytes(bits))
}

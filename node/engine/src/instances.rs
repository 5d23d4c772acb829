//! MIG instances of a grant: made before its container is, by a child under the GPU's lock.
//!
//! ```text
//! shim   Reserved ─► for each GPU: its lock ─► child ─────────────────────────────────────────► read what it wrote
//! child                                        nothing in the place? ─► begun ─► make ─► ids
//! ```
//!
//! Decides what is written down when, so that whoever finds a half-made instance knows that it is ours. Must not know how a driver makes one.

use std::sync::Arc;
use std::time::Instant;

use device::{Errand, Host, MigDevice};
use ledger::{GivenInstance, GivenSlot, Grant, Known, Ledger, Stage, State};
use plan::mig::{ComputeInstance, Instance, Place};
use plan::{Gpu, GpuUuid, GrantId, Inventory, MigUuid};

use crate::claim::LOOK_AGAIN;
use crate::crash::point;
use crate::{Denied, Fault, Node};

/// Has everything made that the grant is to have: by this process where it `is_ours`, else waits for the one that does it.
pub(crate) fn make(
    node: &Node,
    ledger: &Ledger,
    grant: &Arc<Grant>,
    known: &mut Option<Known>,
    is_ours: bool,
) -> Result<Arc<Grant>, Denied> {
    if is_complete(grant) {
        return Ok(Arc::clone(grant));
    }
    if !is_ours {
        // Somebody else writes to it.
        *known = None;
        return wait(node, ledger, grant);
    }
    let mut gpus: Vec<&GpuUuid> =
        grant.slots.iter().filter(|slot| slot.stage != Stage::Made).map(|slot| &slot.gpu).collect();
    gpus.dedup();
    for gpu in gpus {
        point("make.start");
        let args = ["make-instances", "--grant", grant.id.as_str(), "--gpu", gpu.as_str()];
        let lock = ledger.gpu_lock_path(gpu);
        let errand = Errand { task: "make MIG instances", args: &args, lock: &lock };
        let stands = |slot: &GivenSlot| slot.gpu != *gpu || slot.stage == Stage::Made;
        node.tool.fetch(&errand, || {
            // What cannot be read here is an error soon enough.
            *known = ledger.look_again(known.take()).ok();
            let now = known.as_ref().and_then(|known| find(known.grants(), &grant.id));
            Ok(now.filter(|grant| grant.slots.iter().all(stands)))
        })?;
        point("make.done");
    }
    let now = ledger.look_again(known.take())?;
    let made = find(now.grants(), &grant.id);
    *known = Some(now);
    Ok(made.filter(|grant| grant.state != State::Releasing).ok_or_else(|| gone(grant))?)
}

/// Another container of the pod came first and is having it made.
fn wait(node: &Node, ledger: &Ledger, grant: &Arc<Grant>) -> Result<Arc<Grant>, Denied> {
    let patience = Instant::now() + node.tool.deadline;
    loop {
        let now = find(&ledger.snapshot()?.grants, &grant.id);
        let now = now.filter(|now| now.state != State::Releasing).ok_or_else(|| gone(grant))?;
        if is_complete(&now) {
            return Ok(now);
        }
        if !ledger.is_in_progress(&grant.id)? || Instant::now() >= patience {
            node.give_up(ledger, &grant.id)?;
            return Err(gone(grant).into());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// An instance as it is written down: which of its compute instances is the container's, and what tells it from those that had its ids before.
pub(crate) fn given(
    host: &Host,
    gpu: &Gpu,
    instance: &Instance,
    compute: Option<&ComputeInstance>,
) -> GivenInstance {
    let inode = device::instance_inode(host, gpu.minor, instance.gpu_instance);
    GivenInstance {
        gpu_instance: instance.gpu_instance,
        compute_instance: compute.map_or(0, |compute| compute.id),
        uuid: compute.and_then(|compute| compute.uuid.clone()),
        inode: inode.unwrap_or_default(),
    }
}

/// The MIG devices of a grant.
pub(crate) fn migs_of(grant: &Grant) -> Vec<MigDevice> {
    let gpu = |slot: &GivenSlot| grant.gpus.iter().find(|gpu| gpu.uuid == slot.gpu);
    let device = |slot: &GivenSlot| {
        let (gpu, made) = (gpu(slot)?, slot.instance.as_ref()?);
        let (gpu_instance, compute_instance) = (made.gpu_instance, made.compute_instance);
        Some(MigDevice { gpu: gpu.minor, gpu_instance, compute_instance })
    };
    grant.slots.iter().filter_map(device).collect()
}

/// Which compute instances these MIG devices are.
pub(crate) fn computes_of(
    host: &Host,
    devices: &[MigUuid],
    inventory: &Inventory,
) -> Vec<(Place, GivenInstance)> {
    let compute = |uuid: &MigUuid| {
        let slot = inventory.mig_device(uuid)?;
        let gpu = inventory.gpu(&slot.gpu)?;
        let instance = gpu.instance_at(slot.profile, slot.start)?;
        let is_it = |id: u32, own: Option<&MigUuid>| match uuid.legacy() {
            Some((_, _, compute)) => id == compute,
            None => own == Some(uuid),
        };
        let mut all = instance.compute_instances.iter();
        let compute = all.find(|one| is_it(one.id, one.uuid.as_ref()))?;
        Some((slot.place(), given(host, gpu, instance, Some(compute))))
    };
    devices.iter().filter_map(compute).collect()
}

/// Whether the driver still lists the very instance that was made for a slot of the grant; `None` where none was.
pub(crate) fn is_listed(host: &Host, grant: &Grant, slot: &GivenSlot) -> Option<bool> {
    let made = slot.instance.as_ref()?;
    let gpu = grant.gpus.iter().find(|gpu| gpu.uuid == slot.gpu)?;
    Some(device::instance_inode(host, gpu.minor, made.gpu_instance) == Some(made.inode))
}

fn is_complete(grant: &Grant) -> bool {
    grant.slots.iter().all(|slot| slot.stage == Stage::Made)
}

pub(crate) fn find(grants: &[Arc<Grant>], id: &GrantId) -> Option<Arc<Grant>> {
    grants.iter().find(|grant| grant.id == *id).cloned()
}

fn gone(grant: &Grant) -> Fault {
    Fault::GrantGone { grant: grant.id.to_string(), container: grant.label.clone() }
}

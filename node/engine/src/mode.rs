//! Switching a GPU into MIG mode, where policy lets a request have that.
//!
//! ```text
//! node lock: held as a whole, by the switch itself ─► GPU lock: child switches ─► node lock: given back ─► decide again
//! ```
//!
//! Decides that nobody is given the GPU meanwhile. Which GPU it is, is `plan`'s. Must not switch one back.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::Errand;
use ledger::{Grant, Ledger, Origin, Owner, State};
use plan::trust::may_switch_mode;
use plan::{Capabilities, Gpu, GpuUuid, Inventory, Occupancy, Want};

use crate::ask::Ask;
use crate::claim::{Claim, LOCK, given, new_id, seconds_now};
use crate::crash::point;
use crate::{Denied, Fault, Node};

/// Switches a GPU on if that would let the claim have its instances. The node anew, if it did.
pub(crate) fn switch_for(
    node: &Node,
    ledger: &Ledger,
    claim: &Claim<'_>,
    ask: &Ask,
    inventory: &Inventory,
) -> Result<Option<Inventory>, Denied> {
    let Claim::Ours { want: want @ Want::Mig { .. }, .. } = claim else { return Ok(None) };
    if !may_switch_mode(&ask.asker, &node.policy) {
        return Ok(None);
    }
    let choose = |occupancy: &Occupancy<'_>| {
        plan::place::to_switch(want, inventory, occupancy, &node.policy, &ask.asker)
    };
    let mut locked = ledger.lock(LOCK)?;
    let Some(gpu) = choose(&ledger::occupancy(locked.grants())) else { return Ok(None) };
    let gpu = inventory.gpu(&gpu).ok_or_else(|| Fault::NoSuchGpu { gpu: gpu.to_string() })?;
    let holder = holder(gpu)?;
    let _mark = ledger.begin(&holder.id)?;
    let id = holder.id.clone();
    locked.change(|grants| grants.push(Arc::new(holder)))?;
    drop(locked);
    point("switch.held");
    let switched = switch(node, ledger, gpu);
    point("switch.done");
    if switched.is_err() && ledger.is_worked_on(&gpu.uuid)? {
        // The child hangs in the driver, and may switch it yet: whoever looks for the dead takes the holder away after that.
        return switched.map(Some);
    }
    ledger.lock(LOCK)?.change(|grants| grants.retain(|grant| grant.id != id))?;
    switched.map(Some)
}

/// Who holds a GPU while it is switched.
const NAME: &str = "berth/mig-mode-switch";

/// Whether a grant stands for a switch that may still be under way, whoever began it.
pub(crate) fn is_under_way(ledger: &Ledger, grant: &Grant) -> Result<bool, Fault> {
    let mut gpus = grant.gpus.iter().filter(|_| grant.owner.namespace == NAME);
    gpus.try_fold(false, |any, gpu| Ok(any || ledger.is_worked_on(&gpu.uuid)?))
}

/// What holds the GPU while it is switched, for as long as this process has it marked.
fn holder(gpu: &Gpu) -> Result<Grant, Fault> {
    Ok(Grant {
        id: new_id()?,
        owner: Owner { namespace: NAME.into(), sandbox: gpu.uuid.to_string(), container: None },
        label: NAME.into(),
        kubernetes_namespace: None,
        origin: Origin::Berth,
        state: State::Reserved,
        requested: BTreeMap::new(),
        gpus: std::iter::once(given(gpu)).collect(),
        slots: Vec::new(),
        capabilities: Capabilities::default(),
        unconfined: false,
        candidates: Vec::new().into(),
        closeness: String::new(),
        exclusive: BTreeMap::new(),
        sandbox_init: None,
        members: Vec::new(),
        notes: Vec::new(),
        created: seconds_now(),
    })
}

fn switch(node: &Node, ledger: &Ledger, gpu: &Gpu) -> Result<Inventory, Denied> {
    let args = ["switch-mode", "--gpu", gpu.uuid.as_str()];
    let lock = ledger.gpu_lock_path(&gpu.uuid);
    let errand = Errand { task: "switch a GPU into MIG mode", args: &args, lock: &lock };
    let is_on =
        |inventory: &Inventory, gpu: &GpuUuid| inventory.gpu(gpu).is_some_and(|gpu| gpu.mig);
    Ok(node.tool.fetch(&errand, || {
        let now = device::inventory(&node.host, &node.tool, |_| true)?;
        Ok(Some(now).filter(|now| is_on(now, &gpu.uuid)))
    })?)
}

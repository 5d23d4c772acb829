//! The slow works on MIG instances, as the `berth` program does them for a shim: making those of a grant, and giving them back.
//!
//! ```text
//! give back:  mark (inherited) ─► for each GPU: its lock ─► about to be destroyed ─► destroy ─► struck out
//! ```
//!
//! Decides what of a grant is done and written down in which order; may be killed anywhere, and done again by another. Loads NVML: never in a shim.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use device::{DeviceError, Migs};
use ledger::{GivenInstance, GivenSlot, Grant, Ledger, Stage, State};
use plan::mig::{Instance, Profile};
use plan::{Gpu, GpuUuid, GrantId};

use crate::claim::LOCK;
use crate::crash::point;
use crate::instances::find;
use crate::{Fault, Node};

/// How long another's work on the same GPU may take.
const GPU_LOCK: Duration = Duration::from_secs(120);
/// How long processes that have been killed may keep the driver from destroying their instance.
const IN_USE: Duration = Duration::from_secs(30);
/// How often is looked whether an instance that lingers has been taken over.
const LINGERING: Duration = Duration::from_secs(1);
/// How long to wait before trying that again.
const TRY_AGAIN: Duration = Duration::from_millis(50);

impl Node {
    /// Makes the instances of a grant on one GPU, whose lock the caller holds.
    ///
    /// # Errors
    /// [`Fault`]; the ledger then says which of them were begun.
    pub fn make_instances(&self, id: &GrantId, gpu: &GpuUuid) -> Result<(), Fault> {
        let ledger = self.ledger()?;
        let inventory = self.inventory_as_known()?;
        let gpu = inventory.gpu(gpu).ok_or_else(|| Fault::NoSuchGpu { gpu: gpu.to_string() })?;
        let migs = device::migs(&self.host, gpu)?;
        let grant = find(&ledger.snapshot()?, id).ok_or_else(|| struck_out(id))?;
        let wanted = |slot: &&GivenSlot| slot.gpu == gpu.uuid && slot.stage == Stage::Decided;
        for slot in grant.slots.iter().filter(wanted) {
            let profile = profile(gpu, slot)?;
            if migs.at(profile, slot.start)?.is_some() {
                let (name, start) = (slot.name.to_string(), slot.start);
                return Err(Fault::PlaceTaken { name, start, gpu: gpu.uuid.to_string() });
            }
            point("make.looked");
            change(&ledger, id, slot, |slot| slot.stage = Stage::Begun)?;
            point("make.begun");
            let made = given(&migs.make(profile, slot.start)?);
            point("make.made");
            change(&ledger, id, slot, |slot| {
                slot.stage = Stage::Made;
                slot.instance = Some(made);
            })?;
            point("make.written");
        }
        Ok(())
    }

    /// Destroys what a grant that is being given back still has, and strikes it out. `mark` is the grant's, if the caller was given it.
    ///
    /// # Errors
    /// [`Fault`]; whoever reconciles tries again.
    pub fn give_back(&self, id: &GrantId, mark: Option<OwnedFd>) -> Result<(), Fault> {
        let ledger = self.ledger()?;
        let inherited = mark.map(|mark| ledger.take_over(id, mark)).transpose()?.flatten();
        let mark = match inherited {
            Some(mark) => Some(mark),
            None => ledger.try_begin(id)?,
        };
        // Another is at it.
        let Some(_mark) = mark else { return Ok(()) };
        point("give-back.marked");
        let Some(grant) = self.lingering(&ledger, id)? else { return Ok(()) };
        let mut gpus: Vec<&GpuUuid> = grant.slots.iter().map(|slot| &slot.gpu).collect();
        gpus.dedup();
        for gpu in gpus {
            self.give_back_on(&ledger, id, gpu)?;
        }
        Ok(())
    }

    /// Leaves instances that stand for somebody to take over, for a while. The grant, unless that has happened.
    fn lingering(&self, ledger: &Ledger, id: &GrantId) -> Result<Option<Arc<Grant>>, Fault> {
        let end = Instant::now() + self.linger;
        loop {
            let grant = find(&ledger.snapshot()?, id);
            let stands =
                |grant: &Arc<Grant>| grant.slots.iter().any(|slot| slot.stage == Stage::Made);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !grant.as_ref().is_some_and(stands) {
                return Ok(grant);
            }
            std::thread::sleep(left.min(LINGERING));
        }
    }

    fn give_back_on(&self, ledger: &Ledger, id: &GrantId, uuid: &GpuUuid) -> Result<(), Fault> {
        let _gpu = ledger.gpu_lock(uuid, GPU_LOCK)?;
        let inventory = self.inventory_as_known()?;
        // From here on nobody adopts it; what somebody has adopted is not there any more.
        let mut slots = Vec::new();
        on_slots(ledger, id, |grant| {
            for slot in grant.slots.iter_mut().filter(|slot| slot.gpu == *uuid) {
                slots.push(slot.clone());
                if slot.stage != Stage::Decided {
                    slot.stage = Stage::Ending;
                }
            }
        })?;
        point("give-back.begun");
        // A GPU that has left, or left MIG mode, has left its instances, too.
        if let Some(gpu) = inventory.gpu(uuid).filter(|gpu| gpu.mig) {
            let migs = device::migs(&self.host, gpu)?;
            for slot in &slots {
                destroy(&migs, profile(gpu, slot)?, slot)?;
                point("give-back.destroyed");
            }
        }
        on_slots(ledger, id, |grant| grant.slots.retain(|slot| slot.gpu != *uuid))?;
        point("give-back.struck-out");
        Ok(())
    }

    /// Switches a GPU, whose lock the caller holds and that nobody uses, into MIG mode.
    ///
    /// # Errors
    /// [`Fault`]; it is as it was then.
    pub fn switch_mode(&self, gpu: &GpuUuid) -> Result<(), Fault> {
        device::switch_mode(&self.host, gpu)?;
        self.observe()
    }

    /// The inventory as it is known, whoever may be working on a GPU: this process is.
    fn inventory_as_known(&self) -> Result<plan::Inventory, Fault> {
        Ok(device::inventory(&self.host, &self.tool, |_| true)?)
    }
}

/// Destroys what stands in a slot's place, if it is what was made there.
fn destroy(migs: &Migs<'_>, profile: &Profile, slot: &GivenSlot) -> Result<(), Fault> {
    let patience = Instant::now() + IN_USE;
    loop {
        let Some(found) = migs.at(profile, slot.start)?.filter(|found| is_ours(found, slot)) else {
            return Ok(());
        };
        match migs.destroy(profile, found.gpu_instance) {
            Err(DeviceError::Nvml { .. }) if Instant::now() < patience => {
                std::thread::sleep(TRY_AGAIN);
            }
            done => return Ok(done?),
        }
    }
}

/// Whether what is found in its place was made for it. Another's, made there since, has another UUID.
fn is_ours(found: &Instance, slot: &GivenSlot) -> bool {
    let Some(made) = &slot.instance else { return slot.stage != Stage::Decided };
    let is_same = |uuid: &plan::MigUuid| {
        let mut all = found.compute_instances.iter().filter_map(|one| one.uuid.as_ref());
        found.compute_instances.is_empty() || all.any(|one| one == uuid)
    };
    made.uuid.as_ref().is_none_or(is_same)
}

fn given(instance: &Instance) -> GivenInstance {
    let compute = instance.compute_instances.first();
    GivenInstance {
        gpu_instance: instance.gpu_instance,
        compute_instance: compute.map_or(0, |compute| compute.id),
        uuid: compute.and_then(|compute| compute.uuid.clone()),
    }
}

fn profile<'a>(gpu: &'a Gpu, slot: &GivenSlot) -> Result<&'a Profile, Fault> {
    gpu.profiles.iter().find(|profile| profile.id == slot.profile).ok_or_else(|| {
        Fault::NoSuchProfile { name: slot.name.to_string(), gpu: gpu.uuid.to_string() }
    })
}

/// Changes one slot of a grant that is still wanted.
fn change(
    ledger: &Ledger,
    id: &GrantId,
    slot: &GivenSlot,
    change: impl FnOnce(&mut GivenSlot),
) -> Result<(), Fault> {
    let mut locked = ledger.lock(LOCK)?;
    let wanted = |grant: &Grant| grant.id == *id && grant.state != State::Releasing;
    let grant = locked.grants().iter().position(|grant| wanted(grant));
    let grant = grant.ok_or_else(|| struck_out(id))?;
    locked.change(|grants| {
        let slots = &mut Arc::make_mut(&mut grants[grant]).slots;
        slots.iter_mut().find(|one| one.place() == slot.place()).map(change);
    })?;
    Ok(())
}

/// Changes a grant that is being given back; one without slots is struck out.
fn on_slots(ledger: &Ledger, id: &GrantId, change: impl FnOnce(&mut Grant)) -> Result<(), Fault> {
    let mut locked = ledger.lock(LOCK)?;
    let ours = |grant: &Grant| grant.id == *id && grant.state == State::Releasing;
    if let Some(grant) = locked.grants().iter().position(|grant| ours(grant)) {
        locked.change(|grants| {
            change(Arc::make_mut(&mut grants[grant]));
            if grants[grant].slots.is_empty() {
                grants.remove(grant);
            }
        })?;
    }
    Ok(())
}

fn struck_out(id: &GrantId) -> Fault {
    Fault::GrantGone { grant: id.to_string(), container: "that it was for".to_owned() }
}

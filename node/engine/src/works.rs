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
use ledger::{GivenSlot, Grant, Known, Ledger, Stage, State};
use plan::mig::{Instance, Profile};
use plan::{Gpu, GpuUuid, GrantId};

use crate::claim::LOCK;
use crate::crash::point;
use crate::instances::{find, given, is_listed};
use crate::{Fault, Node};

/// How long another's work on the same GPU may take.
const GPU_LOCK: Duration = Duration::from_secs(120);
/// How long processes that have been killed may keep the driver from destroying their instance.
const IN_USE: Duration = Duration::from_secs(30);
/// How often is looked whether an instance that lingers has been taken over.
const LINGERING: Duration = Duration::from_secs(1);
/// How long a try that failed keeps others from trying.
const NOT_AGAIN: Duration = Duration::from_secs(1);
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
        let known = ledger.look()?;
        let grant = find(known.grants(), id).ok_or_else(|| struck_out(id))?;
        let mut known = Some(known);
        let wanted = |slot: &&GivenSlot| slot.gpu == gpu.uuid && slot.stage == Stage::Decided;
        for slot in grant.slots.iter().filter(wanted) {
            let profile = profile(gpu, slot)?;
            if migs.at(profile, slot.start)?.is_some() {
                let (name, start) = (slot.name.to_string(), slot.start);
                return Err(Fault::PlaceTaken { name, start, gpu: gpu.uuid.to_string() });
            }
            point("make.looked");
            change(&ledger, &mut known, id, slot, |slot| slot.stage = Stage::Begun)?;
            point("make.begun");
            if let Err(error) = migs.create(profile, slot.start) {
                // Nothing was made: what is found there is not ours.
                change(&ledger, &mut known, id, slot, |slot| slot.stage = Stage::Decided)?;
                return Err(error.into());
            }
            point("make.placed");
            let made = migs.fill(profile, slot.start)?;
            let made = given(&self.host, gpu, &made, made.compute_instances.first());
            point("make.made");
            change(&ledger, &mut known, id, slot, |slot| {
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
        let mut given_back = Ok(());
        for gpu in gpus {
            given_back = given_back.and(self.give_back_on(&ledger, &grant, gpu));
        }
        if let Err(fault) = &given_back {
            let note = format!("giving it back failed: {fault}");
            on_grant(&ledger, id, |grant| {
                if !grant.notes.contains(&note) {
                    grant.notes.push(note);
                }
            })?;
            // Still marked: whoever waits for it does not start one try after the other.
            std::thread::sleep(NOT_AGAIN);
        }
        given_back
    }

    /// Leaves instances that stand for somebody to take over, for a while. The grant, unless that has happened.
    fn lingering(&self, ledger: &Ledger, id: &GrantId) -> Result<Option<Arc<Grant>>, Fault> {
        let end = Instant::now() + self.linger;
        loop {
            let grant = find(&ledger.snapshot()?.grants, id);
            let stands =
                |grant: &Arc<Grant>| grant.slots.iter().any(|slot| slot.stage == Stage::Made);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || !grant.as_ref().is_some_and(stands) {
                return Ok(grant);
            }
            std::thread::sleep(left.min(LINGERING));
        }
    }

    fn give_back_on(&self, ledger: &Ledger, grant: &Grant, uuid: &GpuUuid) -> Result<(), Fault> {
        let id = &grant.id;
        let _gpu = ledger.gpu_lock(uuid, GPU_LOCK)?;
        let inventory = self.inventory_as_known()?;
        // From here on nobody adopts it; what somebody has adopted is not there any more.
        let mut slots = Vec::new();
        on_grant(ledger, id, |grant| {
            for slot in grant.slots.iter_mut().filter(|slot| slot.gpu == *uuid) {
                if slot.stage != Stage::Decided {
                    slot.stage = Stage::Ending;
                }
                slots.push(slot.clone());
            }
        })?;
        point("give-back.begun");
        let is_listed = |slot: &GivenSlot| is_listed(&self.host, grant, slot) == Some(true);
        let gpu = match inventory.gpu(uuid) {
            // It does not answer just now, and what it is cut into is still there.
            None if slots.iter().any(is_listed) => {
                return Err(Fault::NoSuchGpu { gpu: uuid.to_string() });
            }
            // A GPU that has left, or left MIG mode, has left its instances, too.
            gpu => gpu.filter(|gpu| gpu.mig),
        };
        let migs = gpu.map(|gpu| device::migs(&self.host, gpu)).transpose()?;
        let patience = Instant::now() + IN_USE;
        let mut given_back = Ok(());
        for slot in &slots {
            let gone = match (gpu, &migs) {
                (Some(gpu), Some(migs)) => self.destroy(migs, gpu, slot, patience),
                _ => Ok(()),
            };
            point("give-back.destroyed");
            match gone {
                Ok(()) => on_grant(ledger, id, |grant| {
                    grant.slots.retain(|one| one.place() != slot.place());
                })?,
                failed => given_back = given_back.and(failed),
            }
            point("give-back.struck-out");
        }
        given_back
    }

    /// Destroys what stands in a slot's place, if it is what was made there.
    fn destroy(
        &self,
        migs: &Migs<'_>,
        gpu: &Gpu,
        slot: &GivenSlot,
        patience: Instant,
    ) -> Result<(), Fault> {
        // A driver without the profile has nothing of it.
        let Some(profile) = gpu.profile_by_id(slot.profile) else { return Ok(()) };
        loop {
            let found = migs.at(profile, slot.start)?;
            let Some(found) = found.filter(|found| self.is_ours(gpu, found, slot)) else {
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

    /// Whether what is found in its place was made for it. One that was made there since has another file.
    fn is_ours(&self, gpu: &Gpu, found: &Instance, slot: &GivenSlot) -> bool {
        let Some(made) = &slot.instance else { return slot.stage != Stage::Decided };
        let inode = device::instance_inode(&self.host, gpu.minor, found.gpu_instance);
        made.gpu_instance == found.gpu_instance && inode.is_none_or(|inode| inode == made.inode)
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

fn profile<'a>(gpu: &'a Gpu, slot: &GivenSlot) -> Result<&'a Profile, Fault> {
    gpu.profile_by_id(slot.profile).ok_or_else(|| Fault::NoSuchProfile {
        name: slot.name.to_string(),
        gpu: gpu.uuid.to_string(),
    })
}

/// Changes one slot of a grant that is still wanted.
fn change(
    ledger: &Ledger,
    known: &mut Option<Known>,
    id: &GrantId,
    slot: &GivenSlot,
    change: impl FnOnce(&mut GivenSlot),
) -> Result<(), Fault> {
    let mut locked = ledger.lock_knowing(LOCK, known.take())?;
    let wanted = |grant: &Grant| grant.id == *id && grant.state != State::Releasing;
    let grant = locked.grants().iter().position(|grant| wanted(grant));
    let grant = grant.ok_or_else(|| struck_out(id))?;
    locked.change(|grants| {
        let slots = &mut Arc::make_mut(&mut grants[grant]).slots;
        slots.iter_mut().find(|one| one.place() == slot.place()).map(change);
    })?;
    *known = Some(locked.leave());
    Ok(())
}

/// Changes a grant that is being given back; one without slots is struck out.
fn on_grant(ledger: &Ledger, id: &GrantId, change: impl FnOnce(&mut Grant)) -> Result<(), Fault> {
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

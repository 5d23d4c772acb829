//! What makes and ends instances and switches the mode: the driver's rules, and its errors.
//!
//! Works on one GPU of the state. Must not know files: whoever changes the state brings the tree up to date.

use super::{ComputeInstance, GpuInstance, Placement, compute, place, profile, uuid};
use crate::code::Code;
use crate::state::{Gpu, MigMode};

/// `NVML_DEVICE_ARCH_AMPERE`: the last one whose mode takes a reset.
const AMPERE: u32 = 7;

/// A count of all instances that the node ever had.
pub type Count = u64;

impl Gpu {
    /// `nvmlDeviceSetMigMode`. The answer is the activation's: `None` when the mode is in force.
    ///
    /// An Ampere card wants a reset, which this driver leaves to its caller, as it does under a hypervisor that passes the card
    /// through. Later cards switch at once, if they are idle.
    ///
    /// # Errors
    /// NOT_SUPPORTED without MIG; IN_USE when it is to be switched off and there are instances.
    pub fn set_mig_mode(&mut self, on: bool) -> Result<Option<Code>, Code> {
        let mode = self.mig.ok_or(Code::NOT_SUPPORTED)?;
        if !on && !self.instances.is_empty() {
            return Err(Code::IN_USE);
        }
        let pending = MigMode { pending: on, ..mode };
        let (mode, activation) = if mode.current == on {
            (pending, None)
        } else if !self.processes.is_empty() {
            (pending, Some(Code::IN_USE))
        } else if self.model().architecture == AMPERE {
            (pending, Some(Code::RESET_REQUIRED))
        } else {
            (MigMode { current: on, pending: on }, None)
        };
        self.mig = Some(mode);
        Ok(activation)
    }

    /// A reset: the pending mode comes into force, and instances are gone.
    ///
    /// # Errors
    /// IN_USE while something runs on it.
    pub fn reset(&mut self) -> Result<(), Code> {
        if !self.processes.is_empty() {
            return Err(Code::IN_USE);
        }
        self.instances.clear();
        self.mig = self.mig.map(|mode| MigMode { current: mode.pending, ..mode });
        Ok(())
    }

    /// Another load of the driver: instances are gone, and so is the mode of cards that keep it in the driver. Ampere keeps it on
    /// the card.
    pub(crate) fn attach(&mut self) {
        self.instances.clear();
        let kept = self.model().architecture == AMPERE;
        self.mig = self.mig.map(|mode| {
            let on = kept && mode.pending;
            MigMode { current: on, pending: on }
        });
    }

    /// Makes a GPU instance, where the driver chooses or at `at`, and says its id.
    ///
    /// # Errors
    /// NOT_SUPPORTED without MIG mode; INVALID_ARGUMENT for a profile or placement that this card does not have;
    /// INSUFFICIENT_RESOURCES when there is no room.
    pub fn create_instance(
        &mut self,
        count: &mut Count,
        profile: u32,
        at: Option<Placement>,
    ) -> Result<u32, Code> {
        if !self.in_mig_mode() {
            return Err(Code::NOT_SUPPORTED);
        }
        let profile = profile::by_id(self.gpu_profiles(), profile).ok_or(Code::INVALID_ARGUMENT)?;
        if at.is_some_and(|at| !profile.placements().any(|possible| possible == at)) {
            return Err(Code::INVALID_ARGUMENT);
        }
        let placement = match at {
            Some(at) => Some(at).filter(|at| place::free(self, profile, *at)),
            None => place::choose(self, profile),
        };
        let placement = placement.ok_or(Code::INSUFFICIENT_RESOURCES)?;
        let id = place::id(self, placement).ok_or(Code::INSUFFICIENT_RESOURCES)?;
        *count += 1;
        let (serial, profile) = (*count, profile.id);
        let instance = GpuInstance { serial, id, profile, placement, compute: Vec::new() };
        let index = self.instances.partition_point(|other| other.id < id);
        self.instances.insert(index, instance);
        Ok(id)
    }

    /// Ends a GPU instance.
    ///
    /// # Errors
    /// NOT_FOUND; IN_USE while it has compute instances.
    pub fn destroy_instance(&mut self, id: u32) -> Result<(), Code> {
        let instance = self.instance(id).ok_or(Code::NOT_FOUND)?;
        if !instance.compute.is_empty() {
            return Err(Code::IN_USE);
        }
        self.instances.retain(|instance| instance.id != id);
        Ok(())
    }

    /// Makes a compute instance in GPU instance `id`, and says its own id.
    ///
    /// # Errors
    /// NOT_FOUND without that GPU instance; INVALID_ARGUMENT for a profile or placement that it does not have;
    /// INSUFFICIENT_RESOURCES when there is no room.
    pub fn create_compute(
        &mut self,
        count: &mut Count,
        id: u32,
        profile: u32,
        at: Option<Placement>,
    ) -> Result<u32, Code> {
        let instance = self.instance(id).ok_or(Code::NOT_FOUND)?;
        let own = profile::by_id(self.gpu_profiles(), instance.profile);
        let own = own.ok_or(Code::INVALID_ARGUMENT)?;
        let wanted = compute::by_id(self, own, profile).ok_or(Code::INVALID_ARGUMENT)?;
        if at.is_some_and(|at| !wanted.placements().any(|possible| possible == at)) {
            return Err(Code::INVALID_ARGUMENT);
        }
        let placement = match at {
            Some(at) => Some(at).filter(|at| instance.has_room(*at)),
            None => wanted.placements().find(|possible| instance.has_room(*possible)),
        };
        let placement = placement.ok_or(Code::INSUFFICIENT_RESOURCES)?;
        *count += 1;
        let serial = *count;
        let uuid = uuid(self, serial);
        let instance = self.instances.iter_mut().find(|instance| instance.id == id);
        let list = &mut instance.ok_or(Code::NOT_FOUND)?.compute;
        let id = (0..).find(|id| list.iter().all(|other| other.id != *id)).unwrap_or(0);
        let compute = ComputeInstance { serial, id, profile, placement, uuid };
        list.insert(list.partition_point(|other| other.id < id), compute);
        Ok(id)
    }

    /// Ends a compute instance.
    ///
    /// # Errors
    /// NOT_FOUND; IN_USE while something runs in it.
    pub fn destroy_compute(&mut self, instance: u32, id: u32) -> Result<(), Code> {
        let device = self
            .mig_devices()
            .find(|device| device.instance.id == instance && device.compute.id == id);
        if device.ok_or(Code::NOT_FOUND)?.processes().next().is_some() {
            return Err(Code::IN_USE);
        }
        let instance = self.instances.iter_mut().find(|other| other.id == instance);
        instance.ok_or(Code::NOT_FOUND)?.compute.retain(|compute| compute.id != id);
        Ok(())
    }
}

impl GpuInstance {
    /// Whether no compute instance is there.
    #[must_use]
    pub fn has_room(&self, placement: Placement) -> bool {
        !self.compute.iter().any(|compute| compute.placement.overlaps(placement))
    }

    /// How many more compute instances of `profile` there could be.
    #[must_use]
    pub fn remaining(&self, profile: &compute::ComputeProfile) -> u32 {
        let free = profile.placements().filter(|placement| self.has_room(*placement)).count();
        u32::try_from(free).unwrap_or(u32::MAX)
    }
}

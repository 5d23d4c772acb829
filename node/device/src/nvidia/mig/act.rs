//! MIG instances made, found and destroyed.
//!
//! Decides the order: a GPU instance, then the compute instance that fills it; backwards when it is destroyed, or when the second fails. Runs in a
//! short-lived program, under the GPU's lock: a hung driver hangs this, and making an instance takes its time. Must not know whose it is.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use plan::mig::{ComputeInstance, Instance, Profile, ProfileName};
use plan::{Gpu, GpuUuid, Mib};

use super::raw::{self, Kind};
use super::{Listing, store};
use crate::Host;
use crate::error::DeviceError;
use crate::nvidia::observe::{failed, start};

/// What is being done, in words.
const MAKE: &str = "make a MIG instance";

/// The profiles that the driver offers on a GPU; none while MIG mode is off.
pub(crate) fn profiles(device: &Device<'_>) -> Result<Vec<Profile>, NvmlError> {
    let kinds = match raw::kinds(device) {
        Err(NvmlError::FailedToLoadSymbol(_)) => return Ok(Vec::new()),
        kinds => kinds?,
    };
    let mut profiles = Vec::new();
    for kind in kinds {
        let places = raw::placements(device, kind.id)?;
        // A kind without a place, or that is called by no name, cannot be asked for.
        let (Some((_, slices)), Some(name)) = (places.first().copied(), name(&kind)) else {
            continue;
        };
        profiles.push(Profile {
            id: kind.id,
            media: name.brings_media(),
            name,
            slices,
            compute: kind.compute,
            sms: kind.sms,
            memory: Mib(kind.mib),
            max: kind.max,
            starts: places.iter().map(|(start, _)| *start).collect(),
        });
    }
    Ok(profiles)
}

/// What the driver calls it; drivers before R470 do not say, and all their profiles are plain ones.
fn name(kind: &Kind) -> Option<ProfileName> {
    let plain = || format!("{}g.{}gb", kind.compute, kind.mib.div_ceil(1024));
    kind.name.clone().unwrap_or_else(plain).parse().ok()
}

/// All instances of a GPU with these profiles.
pub(crate) fn instances(
    device: &Device<'_>,
    profiles: &[Profile],
) -> Result<Vec<Instance>, NvmlError> {
    let mut found = Vec::new();
    for profile in profiles {
        for instance in raw::instances(device, profile.id, profile.max)? {
            let facts = instance.facts()?;
            let mut compute_instances = Vec::new();
            for compute in instance.compute_instances()? {
                compute_instances.push(ComputeInstance { id: compute.id()?, uuid: None });
            }
            found.push(Instance {
                gpu_instance: facts.id,
                profile: profile.id,
                start: facts.start,
                size: facts.size,
                compute_instances,
            });
        }
    }
    name_devices(device, &mut found)?;
    found.sort_by_key(|instance| (instance.start, instance.gpu_instance));
    Ok(found)
}

/// A compute instance in a GPU instance is a MIG device, and that has a UUID.
fn name_devices(device: &Device<'_>, instances: &mut [Instance]) -> Result<(), NvmlError> {
    if instances.iter().all(|instance| instance.compute_instances.is_empty()) {
        return Ok(());
    }
    for index in 0..device.mig_device_count()? {
        let mig = match device.mig_device_by_index(index) {
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => continue,
            mig => mig?,
        };
        let (gpu_instance, compute_instance) = raw::ids(&mig)?;
        let uuid = mig.uuid()?.parse().ok();
        let owner = instances.iter_mut().find(|one| one.gpu_instance == gpu_instance);
        let computes = owner.into_iter().flat_map(|one| &mut one.compute_instances);
        for compute in computes.filter(|compute| compute.id == compute_instance) {
            compute.uuid.clone_from(&uuid);
        }
    }
    Ok(())
}

/// Switches a GPU into MIG mode. The caller holds its lock, and nobody uses it.
///
/// # Errors
/// [`DeviceError::Nvml`] when the driver does not do it, or only at the next reset, as on Ampere; the mode is as it was then.
pub fn switch_mode(host: &Host, gpu: &GpuUuid) -> Result<(), DeviceError> {
    const SWITCH: &str = "switch MIG mode on";
    let nvml = start(host)?;
    let device = nvml.device_by_uuid(gpu.as_str()).map_err(failed(host, "find the GPU"))?;
    let status = device.set_mig_mode(true).map_err(failed(host, SWITCH))?;
    let mode = device.mig_mode().map_err(failed(host, SWITCH))?;
    if mode.current != 0 {
        return Ok(());
    }
    // Left pending, the next reset would surprise somebody.
    let _ = device.set_mig_mode(false);
    let why = NvmlError::from(status);
    let said =
        format!("it takes a reset of the GPU ({why}): nvidia-smi -i {gpu} -mig 1 and --gpu-reset");
    Err(DeviceError::Nvml { library: host.nvml.clone(), action: SWITCH, said })
}

/// One GPU in MIG mode, as whoever holds its lock works on it.
pub struct Migs<'a> {
    host: &'a Host,
    nvml: Nvml,
    gpu: &'a Gpu,
}

/// Starts to work on the instances of a GPU. The caller holds the GPU's lock.
///
/// # Errors
/// [`DeviceError::Nvml`] when the driver does not answer.
pub fn migs<'a>(host: &'a Host, gpu: &'a Gpu) -> Result<Migs<'a>, DeviceError> {
    Ok(Migs { host, nvml: start(host)?, gpu })
}

impl Migs<'_> {
    /// The instance of a profile at a start, if there is one, whosever it is.
    ///
    /// # Errors
    /// [`DeviceError::Nvml`].
    pub fn at(&self, profile: &Profile, start: u32) -> Result<Option<Instance>, DeviceError> {
        let found = instances(&self.device()?, std::slice::from_ref(profile));
        let found = found.map_err(failed(self.host, "list the MIG instances"))?;
        Ok(found.into_iter().find(|instance| instance.start == start))
    }

    /// Makes a GPU instance of a profile at a start, with nothing in it.
    ///
    /// # Errors
    /// [`DeviceError::Nvml`], as when the place is taken; nothing was made then.
    pub fn create(&self, profile: &Profile, start: u32) -> Result<(), DeviceError> {
        let device = self.device()?;
        let made = raw::create(&device, profile.id, (start, profile.slices));
        made.map(drop).map_err(failed(self.host, MAKE))
    }

    /// Makes the compute instance that fills the GPU instance of a profile at a start. The instance, then.
    ///
    /// # Errors
    /// [`DeviceError::Nvml`]; the GPU instance is destroyed then, if that can be.
    pub fn fill(&self, profile: &Profile, start: u32) -> Result<Instance, DeviceError> {
        let device = self.device()?;
        let filled = fill(&device, profile, start).map_err(failed(self.host, MAKE));
        let all = learn(self.host, &device, self.gpu);
        let made = filled?;
        all?.into_iter().find(|instance| instance.gpu_instance == made).ok_or_else(|| {
            let said = "what was made cannot be found".to_owned();
            DeviceError::Nvml { library: self.host.nvml.clone(), action: MAKE, said }
        })
    }

    /// Destroys the GPU instance with this id, with what is in it, if it is there.
    ///
    /// # Errors
    /// [`DeviceError::Nvml`], as when processes still use it.
    pub fn destroy(&self, profile: &Profile, gpu_instance: u32) -> Result<(), DeviceError> {
        let device = self.device()?;
        let destroyed = destroy(&device, profile, gpu_instance);
        learn(self.host, &device, self.gpu)?;
        destroyed.map_err(failed(self.host, "destroy a MIG instance"))
    }

    fn device(&self) -> Result<Device<'_>, DeviceError> {
        let device = self.nvml.device_by_uuid(self.gpu.uuid.as_str());
        device.map_err(failed(self.host, "find the GPU"))
    }
}

/// Fills the instance at a start; its id.
fn fill(device: &Device<'_>, profile: &Profile, start: u32) -> Result<u32, NvmlError> {
    for instance in raw::instances(device, profile.id, profile.max)? {
        let facts = instance.facts()?;
        if facts.start != start {
            continue;
        }
        return match instance.whole().and_then(|whole| instance.create(whole)) {
            Ok(_) => Ok(facts.id),
            Err(error) => {
                // What cannot be destroyed now is found later: its place is in the ledger.
                let _ = instance.destroy();
                Err(error)
            }
        };
    }
    Err(NvmlError::NotFound)
}

fn destroy(device: &Device<'_>, profile: &Profile, gpu_instance: u32) -> Result<(), NvmlError> {
    for instance in raw::instances(device, profile.id, profile.max)? {
        if instance.facts()?.id == gpu_instance {
            for compute in instance.compute_instances()? {
                compute.destroy()?;
            }
            return instance.destroy();
        }
    }
    Ok(())
}

/// Learns anew which instances are on a GPU, and keeps that for the launches to come.
pub(crate) fn learn(
    host: &Host,
    device: &Device<'_>,
    gpu: &Gpu,
) -> Result<Vec<Instance>, DeviceError> {
    // Before looking: what changes meanwhile makes what is kept void, not wrong.
    let listing = Listing::now(host, gpu)?;
    let found = instances(device, &gpu.profiles).map_err(failed(host, "list the MIG instances"))?;
    store(host, &gpu.uuid, listing, found.clone())?;
    Ok(found)
}

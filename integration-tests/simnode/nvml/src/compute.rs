//! Compute instances: their profiles, where they can be, and making, finding and ending them.

use simnode::code::Code;
use simnode::mig::compute::{self, ComputeProfile};
use simnode::mig::profile::GpuProfile;
use simnode::mig::{GpuInstance, MigDevice, Placement};
use simnode::state::Gpu;

use crate::gate::{cut, on_compute, on_instance, privileged};
use crate::opaque::{Compute, Device, Instance};
use crate::pointer::{Answer, Array, Out};
use crate::slices::{
    ComputeInfo, ComputeProfile1, ComputeProfile2, ComputeProfile3, Slices, profile_of,
};
use crate::structs::version;

/// `NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED`: the only one there is.
const SHARED: u32 = 0;

type Profiles = (ComputeProfile, &'static GpuProfile);

/// By the constant of nvml.h.
fn by_index(gpu: &Gpu, own: &GpuInstance, index: u32, engines: u32) -> Result<Profiles, Code> {
    if index >= compute::INDICES || engines != SHARED {
        return Err(Code::INVALID_ARGUMENT);
    }
    by_id(gpu, own, index).map_err(|_| Code::NOT_SUPPORTED)
}

/// By the driver's id.
fn by_id(gpu: &Gpu, own: &GpuInstance, id: u32) -> Result<Profiles, Code> {
    let within = profile_of(gpu, own).ok_or(Code::UNKNOWN)?;
    compute::by_id(gpu, within, id).map(|found| (found, within)).ok_or(Code::INVALID_ARGUMENT)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
    instance: Instance,
    index: u32,
    engines: u32,
    info: Out<ComputeProfile1>,
) -> u32 {
    on_instance("nvmlGpuInstanceGetComputeInstanceProfileInfo", instance, |gpu, own| {
        let (profile, within) = by_index(gpu, own, index, engines)?;
        info.put(ComputeProfile1::of(&profile, within))
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceGetComputeInstanceProfileInfoV(
    instance: Instance,
    index: u32,
    engines: u32,
    info: Out<ComputeProfile2>,
) -> u32 {
    on_instance("nvmlGpuInstanceGetComputeInstanceProfileInfoV", instance, |gpu, own| {
        let (profile, within) = by_index(gpu, own, index, engines)?;
        let asked = info.version()?;
        if asked == version::<ComputeProfile2>(2) {
            info.put(ComputeProfile2::of(&profile, within))
        } else if asked == version::<ComputeProfile3>(3) {
            info.cast::<ComputeProfile3>().put(ComputeProfile3::of(&profile, within))
        } else {
            Err(Code::ARGUMENT_VERSION_MISMATCH)
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceGetComputeInstanceRemainingCapacity(
    instance: Instance,
    id: u32,
    count: Out<u32>,
) -> u32 {
    on_instance("nvmlGpuInstanceGetComputeInstanceRemainingCapacity", instance, |gpu, own| {
        count.put(own.remaining(&by_id(gpu, own, id)?.0))
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceGetComputeInstancePossiblePlacements(
    instance: Instance,
    id: u32,
    found: Array<Slices>,
    count: Out<u32>,
) -> u32 {
    on_instance("nvmlGpuInstanceGetComputeInstancePossiblePlacements", instance, |gpu, own| {
        found.tell(by_id(gpu, own, id)?.0.placements().map(Slices::from).collect(), count)
    })
}

fn create(
    name: &str,
    instance: Instance,
    id: u32,
    at: impl FnOnce() -> Result<Option<Placement>, Code>,
    made: Out<Compute>,
) -> u32 {
    on_instance(name, instance, |_, own| {
        made.check()?;
        let (at, (index, _)) = (at()?, instance.read().ok_or(Code::INVALID_ARGUMENT)?);
        let serial = cut(Some(index), |gpu, count| {
            if gpu.instance(own.id).is_none_or(|now| now.serial != own.serial) {
                return Err(Code::NOT_FOUND);
            }
            gpu.create_compute(count, own.id, id, at)?;
            Ok(*count)
        })?;
        made.put(Compute::of(index, serial))
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceCreateComputeInstance(
    instance: Instance,
    id: u32,
    made: Out<Compute>,
) -> u32 {
    create("nvmlGpuInstanceCreateComputeInstance", instance, id, || Ok(None), made)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceCreateComputeInstanceWithPlacement(
    instance: Instance,
    id: u32,
    at: Out<Slices>,
    made: Out<Compute>,
) -> u32 {
    let at = || Ok(Some(at.get()?.into()));
    create("nvmlGpuInstanceCreateComputeInstanceWithPlacement", instance, id, at, made)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlComputeInstanceDestroy(compute: Compute) -> u32 {
    on_compute("nvmlComputeInstanceDestroy", compute, |mig| {
        let (instance, id, serial) = (mig.instance.id, mig.compute.id, mig.compute.serial);
        cut(compute.read().map(|(gpu, _)| gpu), |gpu, _| {
            // Another process may have been faster, and the ids are somebody else's by now.
            let same = gpu.mig_devices().any(|now| now.compute.serial == serial);
            if same { gpu.destroy_compute(instance, id) } else { Err(Code::NOT_FOUND) }
        })
    })
}

/// The caller has room for as many as the profile allows.
#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceGetComputeInstances(
    instance: Instance,
    id: u32,
    found: Array<Compute>,
    count: Out<u32>,
) -> u32 {
    on_instance("nvmlGpuInstanceGetComputeInstances", instance, |gpu, own| {
        privileged()?;
        let (profile, _) = by_id(gpu, own, id)?;
        let (index, _) = instance.read().ok_or(Code::INVALID_ARGUMENT)?;
        let all = own.compute.iter().filter(|compute| compute.profile == profile.id);
        found.tell(all.map(|compute| Compute::of(index, compute.serial)).collect(), count)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceGetComputeInstanceById(
    instance: Instance,
    id: u32,
    found: Out<Compute>,
) -> u32 {
    on_instance("nvmlGpuInstanceGetComputeInstanceById", instance, |_, own| {
        privileged()?;
        let compute = own.compute.iter().find(|compute| compute.id == id);
        let (index, _) = instance.read().ok_or(Code::INVALID_ARGUMENT)?;
        found.put(Compute::of(index, compute.ok_or(Code::NOT_FOUND)?.serial))
    })
}

fn told(compute: Compute, info: Out<ComputeInfo>, device: Device, mig: MigDevice<'_>) -> Answer {
    let (gpu, _) = compute.read().ok_or(Code::INVALID_ARGUMENT)?;
    info.put(ComputeInfo::of(device, gpu, mig))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlComputeInstanceGetInfo(compute: Compute, info: Out<ComputeInfo>) -> u32 {
    on_compute("nvmlComputeInstanceGetInfo", compute, |mig| {
        let (gpu, _) = compute.read().ok_or(Code::INVALID_ARGUMENT)?;
        told(compute, info, Device::at(gpu), mig)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlComputeInstanceGetInfo_v2(compute: Compute, info: Out<ComputeInfo>) -> u32 {
    on_compute("nvmlComputeInstanceGetInfo_v2", compute, |mig| {
        let (gpu, serial) = compute.read().ok_or(Code::INVALID_ARGUMENT)?;
        told(compute, info, Device::mig(gpu, serial), mig)
    })
}

//! GPU instances: their profiles, where they can be, and making, finding and ending them.

use simnode::code::Code;
use simnode::mig::profile::{self, GpuProfile};
use simnode::mig::{Placement, place};
use simnode::state::Gpu;

use crate::gate::{cut, on_gpu, on_instance, privileged};
use crate::opaque::{Device, Instance};
use crate::pointer::{Answer, Array, Out};
use crate::slices::{GpuInfo, GpuProfile1, GpuProfile2, GpuProfile3, Slices};
use crate::structs::version;

/// By the constant of nvml.h. Profiles can be asked for whatever the mode is.
fn by_index(gpu: &Gpu, index: u32) -> Result<&'static GpuProfile, Code> {
    if gpu.mig.is_none() {
        return Err(Code::NOT_SUPPORTED);
    }
    if index >= profile::INDICES {
        return Err(Code::INVALID_ARGUMENT);
    }
    profile::by_index(gpu.gpu_profiles(), index).ok_or(Code::NOT_SUPPORTED)
}

/// By the driver's id.
fn by_id(gpu: &Gpu, id: u32) -> Result<&'static GpuProfile, Code> {
    if gpu.mig.is_none() {
        return Err(Code::NOT_SUPPORTED);
    }
    profile::by_id(gpu.gpu_profiles(), id).ok_or(Code::INVALID_ARGUMENT)
}

fn cuttable(gpu: &Gpu) -> Answer {
    if gpu.in_mig_mode() { Ok(()) } else { Err(Code::NOT_SUPPORTED) }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuInstanceProfileInfo(
    device: Device,
    index: u32,
    info: Out<GpuProfile1>,
) -> u32 {
    on_gpu("nvmlDeviceGetGpuInstanceProfileInfo", device, |gpu, _| {
        info.put(by_index(gpu, index)?.into())
    })
}

fn versioned(profile: &GpuProfile, info: Out<GpuProfile2>) -> Answer {
    let asked = info.version()?;
    if asked == version::<GpuProfile2>(2) {
        info.put(profile.into())
    } else if asked == version::<GpuProfile3>(3) {
        info.cast::<GpuProfile3>().put(profile.into())
    } else {
        Err(Code::ARGUMENT_VERSION_MISMATCH)
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuInstanceProfileInfoV(
    device: Device,
    index: u32,
    info: Out<GpuProfile2>,
) -> u32 {
    on_gpu("nvmlDeviceGetGpuInstanceProfileInfoV", device, |gpu, _| {
        versioned(by_index(gpu, index)?, info)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuInstanceProfileInfoByIdV(
    device: Device,
    id: u32,
    info: Out<GpuProfile2>,
) -> u32 {
    on_gpu("nvmlDeviceGetGpuInstanceProfileInfoByIdV", device, |gpu, _| {
        versioned(by_id(gpu, id)?, info)
    })
}

fn placements(name: &str, device: Device, id: u32, found: Array<Slices>, count: Out<u32>) -> u32 {
    on_gpu(name, device, |gpu, _| {
        found.tell(by_id(gpu, id)?.placements().map(Slices::from).collect(), count)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuInstancePossiblePlacements(
    device: Device,
    id: u32,
    found: Array<Slices>,
    count: Out<u32>,
) -> u32 {
    placements("nvmlDeviceGetGpuInstancePossiblePlacements", device, id, found, count)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
    device: Device,
    id: u32,
    found: Array<Slices>,
    count: Out<u32>,
) -> u32 {
    placements("nvmlDeviceGetGpuInstancePossiblePlacements_v2", device, id, found, count)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuInstanceRemainingCapacity(
    device: Device,
    id: u32,
    count: Out<u32>,
) -> u32 {
    on_gpu("nvmlDeviceGetGpuInstanceRemainingCapacity", device, |gpu, _| {
        cuttable(gpu)?;
        count.put(place::remaining(gpu, by_id(gpu, id)?))
    })
}

fn create(
    name: &str,
    device: Device,
    id: u32,
    at: impl FnOnce() -> Result<Option<Placement>, Code>,
    made: Out<Instance>,
) -> u32 {
    on_gpu(name, device, |_, _| {
        made.check()?;
        let at = at()?;
        let serial = cut(device.index(), |gpu, count| {
            gpu.create_instance(count, id, at)?;
            Ok(*count)
        })?;
        made.put(Instance::of(device.index().ok_or(Code::INVALID_ARGUMENT)?, serial))
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceCreateGpuInstance(device: Device, id: u32, made: Out<Instance>) -> u32 {
    create("nvmlDeviceCreateGpuInstance", device, id, || Ok(None), made)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceCreateGpuInstanceWithPlacement(
    device: Device,
    id: u32,
    at: Out<Slices>,
    made: Out<Instance>,
) -> u32 {
    let at = || Ok(Some(at.get()?.into()));
    create("nvmlDeviceCreateGpuInstanceWithPlacement", device, id, at, made)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceDestroy(instance: Instance) -> u32 {
    on_instance("nvmlGpuInstanceDestroy", instance, |_, found| {
        cut(instance.read().map(|(gpu, _)| gpu), |gpu, _| {
            // Another process may have been faster, and the id is somebody else's by now.
            let same = gpu.instance(found.id).is_some_and(|now| now.serial == found.serial);
            if same { gpu.destroy_instance(found.id) } else { Err(Code::NOT_FOUND) }
        })
    })
}

/// The caller has room for as many as the profile allows.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuInstances(
    device: Device,
    id: u32,
    found: Array<Instance>,
    count: Out<u32>,
) -> u32 {
    on_gpu("nvmlDeviceGetGpuInstances", device, |gpu, _| {
        privileged()?;
        cuttable(gpu)?;
        let (profile, index) = (by_id(gpu, id)?, device.index().ok_or(Code::INVALID_ARGUMENT)?);
        let own = gpu.instances.iter().filter(|instance| instance.profile == profile.id);
        found.tell(own.map(|instance| Instance::of(index, instance.serial)).collect(), count)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuInstanceById(device: Device, id: u32, found: Out<Instance>) -> u32 {
    on_gpu("nvmlDeviceGetGpuInstanceById", device, |gpu, _| {
        privileged()?;
        cuttable(gpu)?;
        let instance = gpu.instance(id).ok_or(Code::NOT_FOUND)?;
        found.put(Instance::of(device.index().ok_or(Code::INVALID_ARGUMENT)?, instance.serial))
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlGpuInstanceGetInfo(instance: Instance, info: Out<GpuInfo>) -> u32 {
    on_instance("nvmlGpuInstanceGetInfo", instance, |_, found| {
        let (gpu, _) = instance.read().ok_or(Code::INVALID_ARGUMENT)?;
        info.put(GpuInfo::of(gpu, found))
    })
}

//! MIG: the mode can be seen. Instances cannot be made yet, and there are none.

use std::ffi::c_void;

use simnode::code::Code;

use crate::gate::on_gpu;
use crate::pointer::{Device, Out};

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMigMode(device: Device, current: Out<u32>, pending: Out<u32>) -> u32 {
    on_gpu("nvmlDeviceGetMigMode", device, |gpu, _| {
        let mode = gpu.mig.ok_or(Code::NOT_SUPPORTED)?;
        current.put(mode.current.into())?;
        pending.put(mode.pending.into())
    })
}

values! {
    nvmlDeviceIsMigDeviceHandle: u32 = |_, _| 0;
    nvmlDeviceGetMaxMigDeviceCount: u32 = |gpu, _| match gpu.mig {
        None => 0,
        Some(_) if gpu.model == simnode::model::A30.name => 4,
        Some(_) => 7,
    };
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: Device,
    _index: u32,
    _instance: Out<Device>,
) -> u32 {
    on_gpu("nvmlDeviceGetMigDeviceHandleByIndex", device, |gpu, _| match gpu.mig {
        Some(mode) if mode.current => Err(Code::NOT_FOUND),
        _ => Err(Code::NOT_SUPPORTED),
    })
}

/// A handle that is no instance's has no GPU behind it.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    device: Device,
    _parent: Out<Device>,
) -> u32 {
    on_gpu("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", device, |_, _| {
        Err(Code::INVALID_ARGUMENT)
    })
}

unsupported! {
    nvmlDeviceSetMigMode(mode: u32, status: Out<u32>);
    nvmlDeviceGetGpuInstanceId(id: Out<u32>);
    nvmlDeviceGetComputeInstanceId(id: Out<u32>);
    nvmlDeviceGetAttributes_v2(attributes: Out<c_void>);
    nvmlDeviceGetGpuInstanceProfileInfo(profile: u32, info: Out<c_void>);
    nvmlDeviceGetGpuInstanceProfileInfoV(profile: u32, info: Out<c_void>);
    nvmlDeviceGetGpuInstancePossiblePlacements_v2(profile: u32, placements: Out<c_void>, count: Out<u32>);
    nvmlDeviceGetGpuInstanceRemainingCapacity(profile: u32, count: Out<u32>);
    nvmlDeviceGetGpuInstances(profile: u32, instances: Out<c_void>, count: Out<u32>);
    nvmlDeviceGetGpuInstanceById(id: u32, instance: Out<c_void>);
    nvmlDeviceCreateGpuInstance(profile: u32, instance: Out<c_void>);
    nvmlDeviceCreateGpuInstanceWithPlacement(profile: u32, placement: Out<c_void>, instance: Out<c_void>);
}

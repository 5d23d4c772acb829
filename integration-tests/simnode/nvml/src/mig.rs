//! MIG mode, and MIG devices: what they are called, found by, and made of.

use simnode::State;
use simnode::code::Code;
use simnode::mig::{MigDevice, compute};
use simnode::state::Gpu;

use crate::gate::{cut, on_device, on_gpu};
use crate::opaque::Device;
use crate::pointer::{Answer, Out};
use crate::slices::{Attributes, profile_of};

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMigMode(device: Device, current: Out<u32>, pending: Out<u32>) -> u32 {
    on_gpu("nvmlDeviceGetMigMode", device, |gpu, _| {
        let mode = gpu.mig.ok_or(Code::NOT_SUPPORTED)?;
        current.put(mode.current.into())?;
        pending.put(mode.pending.into())
    })
}

/// The call can succeed while the mode is not in force: then `status` says why not.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceSetMigMode(device: Device, mode: u32, status: Out<u32>) -> u32 {
    on_gpu("nvmlDeviceSetMigMode", device, |_, _| {
        status.check()?;
        let on = match mode {
            0 => false,
            1 => true,
            _ => return Err(Code::INVALID_ARGUMENT),
        };
        let activation = cut(device.index(), |gpu, _| gpu.set_mig_mode(on))?;
        status.put(activation.map_or(0, Code::number))
    })
}

values! {
    nvmlDeviceGetMaxMigDeviceCount: u32 = |gpu, _| most(gpu);
}

fn most(gpu: &Gpu) -> u32 {
    gpu.gpu_profiles().iter().map(|profile| profile.max).max().unwrap_or(0)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceIsMigDeviceHandle(device: Device, is: Out<u32>) -> u32 {
    on_device("nvmlDeviceIsMigDeviceHandle", device, |_, mig, _| is.put(mig.is_some().into()))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: Device,
    index: u32,
    instance: Out<Device>,
) -> u32 {
    on_gpu("nvmlDeviceGetMigDeviceHandleByIndex", device, |gpu, state| {
        if !gpu.in_mig_mode() {
            return Err(Code::NOT_SUPPORTED);
        }
        if index >= most(gpu) {
            return Err(Code::INVALID_ARGUMENT);
        }
        let found = gpu.mig_devices().nth(index as usize).ok_or(Code::NOT_FOUND)?;
        instance.put(Device::mig(place(gpu, state)?, found.compute.serial))
    })
}

/// The index of a GPU of the state.
fn place(gpu: &Gpu, state: &State) -> Result<usize, Code> {
    state.gpus.iter().position(|other| other.uuid == gpu.uuid).ok_or(Code::UNKNOWN)
}

/// A handle that is no MIG device's has no GPU behind it.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    device: Device,
    parent: Out<Device>,
) -> u32 {
    on_mig("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", device, |mig, state| {
        parent.put(Device::at(place(mig.gpu, state)?))
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGpuInstanceId(device: Device, id: Out<u32>) -> u32 {
    on_mig("nvmlDeviceGetGpuInstanceId", device, |mig, _| id.put(mig.instance.id))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetComputeInstanceId(device: Device, id: Out<u32>) -> u32 {
    on_mig("nvmlDeviceGetComputeInstanceId", device, |mig, _| id.put(mig.compute.id))
}

/// One call of `function` for a MIG device.
fn on_mig(
    function: &str,
    device: Device,
    call: impl FnOnce(MigDevice<'_>, &State) -> Answer,
) -> u32 {
    on_device(function, device, |_, mig, state| call(mig.ok_or(Code::INVALID_ARGUMENT)?, state))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetAttributes(device: Device, attributes: Out<Attributes>) -> u32 {
    describe("nvmlDeviceGetAttributes", device, attributes)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetAttributes_v2(device: Device, attributes: Out<Attributes>) -> u32 {
    describe("nvmlDeviceGetAttributes_v2", device, attributes)
}

fn describe(name: &str, device: Device, attributes: Out<Attributes>) -> u32 {
    on_device(name, device, |gpu, mig, _| {
        let mig = mig.ok_or(Code::NOT_SUPPORTED)?;
        let within = profile_of(gpu, mig.instance).ok_or(Code::UNKNOWN)?;
        let own = compute::by_id(gpu, within, mig.compute.profile).ok_or(Code::UNKNOWN)?;
        attributes.put(Attributes::of(&own, within))
    })
}

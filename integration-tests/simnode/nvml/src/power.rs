//! Power, temperature, and the modes that an operator can set.

use simnode::code::Code;
use simnode::state::Gpu;

use crate::gate::{change_gpu, on_gpu};
use crate::opaque::Device;
use crate::pointer::Out;

values! {
    nvmlDeviceGetPowerUsage: u32 = |gpu, _| usage(gpu);
    nvmlDeviceGetPowerManagementLimit: u32 = |gpu, _| gpu.model().watts * 1000;
    nvmlDeviceGetPowerManagementDefaultLimit: u32 = |gpu, _| gpu.model().watts * 1000;
    nvmlDeviceGetEnforcedPowerLimit: u32 = |gpu, _| gpu.model().watts * 1000;
    nvmlDeviceGetPowerManagementMode: u32 = |_, _| 1;
    nvmlDeviceGetTotalEnergyConsumption: u64 = |gpu, _| u64::from(usage(gpu)) * 3600;
    nvmlDeviceGetPersistenceMode: u32 = |gpu, _| gpu.persistence.into();
    nvmlDeviceGetComputeMode: u32 = |gpu, _| gpu.compute_mode;
    nvmlDeviceGetDisplayMode: u32 = |_, _| 0;
    nvmlDeviceGetDisplayActive: u32 = |_, _| 0;
    nvmlDeviceGetVirtualizationMode: u32 = |_, _| 0;
    nvmlDeviceGetAccountingMode: u32 = |_, _| 0;
}

unsupported! {
    nvmlDeviceGetFanSpeed(speed: Out<u32>);
    nvmlDeviceGetFanSpeed_v2(fan: u32, speed: Out<u32>);
    nvmlDeviceGetDriverModel(current: Out<u32>, pending: Out<u32>);
    nvmlDeviceGetDriverModel_v2(current: Out<u32>, pending: Out<u32>);
}

/// Milliwatts: a sixth of the limit idle, all of it at full load.
fn usage(gpu: &Gpu) -> u32 {
    let limit = gpu.model().watts * 1000;
    limit / 6 + limit * 5 / 6 * gpu.utilisation.0 / 100
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetPowerManagementLimitConstraints(
    device: Device,
    least: Out<u32>,
    most: Out<u32>,
) -> u32 {
    on_gpu("nvmlDeviceGetPowerManagementLimitConstraints", device, |gpu, _| {
        least.put(gpu.model().watts * 1000 / 3)?;
        most.put(gpu.model().watts * 1000)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTemperature(device: Device, sensor: u32, degrees: Out<u32>) -> u32 {
    on_gpu("nvmlDeviceGetTemperature", device, |gpu, _| match sensor {
        0 => degrees.put(gpu.temperature),
        _ => Err(Code::INVALID_ARGUMENT),
    })
}

/// Shutdown, slowdown, memory's highest, the GPU's highest.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTemperatureThreshold(
    device: Device,
    kind: u32,
    degrees: Out<u32>,
) -> u32 {
    on_gpu("nvmlDeviceGetTemperatureThreshold", device, |_, _| match kind {
        0 => degrees.put(92),
        1 => degrees.put(89),
        2 => degrees.put(95),
        3 => degrees.put(87),
        4..=7 => Err(Code::NOT_SUPPORTED),
        _ => Err(Code::INVALID_ARGUMENT),
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetEccMode(device: Device, current: Out<u32>, pending: Out<u32>) -> u32 {
    on_gpu("nvmlDeviceGetEccMode", device, |_, _| {
        current.put(1)?;
        pending.put(1)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceSetPersistenceMode(device: Device, mode: u32) -> u32 {
    change_gpu("nvmlDeviceSetPersistenceMode", device, |gpu| match mode {
        0 | 1 => {
            gpu.persistence = mode == 1;
            Ok(())
        }
        _ => Err(Code::INVALID_ARGUMENT),
    })
}

/// Default, (exclusive thread, gone,) prohibited, exclusive process.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceSetComputeMode(device: Device, mode: u32) -> u32 {
    change_gpu("nvmlDeviceSetComputeMode", device, |gpu| match mode {
        0 | 2 | 3 => {
            gpu.compute_mode = mode;
            Ok(())
        }
        1 => Err(Code::NOT_SUPPORTED),
        _ => Err(Code::INVALID_ARGUMENT),
    })
}

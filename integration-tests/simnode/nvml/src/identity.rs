//! What a GPU is: names, numbers, capabilities that never change.

use simnode::State;
use simnode::code::Code;
use simnode::state::Gpu;

use crate::gate::{on_device, on_gpu};
use crate::opaque::Device;
use crate::pointer::{Out, Text};

/// `NVML_BRAND_NVIDIA`: what drivers since R460 say of every data-centre card.
const BRAND: u32 = 14;

texts! {
    nvmlDeviceGetSerial = |gpu| &gpu.serial;
    nvmlDeviceGetVbiosVersion = |gpu| gpu.model().vbios;
    nvmlDeviceGetBoardPartNumber = |gpu| gpu.model().part;
    nvmlDeviceGetInforomImageVersion = |_gpu| "G520.0200.00.05";
}

values! {
    nvmlDeviceGetMinorNumber: u32 = |gpu, _| gpu.minor;
    nvmlDeviceGetBrand: u32 = |_, _| BRAND;
    nvmlDeviceGetArchitecture: u32 = |gpu, _| gpu.model().architecture;
    nvmlDeviceGetBoardId: u32 = |gpu, _| board(gpu);
    nvmlDeviceGetMultiGpuBoard: u32 = |_, _| 0;
    nvmlDeviceGetNumGpuCores: u32 = |gpu, _| gpu.model().cores;
    nvmlDeviceGetMemoryBusWidth: u32 = |gpu, _| gpu.model().bus_width;
    nvmlDeviceGetNumFans: u32 = |gpu, _| gpu.model().fans;
    nvmlDeviceGetModuleId: u32 = |gpu, state| 1 + index(gpu, state);
}

/// A MIG device's is that of its GPU, and what it is of it.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetName(device: Device, text: Text, length: u32) -> u32 {
    on_device("nvmlDeviceGetName", device, |gpu, mig, _| match mig {
        Some(mig) => text.put(&format!("{} MIG {}", gpu.model, mig.profile_name()), length),
        None => text.put(&gpu.model, length),
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetUUID(device: Device, text: Text, length: u32) -> u32 {
    on_device("nvmlDeviceGetUUID", device, |gpu, mig, _| {
        text.put(mig.map_or(&gpu.uuid, |mig| &mig.compute.uuid), length)
    })
}

/// A MIG device's counts within its GPU.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetIndex(device: Device, value: Out<u32>) -> u32 {
    on_device("nvmlDeviceGetIndex", device, |gpu, mig, state| {
        let place = |serial| gpu.mig_devices().position(|other| other.compute.serial == serial);
        let index = match mig.map(|mig| place(mig.compute.serial)) {
            Some(place) => place.and_then(|place| u32::try_from(place).ok()),
            None => Some(index(gpu, state)),
        };
        value.put(index.ok_or(Code::UNKNOWN)?)
    })
}

fn index(gpu: &Gpu, state: &State) -> u32 {
    let found = state.gpus.iter().position(|other| other.uuid == gpu.uuid);
    found.and_then(|index| u32::try_from(index).ok()).unwrap_or(u32::MAX)
}

/// Every GPU here is a board of its own.
fn board(gpu: &Gpu) -> u32 {
    let address = gpu.route.device;
    address.domain << 16 | u32::from(address.bus) << 8 | u32::from(address.device)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: Device,
    major: Out<i32>,
    minor: Out<i32>,
) -> u32 {
    on_device("nvmlDeviceGetCudaComputeCapability", device, |gpu, _, _| {
        major.put(gpu.model().compute.0)?;
        minor.put(gpu.model().compute.1)
    })
}

/// Only where GPUs are NUMA nodes, as beside Grace.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNumaNodeId(device: Device, node: Out<u32>) -> u32 {
    on_gpu("nvmlDeviceGetNumaNodeId", device, |gpu, _| {
        node.put(gpu.memory_node.ok_or(Code::NOT_SUPPORTED)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGspFirmwareMode(
    device: Device,
    enabled: Out<u32>,
    default: Out<u32>,
) -> u32 {
    on_gpu("nvmlDeviceGetGspFirmwareMode", device, |_, _| {
        enabled.put(1)?;
        default.put(1)
    })
}

/// The caller's buffer is of a fixed size: `NVML_GSP_FIRMWARE_VERSION_BUF_SIZE`.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetGspFirmwareVersion(device: Device, text: Text) -> u32 {
    on_gpu("nvmlDeviceGetGspFirmwareVersion", device, |_, state| {
        let version = state.driver.as_ref().map_or("", |driver| driver.version.as_str());
        text.put(version, 64)
    })
}

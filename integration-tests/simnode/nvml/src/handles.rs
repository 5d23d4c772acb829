//! How many GPUs there are, and their handles: by index, UUID, PCI address, serial number.

use simnode::State;
use simnode::code::Code;
use simnode::pci::PciAddress;
use simnode::state::Gpu;

use crate::gate::on_node;
use crate::opaque::Device;
use crate::pointer::{Answer, Given, Out};

fn number(state: &State) -> u32 {
    u32::try_from(state.gpus.len()).unwrap_or(u32::MAX)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCount(count: Out<u32>) -> u32 {
    on_node("nvmlDeviceGetCount", |state, _| count.put(number(state)))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCount_v2(count: Out<u32>) -> u32 {
    on_node("nvmlDeviceGetCount_v2", |state, _| count.put(number(state)))
}

fn by_index(state: &State, index: u32, device: Out<Device>) -> Answer {
    let gpu = state.gpus.get(index as usize).ok_or(Code::INVALID_ARGUMENT)?;
    hand_out(gpu, index as usize, device)
}

fn by(state: &State, device: Out<Device>, is: impl Fn(&Gpu) -> bool) -> Answer {
    let found = state.gpus.iter().enumerate().find(|(_, gpu)| is(gpu));
    let (index, gpu) = found.ok_or(Code::NOT_FOUND)?;
    hand_out(gpu, index, device)
}

fn hand_out(gpu: &Gpu, index: usize, device: Out<Device>) -> Answer {
    if gpu.lost { Err(Code::GPU_IS_LOST) } else { device.put(Device::at(index)) }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByIndex(index: u32, device: Out<Device>) -> u32 {
    on_node("nvmlDeviceGetHandleByIndex", |state, _| by_index(state, index, device))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: u32, device: Out<Device>) -> u32 {
    on_node("nvmlDeviceGetHandleByIndex_v2", |state, _| by_index(state, index, device))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByUUID(uuid: Given, device: Out<Device>) -> u32 {
    on_node("nvmlDeviceGetHandleByUUID", |state, _| {
        let uuid = uuid.get()?;
        let own = |gpu: &Gpu| {
            gpu.mig_devices().find(|mig| mig.compute.uuid == uuid).map(|mig| mig.compute.serial)
        };
        let mut gpus = state.gpus.iter().enumerate();
        match gpus.find_map(|(index, gpu)| own(gpu).map(|serial| (index, gpu, serial))) {
            Some((_, gpu, _)) if gpu.lost => Err(Code::GPU_IS_LOST),
            Some((index, _, serial)) => device.put(Device::mig(index, serial)),
            None => by(state, device, |gpu| gpu.uuid == uuid),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleBySerial(serial: Given, device: Out<Device>) -> u32 {
    on_node("nvmlDeviceGetHandleBySerial", |state, _| {
        let serial = serial.get()?;
        by(state, device, |gpu| gpu.serial == serial)
    })
}

fn by_address(state: &State, address: &Given, device: Out<Device>) -> Answer {
    let address: PciAddress = address.get()?.parse().map_err(|_| Code::INVALID_ARGUMENT)?;
    by(state, device, |gpu| gpu.route.device == address)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByPciBusId(address: Given, device: Out<Device>) -> u32 {
    on_node("nvmlDeviceGetHandleByPciBusId", |state, _| by_address(state, &address, device))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(address: Given, device: Out<Device>) -> u32 {
    on_node("nvmlDeviceGetHandleByPciBusId_v2", |state, _| by_address(state, &address, device))
}

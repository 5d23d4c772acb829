//! How close GPUs are to each other: on the bus, on a board, by NVLink.

use simnode::code::Code;

use crate::gate::{on_gpu, on_pair};
use crate::opaque::Device;
use crate::pointer::{Answer, Array, Out};

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTopologyCommonAncestor(
    one: Device,
    other: Device,
    level: Out<u32>,
) -> u32 {
    on_pair("nvmlDeviceGetTopologyCommonAncestor", (one, other), |one, other| {
        level.put(one.ancestor(other) as u32)
    })
}

/// The GPUs at just this level.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTopologyNearestGpus(
    device: Device,
    level: u32,
    count: Out<u32>,
    devices: Array<Device>,
) -> u32 {
    on_gpu("nvmlDeviceGetTopologyNearestGpus", device, |gpu, state| {
        let others = state.gpus.iter().enumerate().filter(|(_, other)| other.uuid != gpu.uuid);
        let near = others.filter(|(_, other)| gpu.ancestor(other) as u32 == level);
        counted(near.map(|(index, _)| Device::at(index)).collect(), count, devices)
    })
}

/// A list where no array means: only the number is wanted.
pub fn counted(found: Vec<Device>, count: Out<u32>, devices: Array<Device>) -> Answer {
    if devices.is_null() {
        return count.put(u32::try_from(found.len()).unwrap_or(u32::MAX));
    }
    devices.put(found, count)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceOnSameBoard(one: Device, other: Device, same: Out<i32>) -> u32 {
    on_pair("nvmlDeviceOnSameBoard", (one, other), |one, other| {
        same.put(i32::from(one.uuid == other.uuid))
    })
}

const P2P_OK: u32 = 0;
const P2P_CHIPSET_NOT_SUPPORTED: u32 = 1;
const P2P_NOT_SUPPORTED: u32 = 5;

/// Kinds of traffic: read, write, NVLink, atomics, PCI.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetP2PStatus(
    one: Device,
    other: Device,
    kind: u32,
    status: Out<u32>,
) -> u32 {
    on_pair("nvmlDeviceGetP2PStatus", (one, other), |one, other| {
        let linked = one.links_to(other) > 0;
        let near = one.ancestor(other) <= simnode::pci::Ancestor::HostBridge;
        status.put(match kind {
            2 if linked => P2P_OK,
            2 => P2P_NOT_SUPPORTED,
            0 | 1 | 3 if linked => P2P_OK,
            0 | 1 | 4 if near => P2P_OK,
            0 | 1 | 3 | 4 => P2P_CHIPSET_NOT_SUPPORTED,
            _ => return Err(Code::INVALID_ARGUMENT),
        })
    })
}

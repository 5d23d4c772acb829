//! NVLinks: whether each is up, and where it leads.

use simnode::code::Code;
use simnode::state::{Gpu, Link};

use crate::gate::on_gpu;
use crate::opaque::Device;
use crate::pointer::Out;
use crate::structs::PciInfo;

const TO_GPU: u32 = 0;
const TO_SWITCH: u32 = 2;

fn link(gpu: &Gpu, number: u32) -> Result<Link, Code> {
    if gpu.links.is_empty() {
        return Err(Code::NOT_SUPPORTED);
    }
    gpu.links.get(number as usize).copied().ok_or(Code::INVALID_ARGUMENT)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNvLinkState(device: Device, number: u32, active: Out<u32>) -> u32 {
    on_gpu("nvmlDeviceGetNvLinkState", device, |gpu, _| {
        active.put(u32::from(link(gpu, number)? != Link::Down))
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNvLinkVersion(device: Device, number: u32, version: Out<u32>) -> u32 {
    on_gpu("nvmlDeviceGetNvLinkVersion", device, |gpu, _| {
        link(gpu, number)?;
        version.put(gpu.model().nvlinks.1)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNvLinkRemoteDeviceType(
    device: Device,
    number: u32,
    kind: Out<u32>,
) -> u32 {
    on_gpu("nvmlDeviceGetNvLinkRemoteDeviceType", device, |gpu, _| match link(gpu, number)? {
        Link::Gpu(_) => kind.put(TO_GPU),
        Link::Switch(_) => kind.put(TO_SWITCH),
        Link::Down => Err(Code::NOT_SUPPORTED),
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: Device,
    number: u32,
    info: Out<PciInfo>,
) -> u32 {
    on_gpu("nvmlDeviceGetNvLinkRemotePciInfo_v2", device, |gpu, state| {
        let address = match link(gpu, number)? {
            Link::Gpu(address) | Link::Switch(Some(address)) => address,
            // A switch of the rack is no device of this machine.
            Link::Switch(None) | Link::Down => return Err(Code::NOT_SUPPORTED),
        };
        let other = state.gpus.iter().find(|other| other.route.device == address);
        info.put(other.map_or_else(|| PciInfo::at(address), PciInfo::of))
    })
}

/// Peers, system memory and atomics work wherever a link is up; there is no SLI.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNvLinkCapability(
    device: Device,
    number: u32,
    capability: u32,
    result: Out<u32>,
) -> u32 {
    on_gpu("nvmlDeviceGetNvLinkCapability", device, |gpu, _| {
        let up = link(gpu, number)? != Link::Down;
        match capability {
            4 => result.put(0),
            0..=3 | 5 => result.put(u32::from(up)),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetNvLinkErrorCounter(
    device: Device,
    number: u32,
    counter: u32,
    value: Out<u64>,
) -> u32 {
    on_gpu("nvmlDeviceGetNvLinkErrorCounter", device, |gpu, _| {
        link(gpu, number)?;
        if counter > 4 { Err(Code::INVALID_ARGUMENT) } else { value.put(0) }
    })
}

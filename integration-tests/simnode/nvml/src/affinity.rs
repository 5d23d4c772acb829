//! Which CPUs and memory are next to a GPU, as bit masks.

use std::ffi::c_ulong;

use simnode::State;
use simnode::code::Code;
use simnode::state::Gpu;

use crate::gate::on_gpu;
use crate::opaque::Device;
use crate::pointer::{Answer, Array};

const NODE: u32 = 0;
const SOCKET: u32 = 1;

fn put(numbers: impl Iterator<Item = u32>, words: u32, mask: Array<c_ulong>) -> Answer {
    if words == 0 {
        return Err(Code::INVALID_ARGUMENT);
    }
    let mut bits: Vec<c_ulong> = vec![0; words as usize];
    for number in numbers {
        // What does not fit is left out, as the real one does.
        if let Some(word) = bits.get_mut((number / c_ulong::BITS) as usize) {
            *word |= 1 << (number % c_ulong::BITS);
        }
    }
    mask.fill(bits)
}

fn cpus(gpu: &Gpu, state: &State, scope: u32) -> Result<Vec<u32>, Code> {
    let machine = &state.machine;
    let nodes = machine.nodes_per_socket;
    Ok(match (gpu.node, scope) {
        (None, NODE | SOCKET) => machine.cpus_where(|_| true),
        (Some(node), NODE) => machine.node_cpus(node),
        (Some(node), SOCKET) => machine.cpus_where(|cpu| machine.socket_of(cpu) == node / nodes),
        _ => return Err(Code::INVALID_ARGUMENT),
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCpuAffinity(device: Device, words: u32, mask: Array<c_ulong>) -> u32 {
    on_gpu("nvmlDeviceGetCpuAffinity", device, |gpu, state| {
        put(cpus(gpu, state, NODE)?.into_iter(), words, mask)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCpuAffinityWithinScope(
    device: Device,
    words: u32,
    mask: Array<c_ulong>,
    scope: u32,
) -> u32 {
    on_gpu("nvmlDeviceGetCpuAffinityWithinScope", device, |gpu, state| {
        put(cpus(gpu, state, scope)?.into_iter(), words, mask)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryAffinity(
    device: Device,
    words: u32,
    mask: Array<c_ulong>,
    scope: u32,
) -> u32 {
    on_gpu("nvmlDeviceGetMemoryAffinity", device, |gpu, state| {
        if scope > SOCKET {
            return Err(Code::INVALID_ARGUMENT);
        }
        let all = 0..state.machine.cpu_nodes();
        let near = all.filter(|node| gpu.node.is_none_or(|own| own == *node));
        put(near, words, mask)
    })
}

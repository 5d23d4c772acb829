//! How much memory a GPU has, and how much of it is in use.

use simnode::code::Code;
use simnode::state::Gpu;

use crate::gate::on_gpu;
use crate::pointer::{Device, Out};
use crate::structs::{Bar1, Memory, Memory2, version};

values! {
    nvmlDeviceGetMemoryInfo: Memory = |gpu, _| first(gpu);
    nvmlDeviceGetBAR1MemoryInfo: Bar1 = |gpu, _| bar1(gpu);
}

/// What the driver keeps counts as used in the first version, and by itself in the second.
fn first(gpu: &Gpu) -> Memory {
    let second = second(gpu);
    Memory { total: second.total, free: second.free, used: second.used + second.reserved }
}

fn second(gpu: &Gpu) -> Memory2 {
    let total = gpu.model().memory << 20;
    let reserved = gpu.model().reserved << 20;
    let used = gpu.used().min(total - reserved);
    let version = version::<Memory2>(2);
    Memory2 { version, total, reserved, free: total - reserved - used, used }
}

fn bar1(gpu: &Gpu) -> Bar1 {
    let total = gpu.model().bar1 << 20;
    let used = 2 << 20;
    Bar1 { total, free: total - used, used }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Device, memory: Out<Memory2>) -> u32 {
    on_gpu("nvmlDeviceGetMemoryInfo_v2", device, |gpu, _| {
        if memory.get()?.version != version::<Memory2>(2) {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        memory.put(second(gpu))
    })
}

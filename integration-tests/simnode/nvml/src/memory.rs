//! How much memory a GPU has, and how much of it is in use.

use simnode::code::Code;
use simnode::mig::MigDevice;
use simnode::state::Gpu;

use crate::gate::on_device;
use crate::opaque::Device;
use crate::pointer::Out;
use crate::structs::{Bar1, Memory, Memory2, version};

values! {
    nvmlDeviceGetBAR1MemoryInfo: Bar1 = |gpu, _| bar1(gpu);
}

/// What the driver keeps counts as used in the first version, and by itself in the second.
fn first(gpu: &Gpu, mig: Option<MigDevice<'_>>) -> Memory {
    let second = second(gpu, mig);
    Memory { total: second.total, free: second.free, used: second.used + second.reserved }
}

fn second(gpu: &Gpu, mig: Option<MigDevice<'_>>) -> Memory2 {
    let (total, reserved, used) = match mig {
        Some(mig) => (mig.memory(), 0, mig.used()),
        None => (gpu.model().memory << 20, gpu.model().reserved << 20, gpu.used()),
    };
    let used = used.min(total - reserved);
    let version = version::<Memory2>(2);
    Memory2 { version, total, reserved, free: total - reserved - used, used }
}

fn bar1(gpu: &Gpu) -> Bar1 {
    let total = gpu.model().bar1 << 20;
    let used = 2 << 20;
    Bar1 { total, free: total - used, used }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryInfo(device: Device, memory: Out<Memory>) -> u32 {
    on_device("nvmlDeviceGetMemoryInfo", device, |gpu, mig, _| memory.put(first(gpu, mig)))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Device, memory: Out<Memory2>) -> u32 {
    on_device("nvmlDeviceGetMemoryInfo_v2", device, |gpu, mig, _| {
        if memory.get()?.version != version::<Memory2>(2) {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        memory.put(second(gpu, mig))
    })
}

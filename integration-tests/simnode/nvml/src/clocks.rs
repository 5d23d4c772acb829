//! How fast a GPU runs: at its highest clocks, always.

use simnode::code::Code;
use simnode::state::Gpu;

use crate::gate::on_gpu;
use crate::opaque::Device;
use crate::pointer::{Answer, Out};

values! {
    nvmlDeviceGetPerformanceState: u32 = |_, _| 0;
    nvmlDeviceGetPowerState: u32 = |_, _| 0;
    nvmlDeviceGetCurrentClocksThrottleReasons: u64 = |_, _| 1;
    nvmlDeviceGetCurrentClocksEventReasons: u64 = |_, _| 1;
}

/// Graphics, SM, memory, video.
fn clock(gpu: &Gpu, kind: u32, value: Out<u32>) -> Answer {
    let (sm, memory) = gpu.model().clocks;
    match kind {
        0 | 1 => value.put(sm),
        2 => value.put(memory),
        3 => value.put(sm * 9 / 10),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetClockInfo(device: Device, kind: u32, value: Out<u32>) -> u32 {
    on_gpu("nvmlDeviceGetClockInfo", device, |gpu, _| clock(gpu, kind, value))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMaxClockInfo(device: Device, kind: u32, value: Out<u32>) -> u32 {
    on_gpu("nvmlDeviceGetMaxClockInfo", device, |gpu, _| clock(gpu, kind, value))
}

//! Init and shutdown, what errors are called, and versions.

use std::ffi::c_char;
use std::fs;

use simnode::code::{self, Code};

use crate::gate::{enter, leave, on_node, plain};
use crate::opaque::Device;
use crate::pointer::{Array, Out, Text};

#[unsafe(no_mangle)]
extern "C" fn nvmlInit() -> u32 {
    plain("nvmlInit", None, enter)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> u32 {
    plain("nvmlInit_v2", None, enter)
}

/// The flags say what to do without: GPUs, and attaching them. There is nothing here that could be left out.
#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: u32) -> u32 {
    plain("nvmlInitWithFlags", None, enter)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> u32 {
    plain("nvmlShutdown", None, leave)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(number: u32) -> *const c_char {
    code::text(number).as_ptr().cast()
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetDriverVersion(text: Text, length: u32) -> u32 {
    on_node("nvmlSystemGetDriverVersion", |_, driver| text.put(&driver.version, length))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetNVMLVersion(text: Text, length: u32) -> u32 {
    on_node("nvmlSystemGetNVMLVersion", |_, driver| text.put(&driver.nvml_version(), length))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetCudaDriverVersion(version: Out<i32>) -> u32 {
    on_node("nvmlSystemGetCudaDriverVersion", |_, driver| version.put(driver.cuda))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: Out<i32>) -> u32 {
    on_node("nvmlSystemGetCudaDriverVersion_v2", |_, driver| version.put(driver.cuda))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetProcessName(pid: u32, text: Text, length: u32) -> u32 {
    on_node("nvmlSystemGetProcessName", |_, _| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).map_err(|_| Code::NOT_FOUND)?;
        let name = line.split(|byte| *byte == 0).next().unwrap_or_default();
        text.put(&String::from_utf8_lossy(name), length)
    })
}

/// The GPUs next to a CPU.
#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetTopologyGpuSet(
    cpu: u32,
    count: Out<u32>,
    devices: Array<Device>,
) -> u32 {
    on_node("nvmlSystemGetTopologyGpuSet", |state, _| {
        let machine = &state.machine;
        if cpu >= machine.cpus() {
            return Err(Code::INVALID_ARGUMENT);
        }
        let near = |node: Option<u32>| node.is_none_or(|node| node == machine.node_of(cpu));
        let near = state.gpus.iter().enumerate().filter(|(_, gpu)| near(gpu.node));
        let found: Vec<Device> = near.map(|(index, _)| Device::at(index)).collect();
        crate::topology::counted(found, count, devices)
    })
}

//! Structures of nvml.h, byte for byte.

use std::ffi::c_char;

use simnode::pci::PciAddress;
use simnode::state::{Gpu, Process};

/// What NVML writes where it cannot say.
const NOT_AVAILABLE: u64 = u64::MAX;

/// `nvmlPciInfo_t`, version 3.
#[repr(C)]
pub struct PciInfo {
    bus_id_legacy: [c_char; 16],
    domain: u32,
    bus: u32,
    device: u32,
    device_id: u32,
    subsystem_id: u32,
    bus_id: [c_char; 32],
}

/// `nvmlPciInfo_t` of version 2: the same without the long bus id.
#[repr(C)]
pub struct PciInfo2 {
    bus_id: [c_char; 16],
    domain: u32,
    bus: u32,
    device: u32,
    device_id: u32,
    subsystem_id: u32,
    reserved: [u32; 4],
}

/// Text in a field of fixed size; what does not fit is cut.
pub fn fixed<const SIZE: usize>(text: &str) -> [c_char; SIZE] {
    let mut field = [0; SIZE];
    for (place, byte) in field.iter_mut().take(SIZE - 1).zip(text.bytes()) {
        *place = byte as c_char;
    }
    field
}

impl PciInfo {
    /// That of a GPU.
    pub fn of(gpu: &Gpu) -> Self {
        let model = gpu.model();
        let id = |id: u16| u32::from(id) << 16 | 0x10de;
        let plain = Self::at(gpu.route.device);
        Self { device_id: id(model.device_id), subsystem_id: id(model.subsystem_id), ..plain }
    }

    /// That of a device of which only the address is known.
    pub fn at(address: PciAddress) -> Self {
        Self {
            bus_id_legacy: fixed(&address.to_string().to_uppercase()),
            domain: address.domain,
            bus: address.bus.into(),
            device: address.device.into(),
            device_id: 0,
            subsystem_id: 0,
            bus_id: fixed(&address.long()),
        }
    }
}

impl From<PciInfo> for PciInfo2 {
    fn from(info: PciInfo) -> Self {
        Self {
            bus_id: info.bus_id_legacy,
            domain: info.domain,
            bus: info.bus,
            device: info.device,
            device_id: info.device_id,
            subsystem_id: info.subsystem_id,
            reserved: [0; 4],
        }
    }
}

/// `nvmlMemory_t`, bytes.
#[repr(C)]
pub struct Memory {
    pub total: u64,
    pub free: u64,
    pub used: u64,
}

/// `nvmlMemory_v2_t`, bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Memory2 {
    pub version: u32,
    pub total: u64,
    pub reserved: u64,
    pub free: u64,
    pub used: u64,
}

/// `NVML_STRUCT_VERSION`: the size of a structure, and its version in the highest byte.
pub const fn version<T>(number: u32) -> u32 {
    size_of::<T>() as u32 | number << 24
}

/// `nvmlBAR1Memory_t`, bytes.
#[repr(C)]
pub struct Bar1 {
    pub total: u64,
    pub free: u64,
    pub used: u64,
}

/// `nvmlUtilization_t`, per cent.
#[repr(C)]
pub struct Utilization {
    pub gpu: u32,
    pub memory: u32,
}

/// `nvmlProcessInfo_v1_t`.
#[repr(C)]
pub struct Process1 {
    pid: u32,
    memory: u64,
}

/// `nvmlProcessInfo_v2_t`, which the third version of the functions uses as well.
#[repr(C)]
pub struct Process2 {
    pid: u32,
    memory: u64,
    gpu_instance: u32,
    compute_instance: u32,
}

impl From<&Process> for Process1 {
    fn from(process: &Process) -> Self {
        Self { pid: process.pid, memory: process.memory.unwrap_or(NOT_AVAILABLE) }
    }
}

impl From<&Process> for Process2 {
    fn from(process: &Process) -> Self {
        Self {
            pid: process.pid,
            memory: process.memory.unwrap_or(NOT_AVAILABLE),
            gpu_instance: process.gpu_instance.unwrap_or(u32::MAX),
            compute_instance: process.compute_instance.unwrap_or(u32::MAX),
        }
    }
}

/// `nvmlFieldValue_t`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct FieldValue {
    pub field: u32,
    pub scope: u32,
    pub timestamp: i64,
    pub latency: i64,
    pub kind: u32,
    pub answer: u32,
    pub value: u64,
}

#[cfg(test)]
mod tests {
    use nvml_wrapper_sys::bindings as sys;

    use super::*;

    #[test]
    fn every_structure_has_the_size_and_alignment_of_the_header() {
        alike! {
            PciInfo = sys::nvmlPciInfo_t;
            Memory = sys::nvmlMemory_t;
            Memory2 = sys::nvmlMemory_v2_t;
            Bar1 = sys::nvmlBAR1Memory_t;
            Utilization = sys::nvmlUtilization_t;
            Process1 = sys::nvmlProcessInfo_v1_t;
            Process2 = sys::nvmlProcessInfo_t;
            FieldValue = sys::nvmlFieldValue_t;
        }
    }

    #[test]
    fn text_that_does_not_fit_is_cut_and_still_ends() {
        assert_eq!(fixed::<3>("abc"), [b'a' as c_char, b'b' as c_char, 0]);
    }
}

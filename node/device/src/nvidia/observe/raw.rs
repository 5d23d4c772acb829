//! Calls of NVML that nvml-wrapper 0.13 does not make, or not rightly.
//!
//! Decides nothing.

#![allow(unsafe_code)]

use std::mem;

use nvml_wrapper::Device;
use nvml_wrapper_sys::bindings::nvmlMemory_t;

/// What is at the other end of a link (`nvmlIntNvLinkDeviceType_t`); `None` where NVML does not say. nvml-wrapper's own
/// `remote_device_type` lets NVML write into a temporary and always answers `Unknown`.
pub(super) fn remote_device_type(device: &Device<'_>, link: u32) -> Option<u32> {
    let call = device.nvml().lib().nvmlDeviceGetNvLinkRemoteDeviceType.as_ref().ok()?;
    let mut kind = u32::MAX;
    // SAFETY: (why needed) see above. (why sound) the function comes from the library that gave the device's handle, and both are borrowed
    // over the call; NVML writes one unsigned int through a valid pointer.
    let code = unsafe { call(device.handle(), link, &raw mut kind) };
    (code == 0).then_some(kind)
}

/// All of the device's memory in bytes, as drivers before R510 say it, which nvml-wrapper does not ask any more.
pub(super) fn total_memory(device: &Device<'_>) -> Option<u64> {
    let call = device.nvml().lib().nvmlDeviceGetMemoryInfo.as_ref().ok()?;
    // SAFETY: (why sound) the structure is three integers, for which zero is a value.
    let mut memory: nvmlMemory_t = unsafe { mem::zeroed() };
    // SAFETY: (why needed) see above. (why sound) as in `remote_device_type`; NVML fills the structure that its own header declares.
    let code = unsafe { call(device.handle(), &raw mut memory) };
    (code == 0).then_some(memory.total)
}

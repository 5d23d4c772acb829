//! The library's MIG functions as a C program calls them, errors as bare numbers of nvml.h.

#![allow(dead_code, reason = "each suite takes what it needs")]

use std::ffi::CStr;
use std::ptr;

use nvml_wrapper_sys::bindings as sys;

use simnode::Node;

use super::Lab;

pub type Device = sys::nvmlDevice_t;
pub type Gi = sys::nvmlGpuInstance_t;
pub type Ci = sys::nvmlComputeInstance_t;

pub const INVALID_ARGUMENT: u32 = 2;
pub const NOT_SUPPORTED: u32 = 3;
pub const NOT_FOUND: u32 = 6;
pub const GPU_IS_LOST: u32 = 15;
pub const RESET_REQUIRED: u32 = 16;
pub const IN_USE: u32 = 19;
pub const INSUFFICIENT_RESOURCES: u32 = 23;
pub const VERSION_MISMATCH: u32 = 25;

/// A function's answer: a value, or the number of an error.
pub type Said<T> = Result<T, u32>;

/// The library, initialised.
pub struct Raw(pub sys::NvmlLib);

fn said<T>(number: u32, value: T) -> Said<T> {
    if number == 0 { Ok(value) } else { Err(number) }
}

/// Plain data, all zero.
pub fn zeroed<T: Copy>() -> T {
    // SAFETY: only used for structures of numbers and handles, which may be zero.
    unsafe { std::mem::zeroed() }
}

macro_rules! call {
    ($lib:expr, $name:ident($($argument:expr),*) -> $value:expr) => {{
        // SAFETY: as nvml.h declares it, with places of the right kind, or with the null that the test is about.
        let number = unsafe { $lib.0.$name($($argument),*) };
        said(number, $value)
    }};
}

impl Raw {
    pub fn new(lab: &Lab) -> Self {
        Self::of(&lab.node)
    }

    pub fn of(node: &Node) -> Self {
        // SAFETY: loading it runs no code of its own.
        let lib = unsafe { sys::NvmlLib::new(node.nvml_path().expect("a path")) };
        let raw = Self(lib.expect("it loads"));
        call!(raw, nvmlInit_v2() -> ()).expect("init");
        raw
    }

    pub fn gpu(&self, index: u32) -> Device {
        let mut device = ptr::null_mut();
        call!(self, nvmlDeviceGetHandleByIndex_v2(index, &raw mut device) -> device).expect("a GPU")
    }

    pub fn mode(&self, gpu: Device) -> Said<(u32, u32)> {
        let mut mode = (7, 7);
        call!(self, nvmlDeviceGetMigMode(gpu, &raw mut mode.0, &raw mut mode.1) -> mode)
    }

    /// The activation's status.
    pub fn set_mode(&self, gpu: Device, mode: u32) -> Said<u32> {
        let mut status = 4711;
        call!(self, nvmlDeviceSetMigMode(gpu, mode, &raw mut status) -> status)
    }

    pub fn profile(&self, gpu: Device, index: u32) -> Said<sys::nvmlGpuInstanceProfileInfo_t> {
        let mut info = zeroed();
        call!(self, nvmlDeviceGetGpuInstanceProfileInfo(gpu, index, &raw mut info) -> info)
    }

    pub fn profile_name(&self, gpu: Device, index: u32) -> Said<String> {
        let mut info: sys::nvmlGpuInstanceProfileInfo_v2_t = zeroed();
        info.version = u32::try_from(size_of_val(&info)).expect("small") | 2 << 24;
        call!(self, nvmlDeviceGetGpuInstanceProfileInfoV(gpu, index, &raw mut info) -> text(&info.name))
    }

    pub fn placements(&self, gpu: Device, id: u32) -> Said<Vec<(u32, u32)>> {
        let mut count = 0;
        let none = ptr::null_mut();
        call!(self, nvmlDeviceGetGpuInstancePossiblePlacements_v2(gpu, id, none, &raw mut count) -> ())?;
        let mut found = vec![zeroed::<sys::nvmlGpuInstancePlacement_t>(); count as usize];
        let place = found.as_mut_ptr();
        call!(self, nvmlDeviceGetGpuInstancePossiblePlacements_v2(gpu, id, place, &raw mut count) -> ())?;
        Ok(found.iter().map(|placement| (placement.start, placement.size)).collect())
    }

    pub fn remaining(&self, gpu: Device, id: u32) -> Said<u32> {
        let mut count = 0;
        call!(self, nvmlDeviceGetGpuInstanceRemainingCapacity(gpu, id, &raw mut count) -> count)
    }

    pub fn create(&self, gpu: Device, id: u32) -> Said<Gi> {
        let mut made = ptr::null_mut();
        call!(self, nvmlDeviceCreateGpuInstance(gpu, id, &raw mut made) -> made)
    }

    pub fn create_at(&self, gpu: Device, id: u32, (start, size): (u32, u32)) -> Said<Gi> {
        let at = sys::nvmlGpuInstancePlacement_t { start, size };
        let mut made = ptr::null_mut();
        call!(self, nvmlDeviceCreateGpuInstanceWithPlacement(gpu, id, &raw const at, &raw mut made) -> made)
    }

    pub fn destroy(&self, gi: Gi) -> Said<()> {
        call!(self, nvmlGpuInstanceDestroy(gi) -> ())
    }

    pub fn gis(&self, gpu: Device, id: u32) -> Said<Vec<Gi>> {
        let (mut found, mut count) = ([ptr::null_mut(); 8], 0);
        call!(self, nvmlDeviceGetGpuInstances(gpu, id, found.as_mut_ptr(), &raw mut count) -> ())?;
        Ok(found[..count as usize].to_vec())
    }

    pub fn gi_by_id(&self, gpu: Device, id: u32) -> Said<Gi> {
        let mut found = ptr::null_mut();
        call!(self, nvmlDeviceGetGpuInstanceById(gpu, id, &raw mut found) -> found)
    }

    pub fn gi_info(&self, gi: Gi) -> Said<sys::nvmlGpuInstanceInfo_t> {
        let mut info = zeroed();
        call!(self, nvmlGpuInstanceGetInfo(gi, &raw mut info) -> info)
    }

    /// Its id, and where it is.
    pub fn seat(&self, gi: Gi) -> (u32, (u32, u32)) {
        let info = self.gi_info(gi).expect("an info");
        (info.id, (info.placement.start, info.placement.size))
    }

    pub fn compute_profile(
        &self,
        gi: Gi,
        index: u32,
    ) -> Said<sys::nvmlComputeInstanceProfileInfo_t> {
        let mut info = zeroed();
        call!(self, nvmlGpuInstanceGetComputeInstanceProfileInfo(gi, index, 0, &raw mut info) -> info)
    }

    pub fn compute_name(&self, gi: Gi, index: u32) -> Said<String> {
        let mut info: sys::nvmlComputeInstanceProfileInfo_v2_t = zeroed();
        info.version = u32::try_from(size_of_val(&info)).expect("small") | 2 << 24;
        let place = &raw mut info;
        call!(self, nvmlGpuInstanceGetComputeInstanceProfileInfoV(gi, index, 0, place) -> text(&info.name))
    }

    pub fn compute_remaining(&self, gi: Gi, id: u32) -> Said<u32> {
        let mut count = 0;
        call!(self, nvmlGpuInstanceGetComputeInstanceRemainingCapacity(gi, id, &raw mut count) -> count)
    }

    pub fn compute_placements(&self, gi: Gi, id: u32) -> Said<Vec<(u32, u32)>> {
        let mut found = [zeroed::<sys::nvmlComputeInstancePlacement_t>(); 8];
        let (mut count, place) = (0, found.as_mut_ptr());
        call!(self, nvmlGpuInstanceGetComputeInstancePossiblePlacements(gi, id, place, &raw mut count) -> ())?;
        Ok(found[..count as usize].iter().map(|one| (one.start, one.size)).collect())
    }

    pub fn create_compute(&self, gi: Gi, id: u32) -> Said<Ci> {
        let mut made = ptr::null_mut();
        call!(self, nvmlGpuInstanceCreateComputeInstance(gi, id, &raw mut made) -> made)
    }

    pub fn create_compute_at(&self, gi: Gi, id: u32, (start, size): (u32, u32)) -> Said<Ci> {
        let at = sys::nvmlComputeInstancePlacement_t { start, size };
        let (mut made, at) = (ptr::null_mut(), &raw const at);
        call!(self, nvmlGpuInstanceCreateComputeInstanceWithPlacement(gi, id, at, &raw mut made) -> made)
    }

    pub fn destroy_compute(&self, ci: Ci) -> Said<()> {
        call!(self, nvmlComputeInstanceDestroy(ci) -> ())
    }

    pub fn cis(&self, gi: Gi, id: u32) -> Said<Vec<Ci>> {
        let (mut found, mut count) = ([ptr::null_mut(); 8], 0);
        let place = found.as_mut_ptr();
        call!(self, nvmlGpuInstanceGetComputeInstances(gi, id, place, &raw mut count) -> ())?;
        Ok(found[..count as usize].to_vec())
    }

    pub fn ci_by_id(&self, gi: Gi, id: u32) -> Said<Ci> {
        let mut found = ptr::null_mut();
        call!(self, nvmlGpuInstanceGetComputeInstanceById(gi, id, &raw mut found) -> found)
    }

    pub fn ci_info(&self, ci: Ci) -> Said<sys::nvmlComputeInstanceInfo_t> {
        let mut info = zeroed();
        call!(self, nvmlComputeInstanceGetInfo_v2(ci, &raw mut info) -> info)
    }

    pub fn mig_device(&self, gpu: Device, index: u32) -> Said<Device> {
        let mut found = ptr::null_mut();
        call!(self, nvmlDeviceGetMigDeviceHandleByIndex(gpu, index, &raw mut found) -> found)
    }

    pub fn by_uuid(&self, uuid: &str) -> Said<Device> {
        let uuid = std::ffi::CString::new(uuid).expect("text");
        let mut found = ptr::null_mut();
        call!(self, nvmlDeviceGetHandleByUUID(uuid.as_ptr(), &raw mut found) -> found)
    }

    pub fn uuid(&self, device: Device) -> Said<String> {
        let mut room = [0; 96];
        call!(self, nvmlDeviceGetUUID(device, room.as_mut_ptr(), 96) -> text(&room))
    }

    pub fn name(&self, device: Device) -> Said<String> {
        let mut room = [0; 96];
        call!(self, nvmlDeviceGetName(device, room.as_mut_ptr(), 96) -> text(&room))
    }

    pub fn number(
        &self,
        call: unsafe fn(&sys::NvmlLib, Device, *mut u32) -> u32,
        device: Device,
    ) -> Said<u32> {
        let mut value = 4711;
        // SAFETY: every function that is passed here has this shape in nvml.h.
        let number = unsafe { call(&self.0, device, &raw mut value) };
        said(number, value)
    }

    pub fn parent(&self, mig: Device) -> Said<Device> {
        let mut found = ptr::null_mut();
        call!(self, nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig, &raw mut found) -> found)
    }

    pub fn attributes(&self, mig: Device) -> Said<sys::nvmlDeviceAttributes_t> {
        let mut found = zeroed();
        call!(self, nvmlDeviceGetAttributes_v2(mig, &raw mut found) -> found)
    }

    pub fn memory(&self, device: Device) -> Said<(u64, u64)> {
        let mut found: sys::nvmlMemory_t = zeroed();
        call!(self, nvmlDeviceGetMemoryInfo(device, &raw mut found) -> (found.total, found.used))
    }

    /// PIDs of CUDA processes.
    pub fn processes(&self, device: Device) -> Said<Vec<u32>> {
        let (mut found, mut count) = ([zeroed::<sys::nvmlProcessInfo_t>(); 8], 8);
        let place = found.as_mut_ptr();
        call!(self, nvmlDeviceGetComputeRunningProcesses_v3(device, &raw mut count, place) -> ())?;
        Ok(found[..count as usize].iter().map(|process| process.pid).collect())
    }
}

fn text(field: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = field.iter().map(|byte| byte.to_ne_bytes()[0]).collect();
    CStr::from_bytes_until_nul(&bytes).expect("an end").to_string_lossy().into_owned()
}

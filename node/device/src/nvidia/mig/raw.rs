//! NVML's calls for MIG, which nvml-wrapper 0.13 does not make (its `possible_placements` returns an empty list).
//!
//! Decides nothing: one function for one call, with the structures of NVML's header (nvml.h, "Multi Instance GPU Management").
//!
//! Every `unsafe` block in here has the same reasons. Why needed: these are C functions. Why sound: each comes from the library that gave the
//! device's handle, and `Device` borrows that over the call; handles of instances are kept no longer than the device's; NVML writes no more than the
//! structure that its header declares for the version that is passed, or than the count of elements that is passed.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::mem;

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{
    NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED, NVML_COMPUTE_INSTANCE_PROFILE_COUNT,
    nvmlComputeInstance_t, nvmlComputeInstanceInfo_t, nvmlComputeInstanceProfileInfo_t,
    nvmlGpuInstance_t, nvmlGpuInstanceInfo_t, nvmlGpuInstancePlacement_t,
    nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t,
};

/// Kinds of GPU instances that a newer driver may know beside those of the bindings: asking for one that is none costs a call.
const KINDS: u32 = 32;

/// What one kind of GPU instance is on a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) id: u32,
    /// As the driver has it, `MIG 1g.10gb`; absent before R470.
    pub(super) name: Option<String>,
    pub(super) compute: u32,
    pub(super) max: u32,
    pub(super) sms: u32,
    pub(super) mib: u64,
}

/// All kinds that this GPU offers. An enumerator is asked for; what it is called with later is the id.
pub(super) fn kinds(device: &Device<'_>) -> Result<Vec<Kind>, NvmlError> {
    let mut kinds = Vec::new();
    for index in 0..KINDS {
        match kind(device, index) {
            Ok(kind) => kinds.push(kind),
            Err(NvmlError::NotSupported | NvmlError::InvalidArg) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(kinds)
}

fn kind(device: &Device<'_>, index: u32) -> Result<Kind, NvmlError> {
    let lib = device.nvml().lib();
    if let Ok(call) = nvml_sym(lib.nvmlDeviceGetGpuInstanceProfileInfoV.as_ref()) {
        // SAFETY: the structure is integers and text, for which zero is a value; see above.
        let mut info: nvmlGpuInstanceProfileInfo_v2_t = unsafe { mem::zeroed() };
        info.version = version(size_of::<nvmlGpuInstanceProfileInfo_v2_t>(), 2);
        // SAFETY: see above.
        nvml_try(unsafe { call(device.handle(), index, &raw mut info) })?;
        return Ok(Kind {
            id: info.id,
            name: Some(text(&info.name)).filter(|name| !name.is_empty()),
            compute: info.sliceCount,
            max: info.instanceCount,
            sms: info.multiprocessorCount,
            mib: info.memorySizeMB,
        });
    }
    let call = nvml_sym(lib.nvmlDeviceGetGpuInstanceProfileInfo.as_ref())?;
    // SAFETY: as above.
    let mut info: nvmlGpuInstanceProfileInfo_t = unsafe { mem::zeroed() };
    // SAFETY: see above.
    nvml_try(unsafe { call(device.handle(), index, &raw mut info) })?;
    Ok(Kind {
        id: info.id,
        name: None,
        compute: info.sliceCount,
        max: info.instanceCount,
        sms: info.multiprocessorCount,
        mib: info.memorySizeMB,
    })
}

/// `NVML_STRUCT_VERSION` of nvml.h.
fn version(size: usize, version: u32) -> u32 {
    u32::try_from(size).unwrap_or_default() | version << 24
}

/// Text that fills its field or ends before.
fn text(field: &[c_char]) -> String {
    let bytes: Vec<u8> =
        field.iter().map(|byte| byte.cast_unsigned()).chain(std::iter::once(0)).collect();
    CStr::from_bytes_until_nul(&bytes)
        .map(|text| text.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Where instances of a profile can be: first slice and slices, whatever is there already.
pub(super) fn placements(device: &Device<'_>, profile: u32) -> Result<Vec<(u32, u32)>, NvmlError> {
    let lib = device.nvml().lib();
    let call = nvml_sym(lib.nvmlDeviceGetGpuInstancePossiblePlacements_v2.as_ref())?;
    let mut count = 0;
    // SAFETY: see above; without room for placements NVML only counts them.
    nvml_try(unsafe { call(device.handle(), profile, std::ptr::null_mut(), &raw mut count) })?;
    let none = nvmlGpuInstancePlacement_t { start: 0, size: 0 };
    let mut found = vec![none; count as usize];
    // SAFETY: see above; there is room for `count` placements.
    nvml_try(unsafe { call(device.handle(), profile, found.as_mut_ptr(), &raw mut count) })?;
    found.truncate(count as usize);
    Ok(found.iter().map(|place| (place.start, place.size)).collect())
}

/// A GPU instance while its GPU is looked at.
pub(super) struct GpuInstance<'a> {
    device: &'a Device<'a>,
    handle: nvmlGpuInstance_t,
}

/// A compute instance in it.
pub(super) struct ComputeInstance<'a> {
    device: &'a Device<'a>,
    handle: nvmlComputeInstance_t,
}

/// What the driver says of a GPU instance.
pub(super) struct Facts {
    pub(super) id: u32,
    pub(super) start: u32,
    pub(super) size: u32,
}

/// All instances of a profile, those without a compute instance among them.
pub(super) fn instances<'a>(
    device: &'a Device<'a>,
    profile: u32,
    max: u32,
) -> Result<Vec<GpuInstance<'a>>, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetGpuInstances.as_ref())?;
    let mut handles = vec![std::ptr::null_mut(); max as usize];
    let mut count = 0;
    // SAFETY: see above; nvml.h asks for room for the profile's `instanceCount`, which `max` is.
    nvml_try(unsafe { call(device.handle(), profile, handles.as_mut_ptr(), &raw mut count) })?;
    handles.truncate(count as usize);
    Ok(handles.into_iter().map(|handle| GpuInstance { device, handle }).collect())
}

/// Makes a GPU instance at exactly this place.
pub(super) fn create<'a>(
    device: &'a Device<'a>,
    profile: u32,
    (start, size): (u32, u32),
) -> Result<GpuInstance<'a>, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceCreateGpuInstanceWithPlacement.as_ref())?;
    let place = nvmlGpuInstancePlacement_t { start, size };
    let mut handle = std::ptr::null_mut();
    // SAFETY: see above.
    nvml_try(unsafe { call(device.handle(), profile, &raw const place, &raw mut handle) })?;
    Ok(GpuInstance { device, handle })
}

impl<'a> GpuInstance<'a> {
    pub(super) fn facts(&self) -> Result<Facts, NvmlError> {
        let call = nvml_sym(self.device.nvml().lib().nvmlGpuInstanceGetInfo.as_ref())?;
        // SAFETY: a handle, integers: zero is a value of each; see above.
        let mut info: nvmlGpuInstanceInfo_t = unsafe { mem::zeroed() };
        // SAFETY: see above.
        nvml_try(unsafe { call(self.handle, &raw mut info) })?;
        Ok(Facts { id: info.id, start: info.placement.start, size: info.placement.size })
    }

    /// Kinds of compute instances that share the engines: id, compute slices, the most of it.
    fn compute_kinds(&self) -> Result<Vec<(u32, u32, u32)>, NvmlError> {
        let lib = self.device.nvml().lib();
        let call = nvml_sym(lib.nvmlGpuInstanceGetComputeInstanceProfileInfo.as_ref())?;
        let mut kinds = Vec::new();
        for index in 0..NVML_COMPUTE_INSTANCE_PROFILE_COUNT {
            // SAFETY: integers; see above.
            let mut info: nvmlComputeInstanceProfileInfo_t = unsafe { mem::zeroed() };
            let engine = NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED;
            // SAFETY: see above.
            match nvml_try(unsafe { call(self.handle, index, engine, &raw mut info) }) {
                Ok(()) => kinds.push((info.id, info.sliceCount, info.instanceCount)),
                Err(NvmlError::NotSupported | NvmlError::InvalidArg) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(kinds)
    }

    /// Id of the kind that takes all of it.
    pub(super) fn whole(&self) -> Result<u32, NvmlError> {
        let kinds = self.compute_kinds()?;
        let largest = kinds.iter().max_by_key(|(id, slices, _)| (*slices, u32::MAX - id));
        largest.map(|(id, _, _)| *id).ok_or(NvmlError::NotSupported)
    }

    pub(super) fn create(&self, profile: u32) -> Result<ComputeInstance<'a>, NvmlError> {
        let lib = self.device.nvml().lib();
        let call = nvml_sym(lib.nvmlGpuInstanceCreateComputeInstance.as_ref())?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: see above.
        nvml_try(unsafe { call(self.handle, profile, &raw mut handle) })?;
        Ok(ComputeInstance { device: self.device, handle })
    }

    pub(super) fn compute_instances(&self) -> Result<Vec<ComputeInstance<'a>>, NvmlError> {
        let call = nvml_sym(self.device.nvml().lib().nvmlGpuInstanceGetComputeInstances.as_ref())?;
        let mut found = Vec::new();
        for (profile, _, max) in self.compute_kinds()? {
            let mut handles = vec![std::ptr::null_mut(); max as usize];
            let mut count = 0;
            // SAFETY: see above; room for the profile's `instanceCount`.
            nvml_try(unsafe { call(self.handle, profile, handles.as_mut_ptr(), &raw mut count) })?;
            handles.truncate(count as usize);
            let device = self.device;
            found.extend(handles.into_iter().map(|handle| ComputeInstance { device, handle }));
        }
        Ok(found)
    }

    pub(super) fn destroy(self) -> Result<(), NvmlError> {
        let call = nvml_sym(self.device.nvml().lib().nvmlGpuInstanceDestroy.as_ref())?;
        // SAFETY: see above; the handle is not used again.
        nvml_try(unsafe { call(self.handle) })
    }
}

impl ComputeInstance<'_> {
    pub(super) fn id(&self) -> Result<u32, NvmlError> {
        let lib = self.device.nvml().lib();
        // The one with the placement since R470; both tell the id.
        let call = nvml_sym(lib.nvmlComputeInstanceGetInfo_v2.as_ref())?;
        // SAFETY: handles, integers: zero is a value of each; see above.
        let mut info: nvmlComputeInstanceInfo_t = unsafe { mem::zeroed() };
        // SAFETY: see above.
        nvml_try(unsafe { call(self.handle, &raw mut info) })?;
        Ok(info.id)
    }

    pub(super) fn destroy(self) -> Result<(), NvmlError> {
        let call = nvml_sym(self.device.nvml().lib().nvmlComputeInstanceDestroy.as_ref())?;
        // SAFETY: see above; the handle is not used again.
        nvml_try(unsafe { call(self.handle) })
    }
}

/// Ids of a MIG device: those of its GPU instance and of its compute instance.
pub(super) fn ids(mig: &Device<'_>) -> Result<(u32, u32), NvmlError> {
    let lib = mig.nvml().lib();
    let (gpu, compute) = (
        nvml_sym(lib.nvmlDeviceGetGpuInstanceId.as_ref())?,
        nvml_sym(lib.nvmlDeviceGetComputeInstanceId.as_ref())?,
    );
    let (mut gpu_instance, mut compute_instance) = (0, 0);
    // SAFETY: see above.
    nvml_try(unsafe { gpu(mig.handle(), &raw mut gpu_instance) })?;
    // SAFETY: see above.
    nvml_try(unsafe { compute(mig.handle(), &raw mut compute_instance) })?;
    Ok((gpu_instance, compute_instance))
}

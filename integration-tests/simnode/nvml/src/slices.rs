//! Structures of nvml.h about MIG, byte for byte.

use std::ffi::c_char;

use simnode::mig::compute::ComputeProfile;
use simnode::mig::profile::{Engines, GpuProfile};
use simnode::mig::{GpuInstance, MigDevice, Placement};
use simnode::state::Gpu;

use crate::opaque::{Device, Instance};
use crate::structs::{fixed, version};

/// `nvmlGpuInstancePlacement_t`, and `nvmlComputeInstancePlacement_t`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Slices {
    pub start: u32,
    pub size: u32,
}

impl From<Placement> for Slices {
    fn from(placement: Placement) -> Self {
        Self { start: placement.start, size: placement.size }
    }
}

impl From<Slices> for Placement {
    fn from(slices: Slices) -> Self {
        Self { start: slices.start, size: slices.size }
    }
}

/// `nvmlGpuInstanceProfileInfo_t`.
#[repr(C)]
pub struct GpuProfile1 {
    id: u32,
    peer_to_peer: u32,
    slices: u32,
    instances: u32,
    multiprocessors: u32,
    engines: [u32; 5],
    memory: u64,
}

/// `nvmlGpuInstanceProfileInfo_v2_t`.
#[repr(C)]
pub struct GpuProfile2 {
    version: u32,
    id: u32,
    peer_to_peer: u32,
    slices: u32,
    instances: u32,
    multiprocessors: u32,
    engines: [u32; 5],
    memory: u64,
    name: [c_char; 96],
}

/// `nvmlGpuInstanceProfileInfo_v3_t`.
#[repr(C)]
pub struct GpuProfile3 {
    version: u32,
    id: u32,
    slices: u32,
    instances: u32,
    multiprocessors: u32,
    engines: [u32; 5],
    memory: u64,
    name: [c_char; 96],
    capabilities: u32,
}

fn list(engines: Engines) -> [u32; 5] {
    [engines.copy, engines.decoders, engines.encoders, engines.jpeg, engines.ofa]
}

impl From<&GpuProfile> for GpuProfile1 {
    fn from(profile: &GpuProfile) -> Self {
        Self {
            id: profile.id,
            peer_to_peer: 0,
            slices: profile.slices,
            instances: profile.max,
            multiprocessors: profile.multiprocessors,
            engines: list(profile.engines),
            memory: profile.memory,
        }
    }
}

impl From<&GpuProfile> for GpuProfile2 {
    fn from(profile: &GpuProfile) -> Self {
        Self {
            version: version::<Self>(2),
            id: profile.id,
            peer_to_peer: 0,
            slices: profile.slices,
            instances: profile.max,
            multiprocessors: profile.multiprocessors,
            engines: list(profile.engines),
            memory: profile.memory,
            name: fixed(&format!("MIG {}", profile.name)),
        }
    }
}

impl From<&GpuProfile> for GpuProfile3 {
    fn from(profile: &GpuProfile) -> Self {
        Self {
            version: version::<Self>(3),
            id: profile.id,
            slices: profile.slices,
            instances: profile.max,
            multiprocessors: profile.multiprocessors,
            engines: list(profile.engines),
            memory: profile.memory,
            name: fixed(&format!("MIG {}", profile.name)),
            capabilities: 0,
        }
    }
}

/// `nvmlGpuInstanceInfo_t`.
#[repr(C)]
pub struct GpuInfo {
    device: Device,
    id: u32,
    profile: u32,
    placement: Slices,
}

impl GpuInfo {
    pub fn of(gpu: usize, instance: &GpuInstance) -> Self {
        Self {
            device: Device::at(gpu),
            id: instance.id,
            profile: instance.profile,
            placement: instance.placement.into(),
        }
    }
}

/// `nvmlComputeInstanceProfileInfo_t`.
#[repr(C)]
pub struct ComputeProfile1 {
    id: u32,
    slices: u32,
    instances: u32,
    multiprocessors: u32,
    engines: [u32; 5],
}

impl ComputeProfile1 {
    pub fn of(profile: &ComputeProfile, within: &GpuProfile) -> Self {
        Self {
            id: profile.id,
            slices: profile.slices,
            instances: profile.max,
            multiprocessors: profile.multiprocessors,
            engines: list(within.engines),
        }
    }
}

/// `nvmlComputeInstanceProfileInfo_v2_t`.
#[repr(C)]
pub struct ComputeProfile2 {
    version: u32,
    plain: ComputeProfile1,
    name: [c_char; 96],
}

impl ComputeProfile2 {
    pub fn of(profile: &ComputeProfile, within: &GpuProfile) -> Self {
        Self {
            version: version::<Self>(2),
            plain: ComputeProfile1::of(profile, within),
            name: fixed(&format!("MIG {}", profile.name(within))),
        }
    }
}

/// `nvmlComputeInstanceProfileInfo_v3_t`.
#[repr(C)]
pub struct ComputeProfile3 {
    named: ComputeProfile2,
    capabilities: u32,
}

impl ComputeProfile3 {
    pub fn of(profile: &ComputeProfile, within: &GpuProfile) -> Self {
        let named = ComputeProfile2::of(profile, within);
        let named = ComputeProfile2 { version: version::<Self>(3), ..named };
        Self { named, capabilities: 0 }
    }
}

/// `nvmlComputeInstanceInfo_t`.
#[repr(C)]
pub struct ComputeInfo {
    device: Device,
    instance: Instance,
    id: u32,
    profile: u32,
    placement: Slices,
}

impl ComputeInfo {
    /// The device is a MIG device's handle in the second version, and the GPU's in the first.
    pub fn of(device: Device, gpu: usize, mig: MigDevice<'_>) -> Self {
        Self {
            device,
            instance: Instance::of(gpu, mig.instance.serial),
            id: mig.compute.id,
            profile: mig.compute.profile,
            placement: mig.compute.placement.into(),
        }
    }
}

/// `nvmlDeviceAttributes_t`.
#[repr(C)]
pub struct Attributes {
    multiprocessors: u32,
    engines: [u32; 5],
    gpu_slices: u32,
    compute_slices: u32,
    memory: u64,
}

impl Attributes {
    /// Those of a compute instance of profile `compute` in a GPU instance of profile `within`.
    pub fn of(compute: &ComputeProfile, within: &GpuProfile) -> Self {
        Self {
            multiprocessors: compute.multiprocessors,
            engines: list(within.engines),
            gpu_slices: within.slices,
            compute_slices: compute.slices,
            memory: within.memory,
        }
    }
}

/// The profiles of an instance of `gpu`.
pub fn profile_of(gpu: &Gpu, instance: &GpuInstance) -> Option<&'static GpuProfile> {
    simnode::mig::profile::by_id(gpu.gpu_profiles(), instance.profile)
}

#[cfg(test)]
mod tests {
    use nvml_wrapper_sys::bindings as sys;

    use super::*;

    #[test]
    fn every_structure_has_the_size_and_alignment_of_the_header() {
        alike! {
            Slices = sys::nvmlGpuInstancePlacement_t;
            Slices = sys::nvmlComputeInstancePlacement_t;
            GpuProfile1 = sys::nvmlGpuInstanceProfileInfo_t;
            GpuProfile2 = sys::nvmlGpuInstanceProfileInfo_v2_t;
            GpuProfile3 = sys::nvmlGpuInstanceProfileInfo_v3_t;
            GpuInfo = sys::nvmlGpuInstanceInfo_t;
            ComputeProfile1 = sys::nvmlComputeInstanceProfileInfo_t;
            ComputeProfile2 = sys::nvmlComputeInstanceProfileInfo_v2_t;
            ComputeProfile3 = sys::nvmlComputeInstanceProfileInfo_v3_t;
            ComputeInfo = sys::nvmlComputeInstanceInfo_t;
            Attributes = sys::nvmlDeviceAttributes_t;
        }
    }
}

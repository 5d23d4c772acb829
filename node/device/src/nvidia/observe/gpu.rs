//! One GPU as NVML and sysfs describe it, and its way to each other one.
//!
//! Decides what is assumed where an old or odd driver does not say: nothing that would make a GPU look better than it is.

use std::fs;

use nvml_wrapper::enum_wrappers::device::{Brand, TopologyLevel};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::MigMode;
use nvml_wrapper::{Device, Nvml};
use plan::ids::BadName;
use plan::{Ancestor, CudaVersion, Gpu, Mib, PciAddress, Peer};

use super::link::{Ends, between};
use super::{Peers, raw};
use crate::Host;
use crate::nvidia::mig::act;

/// Why a GPU cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unseen {
    /// NVML does not say what must be known.
    #[error(transparent)]
    Silent(#[from] NvmlError),
    /// It gives a name that is none.
    #[error(transparent)]
    Misnamed(#[from] BadName),
}

/// The GPU with this index, its peers still unknown.
pub(super) fn look(host: &Host, nvml: &Nvml, index: u32) -> Result<Gpu, Unseen> {
    let device = nvml.device_by_index(index)?;
    let uuid = device.uuid()?.parse()?;
    let pci: PciAddress = device.pci_info()?.bus_id.parse()?;
    let compute = device.cuda_compute_capability()?;
    let mode = mig(device.mig_mode())?;
    let is_on = mode == Some(true);
    Ok(Gpu {
        index,
        uuid,
        pci,
        minor: device.minor_number()?,
        model: device.name()?,
        brand: device.brand().map_or("unknown", brand).to_owned(),
        compute_capability: CudaVersion {
            major: u32::try_from(compute.major).unwrap_or_default(),
            minor: u32::try_from(compute.minor).unwrap_or_default(),
        },
        memory: memory(&device)?,
        numa_node: numa_node(host, pci),
        mig: is_on,
        mig_capable: mode.is_some(),
        profiles: if is_on { act::profiles(&device)? } else { Vec::new() },
        instances: Vec::new(),
        peers: Peers::new(),
    })
}

/// A GPU that shares the machine's memory has none of its own to tell.
fn memory(device: &Device<'_>) -> Result<Mib, NvmlError> {
    match device.memory_info() {
        Ok(memory) => Ok(Mib(memory.total >> 20)),
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => {
            Ok(Mib(raw::total_memory(device).unwrap_or_default() >> 20))
        }
        Err(error) => Err(error),
    }
}

/// Whether MIG mode is on; `None` for a GPU that cannot be cut, and with a driver before R450. Any other failure is one: a GPU whose mode is
/// unknown must not be given as a whole.
fn mig(mode: Result<MigMode, NvmlError>) -> Result<Option<bool>, NvmlError> {
    match mode {
        Ok(mode) => Ok(Some(mode.current != 0)),
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The node of the slot, as sysfs has it. NVML's own answer is that of the GPU's memory on GB200.
fn numa_node(host: &Host, pci: PciAddress) -> Option<u32> {
    let path = host.path(&format!("/sys/bus/pci/devices/{pci}/numa_node"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The ways of each of `gpus` to the others. One that NVML cannot tell is taken for the farthest.
pub(super) fn peers(
    nvml: &Nvml,
    gpus: &[Gpu],
    links: &[Ends],
    problems: &mut Vec<String>,
) -> Vec<Peers> {
    let mut peers = vec![Peers::new(); gpus.len()];
    for (a, one) in gpus.iter().enumerate() {
        for (b, other) in gpus.iter().enumerate().skip(a + 1) {
            let level = ancestor(nvml, one.index, other.index).unwrap_or_else(|error| {
                let (one, other) = (one.pci, other.pci);
                problems.push(format!("how close GPUs {one} and {other} are is unknown: {error}"));
                Ancestor::System
            });
            let nvlinks = between(&links[a], one.pci, &links[b], other.pci);
            let peer = Peer { nvlinks, ancestor: level };
            peers[a].insert(other.uuid.clone(), peer);
            peers[b].insert(one.uuid.clone(), peer);
        }
    }
    peers
}

fn ancestor(nvml: &Nvml, one: u32, other: u32) -> Result<Ancestor, NvmlError> {
    let other = nvml.device_by_index(other)?;
    Ok(match nvml.device_by_index(one)?.topology_common_ancestor(other)? {
        TopologyLevel::Internal => Ancestor::Internal,
        TopologyLevel::Single => Ancestor::SingleSwitch,
        TopologyLevel::Multiple => Ancestor::MultipleSwitches,
        TopologyLevel::HostBridge => Ancestor::HostBridge,
        TopologyLevel::Node => Ancestor::Node,
        TopologyLevel::System => Ancestor::System,
    })
}

/// As `NVIDIA_REQUIRE_BRAND` and the images of CUDA spell it.
fn brand(brand: Brand) -> &'static str {
    match brand {
        Brand::Quadro => "quadro",
        Brand::Tesla => "tesla",
        Brand::NVS => "nvs",
        Brand::GRID => "grid",
        Brand::GeForce => "geforce",
        Brand::Titan => "titan",
        Brand::VApps => "nvidiavapps",
        Brand::VPC => "nvidiavpc",
        Brand::VCS => "nvidiavcs",
        Brand::VWS => "nvidiavws",
        Brand::CloudGaming | Brand::VGaming => "nvidiacloudgaming",
        Brand::QuadroRTX => "quadrortx",
        Brand::NvidiaRTX => "nvidiartx",
        Brand::Nvidia => "nvidia",
        Brand::GeForceRTX => "geforcertx",
        Brand::TitanRTX => "titanrtx",
        Brand::Unknown => "unknown",
    }
}

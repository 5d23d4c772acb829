//! What the kubelet's other allocators have given out: its device checkpoint, and whether a DRA driver for GPUs is there.
//!
//! Decides who else allocates GPUs on this node. The checkpoint is the kubelet's own file, which no pod can write. It is only read.
//! Source: kubernetes pkg/kubelet/cm/devicemanager/checkpoint; `DeviceIDs` was a list until 1.19 and is a map by NUMA node since.

use std::collections::BTreeMap;
use std::path::Path;

use plan::CpuSet;
use serde::Deserialize;

use crate::error::DeviceError;
use crate::keep;

/// Below the kubelet's directory.
const CHECKPOINT: &str = "device-plugins/kubelet_internal_checkpoint";

/// The CPU manager's state, likewise.
const CPU_MANAGER: &str = "cpu_manager_state";

/// Whose resources count.
const VENDOR: &str = "nvidia.com/";

/// NVIDIA's DRA driver for GPUs, as it shows below the kubelet's directory.
const DRA: [&str; 2] = ["plugins/gpu.nvidia.com", "plugins_registry/gpu.nvidia.com-reg.sock"];

/// Devices that a device plugin gave to one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The pod.
    pub pod_uid: String,
    /// The container's name in it.
    pub container: String,
    /// `nvidia.com/gpu`.
    pub resource: String,
    /// As the plugin names them: UUIDs, of replicas with `::` and a number behind.
    pub devices: Vec<String>,
}

/// What the kubelet's device manager has given out of NVIDIA's resources. `kubelet` is its directory; without a checkpoint there it is
/// nothing.
///
/// # Errors
/// When the checkpoint is there and cannot be read: it is never taken for empty.
pub fn allocations(kubelet: &Path) -> Result<Vec<Allocation>, DeviceError> {
    let Some(data) = checkpoint(kubelet)? else { return Ok(Vec::new()) };
    let ours = data.entries.into_iter().filter(|entry| entry.resource.starts_with(VENDOR));
    Ok(ours
        .map(|entry| Allocation {
            pod_uid: entry.pod_uid,
            container: entry.container,
            resource: entry.resource,
            devices: entry.devices.map(DeviceIds::flat).unwrap_or_default(),
        })
        .collect())
}

/// The resource of NVIDIA's that a device plugin has registered with devices, if there is one.
///
/// # Errors
/// As [`allocations`].
pub fn registered_gpu_resource(kubelet: &Path) -> Result<Option<String>, DeviceError> {
    let registered = checkpoint(kubelet)?.map(|data| data.registered).unwrap_or_default();
    let with_devices = |(name, devices): &(String, Option<Vec<String>>)| {
        name.starts_with(VENDOR) && devices.as_ref().is_some_and(|devices| !devices.is_empty())
    };
    Ok(registered.into_iter().find(with_devices).map(|(name, _)| name))
}

/// CPUs that the kubelet's CPU manager has given to one container alone, which only its `static` policy does.
///
/// # Errors
/// When its state is there and cannot be read.
pub fn exclusive_cpus(
    kubelet: &Path,
    pod_uid: &str,
    container: &str,
) -> Result<Option<CpuSet>, DeviceError> {
    let path = kubelet.join(CPU_MANAGER);
    let Some(bytes) = keep::read(&path)? else { return Ok(None) };
    let state: CpuManager = serde_json::from_slice(&bytes).map_err(|error| {
        let how = format!("is no state of the CPU manager that this version knows ({error})");
        DeviceError::Malformed { path, how }
    })?;
    Ok(state.entries.get(pod_uid).and_then(|pod| pod.get(container)).cloned())
}

/// Who else allocates GPUs here, in words that end a sentence; `None` when nobody does.
///
/// # Errors
/// As [`allocations`].
pub fn owner_of_gpus(kubelet: &Path) -> Result<Option<String>, DeviceError> {
    if DRA.iter().any(|path| kubelet.join(path).exists()) {
        return Ok(Some("the DRA driver gpu.nvidia.com".to_owned()));
    }
    Ok(registered_gpu_resource(kubelet)?.map(|name| format!("the device plugin of {name}")))
}

/// `entries` by pod and container (pkg/kubelet/cm/cpumanager/state/checkpoint.go); absent under the policy `none`.
#[derive(Deserialize)]
struct CpuManager {
    #[serde(default, deserialize_with = "null_as_empty")]
    entries: BTreeMap<String, BTreeMap<String, CpuSet>>,
}

#[derive(Deserialize)]
struct Checkpoint {
    #[serde(rename = "Data")]
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    /// `null` while nothing is given out.
    #[serde(rename = "PodDeviceEntries", deserialize_with = "null_as_empty")]
    entries: Vec<Entry>,
    #[serde(rename = "RegisteredDevices", deserialize_with = "null_as_empty")]
    registered: BTreeMap<String, Option<Vec<String>>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    #[serde(rename = "ContainerName")]
    container: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    #[serde(rename = "DeviceIDs")]
    devices: Option<DeviceIds>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum DeviceIds {
    ByNode(BTreeMap<String, Option<Vec<String>>>),
    List(Vec<String>),
}

impl DeviceIds {
    fn flat(self) -> Vec<String> {
        let mut devices: Vec<String> = match self {
            Self::ByNode(nodes) => nodes.into_values().flatten().flatten().collect(),
            Self::List(list) => list,
        };
        devices.sort();
        devices
    }
}

fn null_as_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn checkpoint(kubelet: &Path) -> Result<Option<Data>, DeviceError> {
    let path = kubelet.join(CHECKPOINT);
    let Some(bytes) = keep::read(&path)? else { return Ok(None) };
    match serde_json::from_slice::<Checkpoint>(&bytes) {
        Ok(checkpoint) => Ok(Some(checkpoint.data)),
        Err(error) => {
            let how = format!("is no device checkpoint that this version knows ({error})");
            Err(DeviceError::Malformed { path, how })
        }
    }
}

#[cfg(test)]
mod tests;

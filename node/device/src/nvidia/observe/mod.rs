//! Observing the node: what NVML, sysfs and the driver's own listing say of it, put together into an inventory.
//!
//! ```text
//! key ─► NVML: identity, memory, MIG, links, ancestors ─► sysfs: NUMA ─► /proc listing: is any missing? ─► cache, with the problems
//! ```
//!
//! Decides what becomes of a GPU that cannot be asked: it is left out, and that is noted; the others are there all the same. Runs in a
//! short-lived program only: a hung driver hangs this.

mod gpu;
mod link;
mod raw;

use std::collections::BTreeMap;
use std::fs;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use plan::{CudaVersion, Driver, Inventory, PciAddress};

use super::mig;
use crate::cache::{self, Key, Seen};
use crate::error::DeviceError;
use crate::{Host, keep};

/// Looks at the node and remembers what is there.
///
/// # Errors
/// When the driver is loaded and NVML cannot be used, or nothing can be remembered.
pub fn observe(host: &Host) -> Result<Inventory, DeviceError> {
    // Before looking: what changes meanwhile then makes the answer void, not wrong.
    let Some(key) = Key::now(host)? else { return Ok(Inventory::default()) };
    let seen = look(host)?;
    let inventory = seen.inventory.clone();
    super::proc_tree::capture(host)?;
    cache::store(host, key, seen)?;
    Ok(inventory)
}

/// NVML, from the library that the configuration names.
pub(super) fn start(host: &Host) -> Result<Nvml, DeviceError> {
    let nvml = Nvml::builder().lib_path(host.nvml.as_os_str()).init();
    nvml.map_err(failed(host, "start NVML"))
}

/// What NVML said when it was asked to do something.
pub(super) fn failed(host: &Host, action: &'static str) -> impl FnOnce(NvmlError) -> DeviceError {
    let library = host.nvml.clone();
    move |error| DeviceError::Nvml { library, action, said: words(&error) }
}

fn look(host: &Host) -> Result<Seen, DeviceError> {
    let mut problems = Vec::new();
    let listed = listed(host)?;
    let version = version(host)?;
    let nvml = start(host)?;
    let cuda = nvml.sys_cuda_driver_version().map_err(failed(host, "ask for the CUDA version"))?;
    let count = nvml.device_count().map_err(failed(host, "count the GPUs"))?;
    let mut seen = Vec::new();
    for index in 0..count {
        match gpu::look(host, &nvml, index) {
            Ok(one) => {
                if let Err(error) = instances(host, &nvml, &one) {
                    problems.push(format!("the MIG instances of GPU {index} are unknown: {error}"));
                }
                seen.push(one);
            }
            Err(error) => problems.push(format!("GPU {index} is left out: {error}")),
        }
    }
    let links = link::ends(&nvml, &seen, &listed);
    let peers = gpu::peers(&nvml, &seen, &links, &mut problems);
    let found: Vec<PciAddress> = seen.iter().map(|gpu| gpu.pci).collect();
    for pci in listed.iter().filter(|pci| !found.contains(pci)) {
        problems.push(format!(
            "GPU {pci} is in /proc/driver/nvidia/gpus but NVML does not answer for it"
        ));
    }
    let incomplete = !problems.is_empty();
    if !keep::read_text(&host.path("/proc/devices"))?.contains("nvidia-uvm") {
        problems.push(
            "the module nvidia-uvm is not loaded, so CUDA will not start: modprobe nvidia-uvm"
                .into(),
        );
    }
    let gpus = seen.into_iter().zip(peers).map(|(gpu, peers)| plan::Gpu { peers, ..gpu }).collect();
    let driver = Driver { version, cuda: cuda_version(cuda) };
    let inventory = Inventory { driver: Some(driver), gpus, topology: crate::topology(host) };
    Ok(Seen { inventory, incomplete, problems })
}

/// Learns which instances are on a GPU, if it can have any.
fn instances(host: &Host, nvml: &Nvml, gpu: &plan::Gpu) -> Result<(), DeviceError> {
    if gpu.mig {
        let device = nvml.device_by_index(gpu.index).map_err(failed(host, "find the GPU"))?;
        mig::act::learn(host, &device, gpu)?;
    }
    Ok(())
}

type Peers = BTreeMap<plan::GpuUuid, plan::Peer>;

/// GPUs that the driver's kernel module has.
fn listed(host: &Host) -> Result<Vec<PciAddress>, DeviceError> {
    let names = keep::names(&host.path("/proc/driver/nvidia/gpus"))?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// `12040` is CUDA 12.4 (`NVML_CUDA_DRIVER_VERSION_MAJOR`).
fn cuda_version(number: i32) -> CudaVersion {
    let number = u32::try_from(number).unwrap_or_default();
    CudaVersion { major: number / 1000, minor: number % 1000 / 10 }
}

/// The loaded module's version, which need not be the library's.
fn version(host: &Host) -> Result<String, DeviceError> {
    let path = host.path("/proc/driver/nvidia/version");
    let text = keep::read_text(&path)?;
    let sysfs = || fs::read_to_string(host.path("/sys/module/nvidia/version")).ok();
    version_in(&text).or_else(|| version_in(&sysfs()?)).ok_or_else(|| DeviceError::Malformed {
        path,
        how: format!("names no driver version: {:?}", text.lines().next().unwrap_or_default()),
    })
}

/// `550.163.01` of `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8 12:41:17 UTC 2025`.
fn version_in(text: &str) -> Option<String> {
    let mut words = text.lines().next()?.split_whitespace();
    words.find(|word| super::driver::is_version(word)).map(str::to_owned)
}

/// What NVML said, and what to do about it where that is known.
fn words(error: &NvmlError) -> String {
    match error {
        NvmlError::LibRmVersionMismatch => {
            format!("{error}: the driver was updated; load its new module or reboot")
        }
        NvmlError::LibloadingError(error) => {
            format!("{error}: install the driver's libraries, or set node.nvml")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_every_kind_of_kernel_module() {
        for (text, version) in [
            (
                "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.163.01  Tue Apr  8 12:41:17 UTC 2025\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n",
                "550.163.01",
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build  (dvs-builder@U22)  Sun Mar 30 06:52:20 UTC 2025\n",
                "570.133.20",
            ),
            (
                "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  595.45  Release Build\n",
                "595.45",
            ),
            ("550.54.15\n", "550.54.15"),
        ] {
            assert_eq!(version_in(text).as_deref(), Some(version));
        }
        assert_eq!(version_in("NVRM version: none\nGCC version: 12.2.0\n"), None);
        assert_eq!(version_in(""), None);
    }

    #[test]
    fn cuda_versions_are_two_numbers_in_one() {
        assert_eq!(cuda_version(12_040), CudaVersion { major: 12, minor: 4 });
        assert_eq!(cuda_version(13_000), CudaVersion { major: 13, minor: 0 });
    }
}

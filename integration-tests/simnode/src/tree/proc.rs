//! What the kernel shows of the driver: `/proc/driver/nvidia`, `/proc/driver/nvidia-caps`, `/sys/module/nvidia`, `/proc/devices`.
//!
//! Formats as the driver's sources print them.

use std::path::Path;

use crate::error::NodeError;
use crate::mig::minors;
use crate::state::{Driver, Gpu, State};

use super::dev::Majors;
use super::write::{Tree, read};

const DRIVER: &str = "proc/driver/nvidia";
const CAPS: &str = "proc/driver/nvidia-caps";
const MODULES: [&str; 4] = ["nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm"];

/// `/proc/devices`: this machine's, and those of the driver.
pub(super) fn devices(tree: &Tree, state: &State, majors: &Majors) -> Result<(), NodeError> {
    let real = read(Path::new("/proc/devices"))?;
    let (characters, blocks) = real.split_once("\nBlock devices:").unwrap_or((&real, ""));
    let mut lines: Vec<(u32, String)> = characters
        .lines()
        .filter_map(|line| {
            let (number, name) = line.trim().split_once(' ')?;
            Some((number.parse().ok()?, name.to_owned()))
        })
        .collect();
    if let Some(driver) = &state.driver {
        // The first one's name changed with R550.
        let gpus = if driver.branch() >= 550 { "nvidia" } else { "nvidia-frontend" };
        let own = [gpus, "nvidia-modeset", "nvidiactl"].map(|name| (super::dev::NVIDIA, name));
        let own = own.into_iter().chain([(super::dev::DRM, "drm")]).chain(majors.entries(state));
        lines.extend(own.map(|(number, name)| (number, name.to_owned())));
    }
    lines.sort();
    // This machine may draw, too.
    lines.dedup();
    let lines: String = lines.iter().map(|(number, name)| format!("{number:3} {name}\n")).collect();
    tree.file("proc/devices", format!("Character devices:\n{lines}\nBlock devices:{blocks}"))
}

pub(super) fn load(tree: &Tree, state: &State) -> Result<(), NodeError> {
    let Some(driver) = &state.driver else { return Ok(()) };
    tree.remove(DRIVER)?;
    tree.remove(CAPS)?;
    tree.file(format!("{DRIVER}/version"), version(driver))?;
    tree.file(format!("{DRIVER}/params"), PARAMS)?;
    tree.file(format!("{DRIVER}/registry"), "Binary: \"\"\n")?;
    for folder in ["warnings", "patches"] {
        let text = "The NVIDIA graphics driver tries to detect potential problems\n";
        tree.file(format!("{DRIVER}/{folder}/README"), text)?;
    }
    state.gpus.iter().enumerate().try_for_each(|(number, one)| gpu(tree, driver, number, one))?;
    tree.file(format!("{CAPS}/mig-minors"), minors::table())?;
    tree.file(format!("{CAPS}/sys-minors"), "fabric-imex-mgmt 1\n")?;
    MODULES.iter().try_for_each(|name| module(tree, driver, name))
}

pub(super) fn unload(tree: &Tree) -> Result<(), NodeError> {
    for folder in [DRIVER, CAPS] {
        tree.remove(folder)?;
    }
    MODULES.iter().try_for_each(|name| tree.remove(format!("sys/module/{name}")))
}

fn gpu(tree: &Tree, driver: &Driver, number: usize, gpu: &Gpu) -> Result<(), NodeError> {
    let folder = format!("{DRIVER}/gpus/{}", gpu.route.device);
    tree.file(format!("{folder}/information"), information(driver, number, gpu))?;
    tree.file(format!("{folder}/registry"), "Binary: \"\"\n")?;
    tree.file(format!("{folder}/power"), POWER)?;
    if let Some(node) = gpu.memory_node {
        let status = format!("Node:\t\t {node}\nStatus:\t\t online\n");
        tree.file(format!("{folder}/numa_status"), status)?;
    }
    Ok(())
}

/// A module that was there gives way to another one, with an inode of its own.
fn module(tree: &Tree, driver: &Driver, name: &str) -> Result<(), NodeError> {
    let fresh = format!("sys/module/{name}.new");
    tree.remove(&fresh)?;
    for (file, value) in [
        ("version", driver.version.as_str()),
        ("initstate", "live"),
        ("refcnt", "2"),
        ("srcversion", "0123456789ABCDEF0123456"),
        ("taint", if driver.open { "OE" } else { "POE" }),
    ] {
        tree.line(format!("{fresh}/{file}"), value)?;
    }
    tree.folder(format!("{fresh}/parameters"))?;
    tree.exchange(&format!("sys/module/{name}"), &fresh)
}

fn version(driver: &Driver) -> String {
    let Driver { version, open, .. } = driver;
    let arch = std::env::consts::ARCH;
    let module = match open {
        true => format!(
            "NVIDIA UNIX Open Kernel Module for {arch}  {version}  Release Build  (builder@simnode)"
        ),
        false => format!("NVIDIA UNIX {arch} Kernel Module  {version}"),
    };
    format!(
        "NVRM version: {module}  Tue Apr  8 12:41:17 UTC 2025\n\
         GCC version:  gcc version 12.2.0 (Debian 12.2.0-14+deb12u1) \n"
    )
}

fn information(driver: &Driver, number: usize, gpu: &Gpu) -> String {
    let Gpu { model, uuid, minor, .. } = gpu;
    let lines = [
        ("Model: \t\t", model.clone()),
        ("IRQ:   \t\t", (160 + number).to_string()),
        ("GPU UUID: \t", uuid.clone()),
        ("Video BIOS: \t", gpu.model().vbios.to_lowercase()),
        ("Bus Type: \t", "PCIe".to_owned()),
        ("DMA Size: \t", "52 bits".to_owned()),
        ("DMA Mask: \t", "0xfffffffffffff".to_owned()),
        ("Bus Location: \t", gpu.route.device.to_string()),
        ("Device Minor: \t", minor.to_string()),
        ("GPU Firmware: \t", driver.version.clone()),
        ("GPU Excluded:\t", "No".to_owned()),
    ];
    lines.iter().map(|(key, value)| format!("{key} {value}\n")).collect()
}

const PARAMS: &str = r#"ResmanDebugLevel: 4294967295
RmLogonRC: 1
ModifyDeviceFiles: 1
DeviceFileUID: 0
DeviceFileGID: 0
DeviceFileMode: 438
InitializeSystemMemoryAllocations: 1
UsePageAttributeTable: 4294967295
EnableMSI: 1
EnablePCIeGen3: 0
MemoryPoolSize: 0
KMallocHeapMaxSize: 0
VMallocHeapMaxSize: 0
IgnoreMMIOCheck: 0
EnableStreamMemOPs: 0
EnableUserNUMAManagement: 1
NvLinkDisable: 0
RmProfilingAdminOnly: 1
PreserveVideoMemoryAllocations: 0
EnableS0ixPowerManagement: 0
S0ixPowerManagementVideoMemoryThreshold: 256
DynamicPowerManagement: 3
DynamicPowerManagementVideoMemoryThreshold: 200
RegisterPCIDriver: 1
EnablePCIERelaxedOrderingMode: 0
EnableResizableBar: 0
EnableGpuFirmware: 18
EnableGpuFirmwareLogs: 2
EnableDbgBreakpoint: 0
OpenRmEnableUnsupportedGpus: 1
DmaRemapPeerMmio: 1
ImexChannelCount: 2048
CreateImexChannel0: 0
RegistryDwords: ""
RegistryDwordsPerDevice: ""
RmMsg: ""
GpuBlacklist: ""
TemporaryFilePath: ""
ExcludedGpus: ""
"#;

const POWER: &str = "\
Runtime D3 status:          Disabled by default
Video Memory:               Active

GPU Hardware Support:
 Video Memory Self Refresh: Not Supported
 Video Memory Off:          Not Supported

S0ix Power Management:
 Platform Support:          Not Supported
 Status:                    Disabled
";

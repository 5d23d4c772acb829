//! The capabilities of MIG: `/proc/driver/nvidia/capabilities`, and the device nodes that go with them.
//!
//! A folder of instances is there while its GPU is in MIG mode, and a file while its instance exists.

use std::collections::BTreeMap;

use crate::error::NodeError;
use crate::mig::minors;
use crate::state::{Gpu, State};

use super::write::{Tree, read};

const CAPABILITIES: &str = "proc/driver/nvidia/capabilities";
const NODES: &str = "dev/nvidia-caps";

/// Makes files appear and vanish until they are those of `state`.
pub(super) fn write(tree: &Tree, state: &State) -> Result<(), NodeError> {
    if state.driver.is_none() || !state.gpus.iter().any(|gpu| gpu.mig.is_some()) {
        return Ok(());
    }
    file(tree, "mig/config", minors::CONFIG)?;
    file(tree, "mig/monitor", minors::MONITOR)?;
    let wanted: Vec<BTreeMap<String, u32>> = state.gpus.iter().map(files).collect();
    for (gpu, wanted) in state.gpus.iter().zip(&wanted) {
        let folder = format!("gpu{}/mig", gpu.minor);
        if gpu.in_mig_mode() {
            one(tree, &folder, wanted)?;
        } else {
            tree.remove(format!("{CAPABILITIES}/gpu{}", gpu.minor))?;
        }
    }
    if state.capability_nodes { nodes(tree, &wanted) } else { Ok(()) }
}

/// Files of a GPU's instances below its folder, with their minors.
fn files(gpu: &Gpu) -> BTreeMap<String, u32> {
    let mut files = BTreeMap::new();
    for instance in &gpu.instances {
        let minor = minors::gpu_instance(gpu.minor, instance.id);
        files.insert(format!("gi{}/access", instance.id), minor);
        for compute in &instance.compute {
            let minor = minors::compute_instance(gpu.minor, instance.id, compute.id);
            files.insert(format!("gi{}/ci{}/access", instance.id, compute.id), minor);
        }
    }
    files
}

fn one(tree: &Tree, folder: &str, wanted: &BTreeMap<String, u32>) -> Result<(), NodeError> {
    let place = format!("{CAPABILITIES}/{folder}");
    tree.folder(&place)?;
    let gone = |name: &str| !wanted.keys().any(|file| file.starts_with(&format!("{name}/")));
    for instance in tree.folders(&place)? {
        for compute in tree.folders(format!("{place}/{instance}"))? {
            let name = format!("{instance}/{compute}");
            if gone(&name) {
                tree.remove(format!("{place}/{name}"))?;
            }
        }
        if gone(&instance) {
            tree.remove(format!("{place}/{instance}"))?;
        }
    }
    wanted.iter().try_for_each(|(name, minor)| file(tree, &format!("{folder}/{name}"), *minor))
}

fn file(tree: &Tree, name: &str, minor: u32) -> Result<(), NodeError> {
    let path = format!("{CAPABILITIES}/{name}");
    if tree.has(&path) {
        return Ok(());
    }
    let text = format!("DeviceFileMinor: {minor}\nDeviceFileMode: 256\nDeviceFileModify: 1\n");
    tree.file(path, text)
}

/// As nvidia-modprobe would make them; it removes none, and neither is one removed here before the driver goes.
fn nodes(tree: &Tree, wanted: &[BTreeMap<String, u32>]) -> Result<(), NodeError> {
    let devices = read(&tree.path("proc/devices"))?;
    let major = devices.lines().find_map(|line| {
        line.trim().strip_suffix(" nvidia-caps").and_then(|number| number.parse().ok())
    });
    let Some(major) = major else { return Ok(()) };
    for minor in wanted.iter().flat_map(BTreeMap::values) {
        let path = format!("{NODES}/nvidia-cap{minor}");
        if !tree.has(&path) {
            tree.device(&path, (major, *minor), 0o444)?;
        }
    }
    Ok(())
}

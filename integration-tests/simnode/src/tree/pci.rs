//! PCI in sysfs: GPUs, NVSwitches and the bridges above them, in `/sys/devices` and by address in `/sys/bus`.

use std::collections::BTreeMap;

use crate::error::NodeError;
use crate::machine::{list, mask};
use crate::model::Model;
use crate::pci::{PciAddress, Route};
use crate::state::{Gpu, State};

use super::dev;
use super::write::Tree;

const BUS: &str = "sys/bus/pci";

/// What stands in a device's files.
struct Function {
    folder: String,
    class: u32,
    vendor: u16,
    device: u16,
    subsystem: u16,
    node: Option<u32>,
}

pub(super) fn write(tree: &Tree, state: &State) -> Result<(), NodeError> {
    for name in ["devices", "drivers"] {
        tree.folder(format!("{BUS}/{name}"))?;
    }
    let mut functions: BTreeMap<PciAddress, Function> = BTreeMap::new();
    for gpu in &state.gpus {
        functions.extend(bridges(gpu));
        functions.insert(gpu.route.device, graphics(gpu));
    }
    for address in &state.switches {
        functions.insert(*address, nvswitch(*address, state));
    }
    functions.iter().try_for_each(|(address, function)| one(tree, state, *address, function))?;
    state.gpus.iter().try_for_each(|gpu| speed(tree, gpu))?;
    if state.driver.is_some() {
        state.gpus.iter().try_for_each(|gpu| drm(tree, gpu))
    } else {
        Ok(())
    }
}

/// What draws, with the driver's `nvidia-drm`.
fn drm(tree: &Tree, gpu: &Gpu) -> Result<(), NodeError> {
    let folder = format!("sys/devices/{}/drm", gpu.route.sysfs());
    for (name, minor) in dev::drawing(gpu) {
        tree.line(format!("{folder}/{name}/dev"), format!("{}:{minor}", dev::DRM))?;
        let target = format!("../../devices/{}/drm/{name}", gpu.route.sysfs());
        tree.link(format!("sys/class/drm/{name}"), target)?;
    }
    Ok(())
}

/// `/sys/bus/pci/drivers/nvidia`, while the driver is loaded.
pub(super) fn bind(tree: &Tree, state: &State) -> Result<(), NodeError> {
    unbind(tree)?;
    tree.folder(format!("{BUS}/drivers/nvidia"))?;
    tree.link(format!("{BUS}/drivers/nvidia/module"), "../../../../module/nvidia")?;
    for gpu in &state.gpus {
        let address = gpu.route.device;
        let target = format!("../../../../devices/{}", gpu.route.sysfs());
        tree.link(format!("{BUS}/drivers/nvidia/{address}"), target)?;
    }
    Ok(())
}

pub(super) fn unbind(tree: &Tree) -> Result<(), NodeError> {
    tree.remove(format!("{BUS}/drivers/nvidia"))
}

fn bridges(gpu: &Gpu) -> BTreeMap<PciAddress, Function> {
    let bridge = |(index, address): (usize, &PciAddress)| {
        let bridges = gpu.route.bridges[..index].to_vec();
        let folder = Route { device: *address, bridges }.sysfs();
        // A root port of the processor's, then ports of a switch.
        let (vendor, device) = if index == 0 { (0x8086, 0x352a) } else { (0x1000, 0xc030) };
        let node = gpu.node;
        (*address, Function { folder, class: 0x06_0400, vendor, device, subsystem: 0, node })
    };
    gpu.route.bridges.iter().enumerate().map(bridge).collect()
}

fn graphics(gpu: &Gpu) -> Function {
    let Model { device_id, subsystem_id, .. } = *gpu.model();
    Function {
        folder: gpu.route.sysfs(),
        class: 0x03_0200,
        vendor: 0x10de,
        device: device_id,
        subsystem: subsystem_id,
        node: gpu.node,
    }
}

fn nvswitch(address: PciAddress, state: &State) -> Function {
    let ampere = state.gpus.first().is_some_and(|gpu| gpu.model().architecture == 7);
    Function {
        folder: Route { device: address, bridges: Vec::new() }.sysfs(),
        class: 0x06_8000,
        vendor: 0x10de,
        device: if ampere { 0x1af1 } else { 0x22a3 },
        subsystem: 0x1796,
        node: Some(state.machine.cpu_nodes() - 1),
    }
}

fn one(
    tree: &Tree,
    state: &State,
    address: PciAddress,
    function: &Function,
) -> Result<(), NodeError> {
    let folder = format!("sys/devices/{}", function.folder);
    let machine = &state.machine;
    // The kernel takes every CPU for near when it knows no node.
    let near = match function.node {
        Some(node) => machine.node_cpus(node),
        None => machine.cpus_where(|_| true),
    };
    let node = function.node.map_or("-1".to_owned(), |node| node.to_string());
    for (name, value) in [
        ("class", format!("{:#08x}", function.class)),
        ("vendor", format!("{:#06x}", function.vendor)),
        ("device", format!("{:#06x}", function.device)),
        ("subsystem_vendor", format!("{:#06x}", function.vendor)),
        ("subsystem_device", format!("{:#06x}", function.subsystem)),
        ("numa_node", node),
        ("local_cpulist", list(&near)),
        ("local_cpus", mask(&near, machine.cpus())),
        ("enable", "1".to_owned()),
    ] {
        tree.line(format!("{folder}/{name}"), value)?;
    }
    let uevent = format!(
        "PCI_CLASS={:X}\nPCI_ID={:04X}:{:04X}\nPCI_SLOT_NAME={address}\n",
        function.class, function.vendor, function.device
    );
    tree.file(format!("{folder}/uevent"), uevent)?;
    let target = format!("../../../devices/{}", function.folder);
    tree.link(format!("{BUS}/devices/{address}"), target)
}

fn speed(tree: &Tree, gpu: &Gpu) -> Result<(), NodeError> {
    let folder = format!("sys/devices/{}", gpu.route.sysfs());
    let (generation, width) = gpu.model().pcie;
    let speed = match generation {
        3 => "8.0 GT/s PCIe",
        4 => "16.0 GT/s PCIe",
        _ => "32.0 GT/s PCIe",
    };
    for when in ["current", "max"] {
        tree.line(format!("{folder}/{when}_link_speed"), speed)?;
        tree.line(format!("{folder}/{when}_link_width"), width.to_string())?;
    }
    Ok(())
}

//! One function for each machine.
//!
//! PCI addresses and NUMA nodes are those of real captures of such machines, and so are the switches' places where the
//! capture shows them; a virtual machine often does not.

use crate::machine::Machine;
use crate::model;
use crate::pci::{PciAddress, Route};
use crate::state::Driver;

use super::{Profile, Slot, Wiring};

fn driver(version: &str, cuda: i32, open: bool) -> Option<Driver> {
    Some(Driver { version: version.to_owned(), cuda, open })
}

fn machine(sockets: u32, cores: u32, threads: u32, l3_cores: u32, gib: u64) -> Machine {
    Machine {
        sockets,
        cores,
        threads,
        l3_cores,
        nodes_per_socket: 1,
        node_memory: gib * 1024,
        memory_nodes: Vec::new(),
        remote_distance: 21,
    }
}

/// A GPU on a switch of its own below root bus `root`, or on one that it shares: `port` tells downstream ports apart.
fn switched(root: u8, port: u8, bus: u8, node: u32) -> Slot {
    let bridges = vec![
        PciAddress::new(0, root, 1),
        PciAddress::new(0, root + 1, 0),
        PciAddress::new(0, root + 2, port),
    ];
    let device = PciAddress::new(0, bus, 0);
    Slot { route: Route { device, bridges }, node: Some(node), memory_node: None }
}

/// A GPU without anything between it and its root bus, as some virtual machines show it.
fn flat(bus: u8, device: u8, node: Option<u32>) -> Slot {
    let device = PciAddress::new(0, bus, device);
    Slot { route: Route { device, bridges: Vec::new() }, node, memory_node: None }
}

/// A GPU in a slot: one root port.
fn slotted(domain: u32, root: u8, bus: u8, node: u32) -> Slot {
    let route = Route {
        device: PciAddress::new(domain, bus, 0),
        bridges: vec![PciAddress::new(domain, root, 1 - u8::from(domain > 0))],
    };
    Slot { route, node: Some(node), memory_node: None }
}

pub(super) fn p4d() -> Profile {
    let places = [(0x10, 0), (0x20, 0), (0x90, 1), (0xa0, 1)];
    let pair = |(bus, node)| [0x1c, 0x1d].map(|device| flat(bus, device, Some(node)));
    Profile {
        name: "p4d",
        about: "8 A100-SXM4-40GB behind NVSwitches, 2 sockets",
        driver: driver("550.163.01", 12040, false),
        machine: machine(2, 24, 2, 24, 576),
        model: &model::A100_SXM4_40,
        slots: places.into_iter().flat_map(pair).collect(),
        wiring: Wiring::Switches(
            (0x17..=0x1c).map(|device| PciAddress::new(0, 0xc0, device)).collect(),
        ),
    }
}

/// The same machine with twice the memory on its GPUs, and on itself.
pub(super) fn p4de() -> Profile {
    Profile {
        name: "p4de",
        about: "8 A100-SXM4-80GB behind NVSwitches, 2 sockets",
        machine: machine(2, 24, 2, 24, 1152),
        model: &model::A100_SXM4_80,
        ..p4d()
    }
}

pub(super) fn p5() -> Profile {
    let near = [0x53, 0x64, 0x75, 0x86].map(|bus| switched(bus - 0xf, 0, bus, 0));
    let far = [0x97, 0xa8, 0xb9, 0xca].map(|bus| switched(bus - 0xf, 0, bus, 1));
    Profile {
        name: "p5",
        about: "8 H100-80GB-HBM3 behind NVSwitches, a PCIe switch each, 2 sockets",
        driver: driver("550.163.01", 12040, false),
        machine: Machine { remote_distance: 32, ..machine(2, 48, 2, 8, 1024) },
        model: &model::H100_SXM,
        slots: near.into_iter().chain(far).collect(),
        wiring: Wiring::Switches((0..4).map(|device| PciAddress::new(0, 0xdb, device)).collect()),
    }
}

pub(super) fn h200() -> Profile {
    let near = [0x1b, 0x43, 0x52, 0x61].map(|bus| switched(bus - 4, 0, bus, 0));
    let far = [0x9d, 0xc3, 0xd1, 0xdf].map(|bus| switched(bus - 4, 0, bus, 1));
    Profile {
        name: "h200",
        about: "8 H200 behind NVSwitches, 2 sockets",
        driver: driver("550.163.01", 12040, true),
        machine: machine(2, 56, 2, 56, 1024),
        model: &model::H200,
        slots: near.into_iter().chain(far).collect(),
        wiring: Wiring::Switches((7..11).map(|bus| PciAddress::new(0, bus, 0)).collect()),
    }
}

pub(super) fn b200() -> Profile {
    let pair = |(root, bus, node)| [0_u8, 1].map(|port| switched(root, port, bus + port, node));
    let places = [(0x40, 0x51, 0), (0x54, 0x62, 0), (0x65, 0x75, 1), (0x78, 0x86, 1)];
    Profile {
        name: "b200",
        about: "8 B200 behind NVSwitches, two to a PCIe switch, 2 sockets",
        driver: driver("570.172.08", 12080, true),
        machine: machine(2, 48, 2, 48, 1024),
        model: &model::B200,
        slots: places.into_iter().flat_map(pair).collect(),
        // Managed from a card of their own: no address among the GPUs'.
        wiring: Wiring::Rack,
    }
}

pub(super) fn a30() -> Profile {
    let pair = |(root, bus, node)| [0_u8, 1].map(|port| switched(root, port, bus + port, node));
    Profile {
        name: "a30",
        about: "4 A30, pairs on a PCIe switch with an NVLink bridge, 2 sockets",
        driver: driver("535.261.03", 12020, false),
        machine: machine(2, 32, 2, 32, 256),
        model: &model::A30,
        slots: [(0x14, 0x17, 0), (0xc4, 0xc7, 1)].into_iter().flat_map(pair).collect(),
        wiring: Wiring::Pairs,
    }
}

pub(super) fn l40s() -> Profile {
    let places = [(0x48, 0x4a, 0), (0x5f, 0x61, 0), (0xc8, 0xca, 1), (0xdf, 0xe1, 1)];
    Profile {
        name: "l40s",
        about: "4 L40S in slots, no NVLink, no MIG, 2 sockets",
        driver: driver("550.163.01", 12040, true),
        machine: machine(2, 32, 2, 32, 256),
        model: &model::L40S,
        slots: places.map(|(root, bus, node)| slotted(0, root, bus, node)).into(),
        wiring: Wiring::None,
    }
}

pub(super) fn rtx6000() -> Profile {
    let places = [(0x20, 0x21, 0), (0x40, 0x41, 0), (0xa0, 0xa1, 1), (0xc0, 0xc1, 1)];
    Profile {
        name: "rtx6000",
        about: "4 RTX PRO 6000 Blackwell in slots, MIG, no NVLink, 2 sockets",
        driver: driver("580.105.08", 13000, true),
        machine: machine(2, 48, 2, 8, 512),
        model: &model::RTX_PRO_6000,
        slots: places.map(|(root, bus, node)| slotted(0, root, bus, node)).into(),
        wiring: Wiring::None,
    }
}

pub(super) fn t4() -> Profile {
    Profile {
        name: "t4",
        about: "4 T4 of a virtual machine that shows no NUMA node, no NVLink, no MIG",
        driver: driver("535.261.03", 12020, false),
        machine: machine(1, 24, 2, 24, 192),
        model: &model::T4,
        slots: (0x1b..=0x1e).map(|device| flat(0, device, None)).collect(),
        wiring: Wiring::None,
    }
}

pub(super) fn gb200() -> Profile {
    let places = [(0x08, 0), (0x09, 0), (0x18, 1), (0x19, 1)];
    // Eight nodes a GPU: the first holds its HBM, the others are kept for MIG instances.
    let hbm =
        |index: u32| (if index.is_multiple_of(8) { model::GB200.memory } else { 0 }, index / 16);
    let slot = |(index, (domain, node)): (usize, (u32, u32))| Slot {
        memory_node: u32::try_from(2 + 8 * index).ok(),
        ..slotted(domain, 0, 1, node)
    };
    Profile {
        name: "gb200",
        about: "4 GB200, HBM as memory-only NUMA nodes, 2 Grace sockets, NVLink of the rack",
        driver: driver("570.172.08", 12080, true),
        machine: Machine {
            memory_nodes: (0..32).map(hbm).collect(),
            remote_distance: 40,
            ..machine(2, 72, 1, 72, 480)
        },
        model: &model::GB200,
        slots: places.into_iter().enumerate().map(slot).collect(),
        wiring: Wiring::Rack,
    }
}

/// A small machine, which a virtual one can be: GPUs on each of two NUMA nodes of four CPUs.
pub(super) fn two_nodes() -> Profile {
    let slot = |(bus, node)| switched(bus - 4, 0, bus, node);
    Profile {
        name: "two-nodes",
        about: "4 H100-80GB-HBM3, two to each of 2 NUMA nodes of 4 CPUs",
        driver: driver("550.163.01", 12040, false),
        machine: machine(2, 4, 1, 4, 1),
        model: &model::H100_SXM,
        slots: [(0x14, 0), (0x24, 0), (0x94, 1), (0xa4, 1)].into_iter().map(slot).collect(),
        wiring: Wiring::None,
    }
}

/// Another: a GPU on each of four NUMA nodes of two sockets, cores of two threads, and two nodes of memory alone.
pub(super) fn four_nodes() -> Profile {
    let slot = |(bus, node)| Slot {
        memory_node: (node % 2 == 0).then_some(4 + node / 2),
        ..switched(bus - 4, 0, bus, node)
    };
    Profile {
        name: "four-nodes",
        about: "4 H100-80GB-HBM3, one to each of 4 NUMA nodes of 4 CPUs, 2 sockets, 2 nodes of memory alone",
        machine: Machine {
            nodes_per_socket: 2,
            memory_nodes: vec![(256, 0), (256, 1)],
            ..machine(2, 4, 2, 4, 1)
        },
        slots: [(0x14, 0), (0x24, 1), (0x94, 2), (0xa4, 3)].into_iter().map(slot).collect(),
        ..two_nodes()
    }
}

pub(super) fn one() -> Profile {
    Profile {
        name: "one",
        about: "one H100 PCIe, one socket",
        driver: driver("550.163.01", 12040, false),
        machine: machine(1, 16, 2, 16, 128),
        model: &model::H100_PCIE,
        slots: vec![slotted(0, 0, 1, 0)],
        wiring: Wiring::None,
    }
}

pub(super) fn none() -> Profile {
    Profile {
        name: "none",
        about: "no GPU and no driver",
        driver: None,
        slots: Vec::new(),
        ..one()
    }
}

//! The machines that can be simulated: what a profile says, and the GPUs that follow from it.

mod machines;

use sha2::{Digest, Sha256};

use crate::error::NodeError;
use crate::machine::Machine;
use crate::model::Model;
use crate::pci::{PciAddress, Route};
use crate::state::{Driver, Gpu, Link, MigMode};

/// One machine.
#[derive(Debug, Clone)]
pub struct Profile {
    /// What it is called.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Its driver; none: no driver, no library.
    pub driver: Option<Driver>,
    /// CPUs and memory.
    pub machine: Machine,
    /// The kind of its GPUs.
    pub model: &'static Model,
    /// Where each GPU is.
    pub slots: Vec<Slot>,
    /// How NVLinks connect them.
    pub wiring: Wiring,
}

/// Where a GPU is.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The way to it.
    pub route: Route,
    /// NUMA node of the PCI device.
    pub node: Option<u32>,
    /// NUMA node of its memory, where it has one.
    pub memory_node: Option<u32>,
}

/// How NVLinks connect the GPUs.
#[derive(Debug, Clone)]
pub enum Wiring {
    /// Not at all.
    None,
    /// Each even GPU with the next one.
    Pairs,
    /// All of them through these switches.
    Switches(Vec<PciAddress>),
    /// All of them through switches of the rack.
    Rack,
}

/// Names of all profiles.
pub const NAMES: [&str; 14] = [
    "p4d",
    "p5",
    "h200",
    "b200",
    "a30",
    "l40s",
    "t4",
    "gb200",
    "p4de",
    "rtx6000",
    "two-nodes",
    "four-nodes",
    "one",
    "none",
];

impl Profile {
    /// The profile of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Self, NodeError> {
        let unknown =
            || NodeError::UnknownProfile { name: name.to_owned(), known: NAMES.join(", ") };
        Ok(match name {
            "p4d" => machines::p4d(),
            "p4de" => machines::p4de(),
            "p5" => machines::p5(),
            "h200" => machines::h200(),
            "b200" => machines::b200(),
            "a30" => machines::a30(),
            "rtx6000" => machines::rtx6000(),
            "l40s" => machines::l40s(),
            "t4" => machines::t4(),
            "gb200" => machines::gb200(),
            "two-nodes" => machines::two_nodes(),
            "four-nodes" => machines::four_nodes(),
            "one" => machines::one(),
            "none" => machines::none(),
            _ => return Err(unknown()),
        })
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().filter_map(|name| Self::named(name).ok())
    }

    /// NVSwitches with an address here.
    #[must_use]
    pub fn switches(&self) -> &[PciAddress] {
        match &self.wiring {
            Wiring::Switches(switches) => switches,
            Wiring::None | Wiring::Pairs | Wiring::Rack => &[],
        }
    }

    /// Its GPUs as they are after boot: the same ones each time.
    #[must_use]
    pub fn gpus(&self) -> Vec<Gpu> {
        (0..self.slots.len()).map(|index| self.gpu(index)).collect()
    }

    fn gpu(&self, index: usize) -> Gpu {
        let slot = &self.slots[index];
        let digest = Sha256::digest(format!("{}/{index}", self.name));
        Gpu {
            model: self.model.name.to_owned(),
            minor: u32::try_from(index).unwrap_or(u32::MAX),
            uuid: uuid(&digest),
            serial: format!(
                "165{:010}",
                u32::from_be_bytes([digest[16], digest[17], digest[18], digest[19]])
            ),
            route: slot.route.clone(),
            node: slot.node,
            memory_node: slot.memory_node,
            links: self.links(index),
            mig: (!self.model.profiles.is_empty())
                .then_some(MigMode { current: false, pending: false }),
            instances: Vec::new(),
            persistence: true,
            compute_mode: 0,
            processes: Vec::new(),
            utilisation: (0, 0),
            temperature: 31,
            lost: false,
        }
    }

    fn links(&self, index: usize) -> Vec<Link> {
        let link = |number: usize| match &self.wiring {
            Wiring::None => Link::Down,
            Wiring::Pairs => {
                self.slots.get(index ^ 1).map_or(Link::Down, |other| Link::Gpu(other.route.device))
            }
            Wiring::Switches(switches) => Link::Switch(Some(switches[number % switches.len()])),
            Wiring::Rack => Link::Switch(None),
        };
        (0..self.model.nvlinks.0 as usize).map(link).collect()
    }
}

fn uuid(digest: &[u8]) -> String {
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn gpus_are_the_same_each_time_and_no_two_are() {
        let all: Vec<Gpu> = Profile::all().flat_map(|profile| profile.gpus()).collect();
        let again: Vec<Gpu> = Profile::all().flat_map(|profile| profile.gpus()).collect();
        assert_eq!(all, again);
        let uuids: BTreeSet<_> = all.iter().map(|gpu| &gpu.uuid).collect();
        let serials: BTreeSet<_> = all.iter().map(|gpu| &gpu.serial).collect();
        assert_eq!((uuids.len(), serials.len()), (all.len(), all.len()));
    }

    #[test]
    fn the_driver_counts_by_pci_address() {
        for profile in Profile::all() {
            let gpus = profile.gpus();
            assert!(gpus.is_sorted_by_key(|gpu| gpu.route.device), "{}", profile.name);
            for gpu in gpus {
                let nodes = profile.machine.nodes();
                assert!(gpu.node.is_none_or(|node| node < nodes), "{}", profile.name);
                assert!(gpu.memory_node.is_none_or(|node| profile.machine.memory_of(node) > 0));
            }
        }
    }

    #[test]
    fn links_lead_where_the_wiring_says() {
        let links = |name: &str, from: usize, to: usize| {
            let gpus = Profile::named(name).expect("known").gpus();
            gpus[from].links_to(&gpus[to])
        };
        assert_eq!([links("p4d", 0, 7), links("p5", 0, 7), links("gb200", 0, 3)], [12, 18, 18]);
        assert_eq!([links("a30", 0, 1), links("a30", 1, 2), links("a30", 3, 2)], [4, 0, 4]);
        assert_eq!([links("t4", 0, 1), links("l40s", 0, 1)], [0, 0]);
    }

    #[test]
    fn an_unknown_profile_is_refused_with_the_known_ones() {
        let words = Profile::named("dgx").expect_err("unknown").to_string();
        assert!(words.contains("\"dgx\"") && words.contains("p5, h200"), "{words}");
    }
}

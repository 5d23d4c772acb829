//! Where a device hangs on the PCI bus, and how close two devices are there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Domain, bus, device; the function is always 0 here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    /// 0 on most machines.
    pub domain: u32,
    /// 0–255.
    pub bus: u8,
    /// 0–31.
    pub device: u8,
}

impl PciAddress {
    /// The address, in domain 0 if that is what `domain` says.
    #[must_use]
    pub const fn new(domain: u32, bus: u8, device: u8) -> Self {
        Self { domain, bus, device }
    }

    /// As NVML writes it: eight digits of domain.
    #[must_use]
    pub fn long(self) -> String {
        format!("{:08X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }
}

/// As the kernel writes it: four digits of domain, small letters.
impl fmt::Display for PciAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04x}:{:02x}:{:02x}.0", self.domain, self.bus, self.device)
    }
}

/// That is no PCI address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no PCI address such as 0000:53:00.0")]
pub struct NoAddress(String);

impl FromStr for PciAddress {
    type Err = NoAddress;

    /// With four or eight digits of domain, or none of them, as the driver takes it.
    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let no = || NoAddress(text.to_owned());
        let mut parts = text.rsplitn(3, ':');
        let slot = parts.next().and_then(|slot| slot.strip_suffix(".0")).ok_or_else(no)?;
        let bus = parts.next().ok_or_else(no)?;
        let domain = parts.next().unwrap_or("0");
        Ok(Self {
            domain: u32::from_str_radix(domain, 16).map_err(|_| no())?,
            bus: u8::from_str_radix(bus, 16).map_err(|_| no())?,
            device: u8::from_str_radix(slot, 16).map_err(|_| no())?,
        })
    }
}

impl TryFrom<String> for PciAddress {
    type Error = NoAddress;

    fn try_from(text: String) -> Result<Self, NoAddress> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

/// The way from the host to a device: the bridges, from the root port down. The root bus is the first bridge's (or the
/// device's own when there is none).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The device at the end.
    pub device: PciAddress,
    /// Root port, then upstream and downstream ports of each switch.
    pub bridges: Vec<PciAddress>,
}

/// NVML's `nvmlGpuTopologyLevel_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Ancestor {
    /// The same board.
    Internal = 0,
    /// One PCIe switch (PIX).
    Single = 10,
    /// Several switches, no host bridge (PXB).
    Multiple = 20,
    /// The same host bridge (PHB).
    HostBridge = 30,
    /// The same NUMA node (NODE).
    Node = 40,
    /// Across the system (SYS).
    System = 50,
}

impl Route {
    /// Domain and bus where the host's own part begins: `pci0000:44` in sysfs.
    #[must_use]
    pub fn root(&self) -> (u32, u8) {
        let first = self.bridges.first().unwrap_or(&self.device);
        (first.domain, first.bus)
    }

    /// The folder of the device below `/sys/devices`.
    #[must_use]
    pub fn sysfs(&self) -> String {
        let (domain, bus) = self.root();
        let mut path = format!("pci{domain:04x}:{bus:02x}");
        for address in self.bridges.iter().chain([&self.device]) {
            path.push_str(&format!("/{address}"));
        }
        path
    }

    /// What two devices have in common, by their bridges and host bridge; `node` says whether they share a NUMA node.
    #[must_use]
    pub fn ancestor(&self, other: &Self, node: bool) -> Ancestor {
        let shared =
            self.bridges.iter().zip(&other.bridges).take_while(|(one, two)| one == two).count();
        // Below a shared switch each device has a downstream port of its own.
        let deepest = self.bridges.len().max(other.bridges.len());
        if self.device == other.device {
            Ancestor::Internal
        } else if shared > 0 && shared + 1 >= deepest {
            Ancestor::Single
        } else if shared > 0 {
            Ancestor::Multiple
        } else if self.root() == other.root() {
            Ancestor::HostBridge
        } else if node {
            Ancestor::Node
        } else {
            Ancestor::System
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(device: &str, bridges: &[&str]) -> Route {
        let parse = |text: &str| text.parse().expect("an address");
        Route { device: parse(device), bridges: bridges.iter().map(|text| parse(text)).collect() }
    }

    #[test]
    fn addresses_read_as_both_the_kernel_and_nvml_write_them() {
        let address = PciAddress::new(8, 0x1c, 3);
        assert_eq!(address.to_string(), "0008:1c:03.0");
        assert_eq!(address.long(), "00000008:1C:03.0");
        for text in ["0008:1c:03.0", "00000008:1C:03.0"] {
            assert_eq!(text.parse::<PciAddress>().expect("an address"), address);
        }
        assert_eq!("53:00.0".parse::<PciAddress>().expect("short").domain, 0);
        for text in ["", "53", "0000:53:00", "0000:53:00.1", "x:53:00.0"] {
            assert!(text.parse::<PciAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn closeness_follows_the_bridges() {
        let one = route("0000:51:00.0", &["0000:40:01.0", "0000:41:00.0", "0000:42:00.0"]);
        let two = route("0000:52:00.0", &["0000:40:01.0", "0000:41:00.0", "0000:42:01.0"]);
        let cascade = route(
            "0000:58:00.0",
            &["0000:40:01.0", "0000:41:00.0", "0000:42:02.0", "0000:54:00.0", "0000:55:00.0"],
        );
        let port = route("0000:60:00.0", &["0000:40:03.0"]);
        let far = route("0000:90:00.0", &["0000:89:01.0"]);
        assert_eq!(one.ancestor(&one, true), Ancestor::Internal);
        assert_eq!(one.ancestor(&two, true), Ancestor::Single);
        assert_eq!(one.ancestor(&cascade, true), Ancestor::Multiple);
        assert_eq!(one.ancestor(&port, true), Ancestor::HostBridge);
        assert_eq!(one.ancestor(&far, true), Ancestor::Node);
        assert_eq!(one.ancestor(&far, false), Ancestor::System);
        assert_eq!(two.sysfs(), "pci0000:40/0000:40:01.0/0000:41:00.0/0000:42:01.0/0000:52:00.0");
    }
}

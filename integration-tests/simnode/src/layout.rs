//! Where distributions put a driver's files.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a driver's files lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// `/usr/lib/x86_64-linux-gnu`: Ubuntu's packages, NVIDIA's own installer on Debian.
    Debian,
    /// `/usr/lib/x86_64-linux-gnu/nvidia/current`, reached through `/etc/alternatives`: Debian's packages.
    DebianAlternatives,
    /// `/usr/lib64`.
    Redhat,
    /// `/run/nvidia/driver`: the root of a container that brings the driver, as the GPU operator runs it. The host has no file of
    /// the driver's.
    DriverContainer,
}

impl Layout {
    /// All of them, by name.
    pub const ALL: [(&str, Self); 4] = [
        ("debian", Self::Debian),
        ("debian-alternatives", Self::DebianAlternatives),
        ("redhat", Self::Redhat),
        ("driver-container", Self::DriverContainer),
    ];

    /// The root of the driver's files, below that of the node.
    #[must_use]
    pub fn driver_root(self) -> &'static Path {
        Path::new(match self {
            Self::DriverContainer => "run/nvidia/driver",
            Self::Debian | Self::DebianAlternatives | Self::Redhat => "",
        })
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, layout)| layout == self).map_or("", |(name, _)| name);
        formatter.write_str(name)
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, layout)| *layout).ok_or_else(|| {
            format!("no layout {text:?}; there are {}", Self::ALL.map(|(name, _)| name).join(", "))
        })
    }
}

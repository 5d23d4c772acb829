//! Names that cannot be wrong: identities of GPUs, MIG devices and grants, sizes of memory.
//!
//! Decides their one written form. Text is parsed here, at the edge, and nowhere else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::words::quoted;

/// A name that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not {what}, for example {example}", quoted(.text))]
pub struct BadName {
    /// As it was written.
    pub text: String,
    /// What it should have been.
    pub what: &'static str,
    /// A valid one.
    pub example: &'static str,
}

/// A GPU's UUID as NVML writes it: `GPU-` and 8-4-4-4-12 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GpuUuid(String);

impl GpuUuid {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GpuUuid {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName {
            text: text.to_owned(),
            what: "a GPU's UUID",
            example: "GPU-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d",
        };
        let digits = text.strip_prefix("GPU-").filter(|digits| is_uuid(digits)).ok_or_else(bad)?;
        Ok(Self(format!("GPU-{}", digits.to_ascii_lowercase())))
    }
}

/// Whether it is 8-4-4-4-12 hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hex = groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    lengths == [8, 4, 4, 4, 12] && hex
}

/// A MIG device's UUID, which names a compute instance: `MIG-` and 8-4-4-4-12 hexadecimal digits; before R470,
/// `MIG-GPU-<the GPU's UUID>/<GPU instance>/<compute instance>`. The driver gives a new one to each instance that it makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MigUuid(String);

impl MigUuid {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What an older name says: the GPU, the driver's id of the GPU instance on it, and that of the compute instance in that.
    pub fn legacy(&self) -> Option<(GpuUuid, u32, u32)> {
        let mut parts = self.0.strip_prefix("MIG-")?.split('/');
        let (gpu, gi, ci) = (parts.next()?, parts.next()?, parts.next()?);
        Some((gpu.parse().ok()?, gi.parse().ok()?, ci.parse().ok()?))
    }
}

impl FromStr for MigUuid {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let parse = || {
            let name = text.strip_prefix("MIG-")?;
            if is_uuid(name) {
                return Some(Self(format!("MIG-{}", name.to_ascii_lowercase())));
            }
            let (gpu, ids) = name.split_once('/')?;
            let (gi, ci) = ids.split_once('/')?;
            let id = |digits: &str| {
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
                plain.then(|| digits.parse::<u32>().ok()).flatten()
            };
            Some(Self(format!("MIG-{}/{}/{}", gpu.parse::<GpuUuid>().ok()?, id(gi)?, id(ci)?)))
        };
        parse().ok_or_else(|| BadName {
            text: text.to_owned(),
            what: "a MIG device's UUID",
            example: "MIG-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d",
        })
    }
}

/// A PCI address: domain, bus, device, function. Written `0000:17:00.0`, as sysfs has it; NVML's eight digits of domain are read, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    /// PCI domain (segment).
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl FromStr for PciAddress {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let parse = || {
            let (domain, rest) = text.split_once(':')?;
            let (bus, rest) = rest.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            let number = |digits: &str, most: usize| {
                let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                (plain && !digits.is_empty() && digits.len() <= most)
                    .then(|| u32::from_str_radix(digits, 16).ok())
                    .flatten()
            };
            let (device, function) = (number(device, 2)?, number(function, 1)?);
            (device < 32 && function < 8).then_some(())?;
            Some(Self {
                domain: number(domain, 8)?,
                bus: u8::try_from(number(bus, 2)?).ok()?,
                device: u8::try_from(device).ok()?,
                function: u8::try_from(function).ok()?,
            })
        };
        parse().ok_or_else(|| BadName {
            text: text.to_owned(),
            what: "a PCI address",
            example: "0000:17:00.0",
        })
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

/// Identity of a grant: `g-` and sixteen hexadecimal digits, drawn at admission.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GrantId(String);

impl GrantId {
    /// From sixty-four random bits; randomness is the caller's.
    pub fn from_bits(bits: u64) -> Self {
        Self(format!("g-{bits:016x}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GrantId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let digits = text.strip_prefix("g-").unwrap_or("");
        if digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(text.to_owned()));
        }
        Err(BadName { text: text.to_owned(), what: "a grant's id", example: "g-00c0ffee00c0ffee" })
    }
}

/// Memory in mebibytes, as NVML's figures are shown.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Mib(pub u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

macro_rules! text_form {
    ($($name:ty),+) => {$(
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )+};
}
text_form!(GpuUuid, MigUuid, PciAddress, GrantId, crate::mig::ProfileName);

impl fmt::Display for MigUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for GpuUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mig_devices_have_names_of_two_forms() {
        let new = "MIG-5C1A9E3B-0d4f-4d8a-9b2e-1f6c7a8b9c0d".parse::<MigUuid>().expect("a name");
        assert_eq!(new.as_str(), "MIG-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d");
        assert_eq!(new.legacy(), None);
        let gpu = "GPU-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d";
        let old = format!("MIG-{gpu}/13/0").parse::<MigUuid>().expect("a name");
        assert_eq!(old.legacy(), Some((gpu.parse().expect("a UUID"), 13, 0)));
        for text in [
            "",
            "MIG-",
            "MIG-1",
            gpu,
            &format!("MIG-{gpu}"),
            &format!("MIG-{gpu}/1"),
            &format!("MIG-{gpu}/1/-2"),
        ] {
            assert!(text.parse::<MigUuid>().is_err(), "{text:?}");
        }
    }
}

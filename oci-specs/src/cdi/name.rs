//! Names of CDI devices, `vendor/class=device`, and the annotations that carry them.
//!
//! Decides what is a name. Must not know which devices there are.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::CdiError;

/// Prefix of the annotations that ask for devices; the rest of the key is for whoever set it.
const ANNOTATION_PREFIX: &str = "cdi.k8s.io/";

/// A device's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedName {
    /// Who makes the device, a domain.
    pub vendor: String,
    /// What sort of device.
    pub class: String,
    /// Which one.
    pub device: String,
}

impl FromStr for QualifiedName {
    type Err = CdiError;

    fn from_str(name: &str) -> Result<Self, CdiError> {
        let bad = |problem| CdiError::Name { name: name.into(), problem };
        let (kind, device) = name.split_once('=').ok_or_else(|| bad("it has no '='"))?;
        let (vendor, class) = split_kind(kind).map_err(bad)?;
        check_device(device).map_err(bad)?;
        Ok(Self { vendor: vendor.into(), class: class.into(), device: device.into() })
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}={}", self.vendor, self.class, self.device)
    }
}

/// The devices that annotations `cdi.k8s.io/*` ask for, in the order of the keys and of each list,
/// each once.
///
/// # Errors
/// [`CdiError::Annotation`] when a value is not a comma-separated list of names.
pub fn annotation_devices(
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<QualifiedName>, CdiError> {
    let mut names = Vec::new();
    let asking = annotations
        .range(ANNOTATION_PREFIX.to_owned()..)
        .take_while(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
    for (key, value) in asking {
        for name in value.split(',') {
            let name: QualifiedName = name.parse().map_err(|source| CdiError::Annotation {
                key: key.clone(),
                source: Box::new(source),
            })?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// Vendor and class of a kind, `vendor/class`.
pub(super) fn split_kind(kind: &str) -> Result<(&str, &str), &'static str> {
    let (vendor, class) = kind.split_once('/').ok_or("it has no '/'")?;
    for part in [vendor, class] {
        let between = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if !part.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err("vendor and class begin with a letter");
        }
        if !part.ends_with(|c: char| c.is_ascii_alphanumeric()) || !part.chars().all(between) {
            return Err("vendor and class are of letters, digits, '_', '-' and '.', \
                        and end with a letter or digit");
        }
    }
    Ok((vendor, class))
}

/// Checks the last part of a name.
pub(super) fn check_device(device: &str) -> Result<(), &'static str> {
    let between = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    let end = |c: char| c.is_ascii_alphanumeric();
    match device.starts_with(end) && device.ends_with(end) && device.chars().all(between) {
        true => Ok(()),
        false => Err("a device is named by letters, digits, '_', '-', '.' and ':', \
                      and begins and ends with a letter or digit"),
    }
}

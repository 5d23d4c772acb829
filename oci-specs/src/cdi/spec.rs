//! One CDI spec: its fields, and the rules that it must keep.
//!
//! Decides what is a valid spec. Unknown fields are refused, as CDI's own reader does: a container
//! that lacks what a newer spec asks for would fail later, and without words. Must not touch the disk.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::name::{check_device, split_kind};
use crate::parts::{HookKind, null_is_default};

/// Versions of CDI that are read here, in order.
const VERSIONS: [&str; 8] =
    ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// A spec file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) cdi_version: String,
    pub(super) kind: String,
    #[serde(default, deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) devices: Vec<SpecDevice>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) container_edits: SpecEdits,
}

/// A device of a spec.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SpecDevice {
    pub(super) name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) container_edits: SpecEdits,
}

/// What a container gets.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SpecEdits {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) env: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) device_nodes: Vec<SpecNode>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) net_devices: Vec<serde::de::IgnoredAny>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) hooks: Vec<SpecHook>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) mounts: Vec<SpecMount>,
    pub(super) intel_rdt: Option<serde::de::IgnoredAny>,
    #[serde(rename = "additionalGids", deserialize_with = "null_is_default")]
    pub(super) additional_gids: Vec<u32>,
}

/// A device node; what is absent is as on the host.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SpecNode {
    pub(super) path: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) host_path: String,
    #[serde(rename = "type", deserialize_with = "null_is_default")]
    pub(super) kind: String,
    pub(super) major: Option<i64>,
    pub(super) minor: Option<i64>,
    pub(super) file_mode: Option<u32>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// A hook.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SpecHook {
    pub(super) hook_name: String,
    pub(super) path: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) args: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) env: Vec<String>,
    pub(super) timeout: Option<i64>,
}

/// A mount.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SpecMount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) options: Vec<String>,
    #[serde(rename = "type", deserialize_with = "null_is_default")]
    pub(super) kind: String,
}

impl Spec {
    /// Checks the rules of the specification.
    ///
    /// # Errors
    /// The field and the rule, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        let version = &self.cdi_version;
        let known = VERSIONS.iter().position(|known| known == version).ok_or_else(|| {
            format!("cdiVersion {version:?} is not one that is read here: {}", VERSIONS.join(", "))
        })?;
        let (_, class) =
            split_kind(&self.kind).map_err(|why| format!("kind {:?}: {why}", self.kind))?;
        if self.devices.is_empty() {
            return Err("it has no devices".into());
        }
        let mut needs = Needs { version: 0, what: String::new() };
        needs.at_least("0.6.0", "annotations", !self.annotations.is_empty());
        needs.at_least("0.6.0", "a class with a '.'", class.contains('.'));
        self.container_edits.check(&mut needs).map_err(|why| format!("containerEdits.{why}"))?;
        for (at, device) in self.devices.iter().enumerate() {
            let name = &device.name;
            check_device(name).map_err(|why| format!("devices[{at}].name {name:?}: {why}"))?;
            if self.devices[..at].iter().any(|other| other.name == *name) {
                return Err(format!("device {name:?} is there twice"));
            }
            let digit = name.starts_with(|c: char| c.is_ascii_digit());
            needs.at_least("0.5.0", "a device name that begins with a digit", digit);
            needs.at_least("0.6.0", "annotations", !device.annotations.is_empty());
            device
                .container_edits
                .check(&mut needs)
                .map_err(|why| format!("device {name:?}: containerEdits.{why}"))?;
        }
        match known < needs.version {
            true => Err(format!(
                "cdiVersion {version} has no {}; that came with {}",
                needs.what, VERSIONS[needs.version]
            )),
            false => Ok(()),
        }
    }
}

/// The version that a spec's content needs.
struct Needs {
    version: usize,
    what: String,
}

impl Needs {
    fn at_least(&mut self, version: &str, what: &str, used: bool) {
        let version = VERSIONS.iter().position(|known| *known == version).unwrap_or_default();
        if used && version > self.version {
            *self = Self { version, what: what.into() };
        }
    }
}

impl SpecEdits {
    fn check(&self, needs: &mut Needs) -> Result<(), String> {
        needs.at_least(
            "0.4.0",
            "mounts with a type",
            self.mounts.iter().any(|m| !m.kind.is_empty()),
        );
        let host_paths = self.device_nodes.iter().any(|node| !node.host_path.is_empty());
        needs.at_least("0.5.0", "deviceNodes with a hostPath", host_paths);
        needs.at_least("0.7.0", "additionalGids", !self.additional_gids.is_empty());
        needs.at_least("0.7.0", "intelRdt", self.intel_rdt.is_some());
        needs.at_least("1.1.0", "netDevices", !self.net_devices.is_empty());
        if self.intel_rdt.is_some() {
            return Err("intelRdt is not supported here; remove it from the spec".into());
        }
        if !self.net_devices.is_empty() {
            return Err("netDevices is not supported here; remove it from the spec".into());
        }
        for (at, entry) in self.env.iter().enumerate() {
            let named = entry.split_once('=').is_some_and(|(name, _)| !name.is_empty());
            if !named || entry.contains('\0') {
                return Err(format!("env[{at}] {entry:?} does not read NAME=value"));
            }
        }
        self.check_nodes()?;
        self.check_hooks()?;
        for (at, mount) in self.mounts.iter().enumerate() {
            check_path(&mount.container_path)
                .map_err(|why| format!("mounts[{at}].containerPath {why}"))?;
            // A tmpfs has a name, not a path; whatever is bound has one.
            if mount.kind.is_empty() || mount.kind == "bind" {
                check_path(&mount.host_path)
                    .map_err(|why| format!("mounts[{at}].hostPath {why}"))?;
            }
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), String> {
        for (at, node) in self.device_nodes.iter().enumerate() {
            check_path(&node.path).map_err(|why| format!("deviceNodes[{at}].path {why}"))?;
            if !node.host_path.is_empty() {
                check_path(&node.host_path)
                    .map_err(|why| format!("deviceNodes[{at}].hostPath {why}"))?;
            }
            if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
                return Err(format!(
                    "deviceNodes[{at}].type {:?} is none of b, c, u, p",
                    node.kind
                ));
            }
            // Numbers below zero would be wildcards in the device rule that comes with the node.
            if node.major.is_some_and(|n| n < 0) || node.minor.is_some_and(|n| n < 0) {
                return Err(format!("deviceNodes[{at}]: major and minor are not below 0"));
            }
            if !node.permissions.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
                return Err(format!(
                    "deviceNodes[{at}].permissions {:?} has something other than r, w and m",
                    node.permissions
                ));
            }
        }
        Ok(())
    }

    fn check_hooks(&self) -> Result<(), String> {
        for (at, hook) in self.hooks.iter().enumerate() {
            if HookKind::named(&hook.hook_name).is_none() {
                return Err(format!(
                    "hooks[{at}].hookName {:?} is no hook of OCI's",
                    hook.hook_name
                ));
            }
            check_path(&hook.path).map_err(|why| format!("hooks[{at}].path {why}"))?;
            if let Some(entry) = hook.env.iter().find(|entry| !entry.contains('=')) {
                return Err(format!("hooks[{at}].env: {entry:?} does not read NAME=value"));
            }
        }
        Ok(())
    }
}

/// A path that means the same wherever it is used.
fn check_path(path: &str) -> Result<(), String> {
    let problem = if !path.starts_with('/') {
        "is not absolute"
    } else if path.split('/').any(|part| part == "..") {
        "has '..' in it"
    } else if path.contains('\0') {
        "has a NUL byte in it"
    } else {
        return Ok(());
    };
    Err(format!("{path:?} {problem}"))
}

//! The rules of the specification, asked of one spec.
//!
//! Decides what is a valid spec, and which version of CDI has what is in it. Every breach is told, in the spec's order; a reader needs none
//! but the first. Must not touch the disk.

use std::fmt;

use super::name::{check_device, split_kind};
use super::spec::{Spec, SpecEdits};
use crate::parts::HookKind;

/// Versions of CDI that are read here, in order.
const VERSIONS: [&str; 8] =
    ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// Something that is wrong with a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// In which of its devices, if it is in one.
    pub device: Option<String>,
    /// In which field, as in `containerEdits.mounts[0].hostPath`; empty for the whole.
    pub field: String,
    /// What, as the end of a sentence that begins with the field.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, field, what } = self;
        match (device, field.as_str()) {
            (None, "") => f.write_str(what),
            (None, field) => write!(f, "{field} {what}"),
            (Some(device), "") => write!(f, "device {device:?} {what}"),
            (Some(device), field) => write!(f, "device {device:?}: {field} {what}"),
        }
    }
}

/// Problems as they are found.
#[derive(Default)]
pub(super) struct Found<'a> {
    device: Option<&'a str>,
    problems: Vec<Problem>,
    /// What the spec uses, and the version that has it.
    needs: Vec<(usize, Problem)>,
}

impl Found<'_> {
    fn add(&mut self, field: impl Into<String>, what: impl Into<String>) {
        let device = self.device.map(str::to_owned);
        self.problems.push(Problem { device, field: field.into(), what: what.into() });
    }

    fn path(&mut self, field: impl Into<String>, path: &str) {
        if let Err(why) = check_path(path) {
            self.add(field, why);
        }
    }

    fn at_least(&mut self, version: &str, what: &str, used: bool) {
        if used {
            let device = self.device.map(str::to_owned);
            let problem = Problem { device, field: String::new(), what: what.to_owned() };
            self.needs.push((place(version).unwrap_or_default(), problem));
        }
    }
}

impl Spec {
    /// The spec, if it breaks no rule; else the first that it breaks.
    pub(super) fn checked(self) -> Result<Self, String> {
        match self.problems().first() {
            Some(problem) => Err(problem.to_string()),
            None => Ok(self),
        }
    }

    /// Everything that breaks a rule of the specification; nothing for a valid spec.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut found = Found::default();
        let known = place(&self.cdi_version);
        if known.is_none() {
            let versions = VERSIONS.join(", ");
            let what = format!("{:?} is not one that is read here: {versions}", self.cdi_version);
            found.add("cdiVersion", what);
        }
        self.look(&mut found);
        let Found { mut problems, needs, .. } = found;
        let known = known.unwrap_or(VERSIONS.len());
        for (version, need) in needs.into_iter().filter(|(version, _)| *version > known) {
            let (has, since) = (VERSIONS[known], VERSIONS[version]);
            let what = format!("{has} has no {}; that came with {since}", need.what);
            let problem = Problem { field: "cdiVersion".to_owned(), what, ..need };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems
    }

    /// The lowest version of CDI that has all that the spec uses.
    pub(super) fn lowest_version(&self) -> &'static str {
        let mut found = Found::default();
        self.look(&mut found);
        VERSIONS[found.needs.iter().map(|(version, _)| *version).max().unwrap_or_default()]
    }

    fn look<'a>(&'a self, found: &mut Found<'a>) {
        match split_kind(&self.kind) {
            Ok((_, class)) => found.at_least("0.6.0", "a class with a '.'", class.contains('.')),
            Err(why) => found.add("kind", format!("{:?}: {why}", self.kind)),
        }
        if self.devices.is_empty() {
            found.add("", "it has no devices");
        }
        found.at_least("0.6.0", "annotations", !self.annotations.is_empty());
        self.container_edits.look(found);
        for (at, device) in self.devices.iter().enumerate() {
            let name = &device.name;
            if let Err(why) = check_device(name) {
                found.add(format!("devices[{at}].name"), format!("{name:?}: {why}"));
            }
            found.device = Some(name);
            if self.devices[..at].iter().any(|other| other.name == *name) {
                found.add("", "is there twice");
            }
            let digit = name.starts_with(|c: char| c.is_ascii_digit());
            found.at_least("0.5.0", "a device name that begins with a digit", digit);
            found.at_least("0.6.0", "annotations", !device.annotations.is_empty());
            device.container_edits.look(found);
            found.device = None;
        }
    }
}

/// Where a version stands among those that are known.
fn place(version: &str) -> Option<usize> {
    VERSIONS.iter().position(|known| *known == version)
}

impl SpecEdits {
    fn look(&self, found: &mut Found<'_>) {
        let typed = self.mounts.iter().any(|mount| !mount.kind.is_empty());
        found.at_least("0.4.0", "mounts with a type", typed);
        let host_paths = self.device_nodes.iter().any(|node| !node.host_path.is_empty());
        found.at_least("0.5.0", "deviceNodes with a hostPath", host_paths);
        found.at_least("0.7.0", "additionalGids", !self.additional_gids.is_empty());
        found.at_least("0.7.0", "intelRdt", self.intel_rdt.is_some());
        found.at_least("1.1.0", "netDevices", !self.net_devices.is_empty());
        let unsupported = "is not supported here; remove it from the spec";
        if self.intel_rdt.is_some() {
            found.add("containerEdits.intelRdt", unsupported);
        }
        if !self.net_devices.is_empty() {
            found.add("containerEdits.netDevices", unsupported);
        }
        for (at, entry) in self.env.iter().enumerate() {
            let named = entry.split_once('=').is_some_and(|(name, _)| !name.is_empty());
            if !named || entry.contains('\0') {
                let what = format!("{entry:?} does not read NAME=value");
                found.add(format!("containerEdits.env[{at}]"), what);
            }
        }
        self.look_at_nodes(found);
        self.look_at_hooks(found);
        for (at, mount) in self.mounts.iter().enumerate() {
            let field = |name| format!("containerEdits.mounts[{at}].{name}");
            found.path(field("containerPath"), &mount.container_path);
            // A tmpfs has a name, not a path; whatever is bound has one.
            if mount.is_bind() {
                found.path(field("hostPath"), &mount.host_path);
            }
        }
    }

    fn look_at_nodes(&self, found: &mut Found<'_>) {
        for (at, node) in self.device_nodes.iter().enumerate() {
            let field = |name| format!("containerEdits.deviceNodes[{at}].{name}");
            found.path(field("path"), &node.path);
            if !node.host_path.is_empty() {
                found.path(field("hostPath"), &node.host_path);
            }
            if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
                found.add(field("type"), format!("{:?} is none of b, c, u, p", node.kind));
            }
            // Numbers below zero would be wildcards in the device rule that comes with the node.
            for (name, number) in [("major", node.major), ("minor", node.minor)] {
                if let Some(number) = number.filter(|number| *number < 0) {
                    found.add(field(name), format!("{number} is below 0"));
                }
            }
            if !node.permissions.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
                let what = format!("{:?} has something other than r, w and m", node.permissions);
                found.add(field("permissions"), what);
            }
        }
    }

    fn look_at_hooks(&self, found: &mut Found<'_>) {
        for (at, hook) in self.hooks.iter().enumerate() {
            let field = |name: &str| format!("containerEdits.hooks[{at}].{name}");
            if HookKind::named(&hook.hook_name).is_none() {
                found.add(field("hookName"), format!("{:?} is no hook of OCI's", hook.hook_name));
            }
            found.path(field("path"), &hook.path);
            for (at, entry) in hook.env.iter().enumerate().filter(|(_, entry)| !entry.contains('='))
            {
                found.add(
                    field(&format!("env[{at}]")),
                    format!("{entry:?} does not read NAME=value"),
                );
            }
        }
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

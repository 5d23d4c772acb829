//! What CDI devices add up to for a container, and that as edits of its `config.json`.
//!
//! Decides how a node's gaps are filled from the host. Must not write.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::stat::{major, minor};

use super::CdiError;
use super::spec::{SpecEdits, SpecNode};
use crate::edits::Edits;
use crate::parts::{Device, DeviceRule, Hook, HookKind, Mount};

/// Everything that a container gets with some devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerEdits {
    /// Variables; of one name, the last counts.
    pub env: Vec<(String, String)>,
    /// Device nodes.
    pub device_nodes: Vec<DeviceNode>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Hooks.
    pub hooks: Vec<Hook>,
    /// Groups.
    pub additional_gids: Vec<u32>,
}

/// A device node as a spec describes it: what is `None` is as the node on the host is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceNode {
    /// Path in the container.
    pub path: String,
    /// Path on the host.
    pub host_path: String,
    /// `b`, `c`, `u` or `p`.
    pub kind: Option<String>,
    /// Major number.
    pub major: Option<i64>,
    /// Minor number.
    pub minor: Option<i64>,
    /// Permission bits; the OCI runtime's default when absent.
    pub file_mode: Option<u32>,
    /// What the container may do with it: any of `r`, `w`, `m`.
    pub access: String,
    /// Owner in the container.
    pub uid: Option<u32>,
    /// Group in the container.
    pub gid: Option<u32>,
}

impl ContainerEdits {
    /// Adds the edits of a spec or of one of its devices, whatever is there already left out.
    pub(super) fn add(&mut self, edits: &SpecEdits) {
        let env = edits.env.iter().filter_map(|entry| entry.split_once('='));
        for (name, value) in env {
            self.env.retain(|(present, _)| present != name);
            self.env.push((name.into(), value.into()));
        }
        add_new(&mut self.device_nodes, edits.device_nodes.iter().map(node));
        let mounts = edits.mounts.iter().map(|mount| Mount {
            destination: mount.container_path.clone(),
            kind: mount.kind.clone(),
            source: mount.host_path.clone(),
            options: mount.options.clone(),
        });
        add_new(&mut self.mounts, mounts);
        let hooks = edits.hooks.iter().filter_map(|hook| {
            Some(Hook {
                kind: HookKind::named(&hook.hook_name)?,
                path: hook.path.clone(),
                args: hook.args.clone(),
                env: hook.env.clone(),
                timeout: hook.timeout,
            })
        });
        add_new(&mut self.hooks, hooks);
        // Group 0 is left out, as CDI's own reader does: it would be the host's root group.
        let groups = edits.additional_gids.iter().copied().filter(|group| *group != 0);
        add_new(&mut self.additional_gids, groups);
    }

    /// The edits of a `config.json`. What specs leave out of device nodes is read from the host
    /// whose root is `root`.
    ///
    /// # Errors
    /// [`CdiError::Node`] when a node is not there or is no device.
    pub fn into_edits(self, root: &Path) -> Result<Edits, CdiError> {
        let mut edits = Edits {
            env: self.env,
            mounts: self.mounts,
            hooks: self.hooks,
            additional_gids: self.additional_gids,
            ..Edits::default()
        };
        for node in self.device_nodes {
            let access = node.access.clone();
            let device = node.into_device(root)?;
            // A pipe is a file like others to the device cgroup.
            if device.kind != "p" {
                let kind = if device.kind == "b" { "b" } else { "c" };
                edits.device_rules.push(DeviceRule::allow(
                    kind,
                    device.major,
                    device.minor,
                    &access,
                ));
            }
            edits.devices.push(device);
        }
        Ok(edits)
    }
}

impl DeviceNode {
    fn into_device(self, root: &Path) -> Result<Device, CdiError> {
        let mut device = Device {
            path: self.path,
            kind: self.kind.clone().unwrap_or_default(),
            major: self.major.unwrap_or_default(),
            minor: self.minor.unwrap_or_default(),
            file_mode: self.file_mode,
            uid: self.uid,
            gid: self.gid,
        };
        if is_complete(&device.kind, self.major, self.minor) {
            return Ok(device);
        }
        let path = root.join(self.host_path.trim_start_matches('/'));
        let error = |source| CdiError::Node { path: path.clone(), source };
        // Not followed: a node is where the spec says it is.
        let metadata = fs::symlink_metadata(&path).map_err(error)?;
        let kind = metadata.file_type();
        let found = if kind.is_char_device() {
            "c"
        } else if kind.is_block_device() {
            "b"
        } else if kind.is_fifo() {
            "p"
        } else {
            return Err(error(std::io::Error::other("it is not a device node")));
        };
        if self.kind.is_none() {
            device.kind = found.into();
        } else if device.kind.replace('u', "c") != found {
            let problem = format!("it is of type {found}, not {}", device.kind);
            return Err(error(std::io::Error::other(problem)));
        }
        if found != "p" && (self.major.is_none() || self.minor.is_none()) {
            let number = |number: u64| i64::try_from(number).unwrap_or_default();
            device.major = number(major(metadata.rdev()));
            device.minor = number(minor(metadata.rdev()));
        }
        Ok(device)
    }
}

/// Whether a node is described so that it need not be looked up on the host. A pipe has no numbers.
pub(super) fn is_complete(kind: &str, major: Option<i64>, minor: Option<i64>) -> bool {
    kind == "p" || (!kind.is_empty() && major.is_some() && minor.is_some())
}

fn node(node: &SpecNode) -> DeviceNode {
    let or = |text: &String, default: &String| {
        if text.is_empty() { default.clone() } else { text.clone() }
    };
    DeviceNode {
        path: node.path.clone(),
        host_path: or(&node.host_path, &node.path),
        kind: Some(node.kind.clone()).filter(|kind| !kind.is_empty()),
        major: node.major,
        minor: node.minor,
        file_mode: node.file_mode,
        access: or(&node.permissions, &"rwm".to_owned()),
        uid: node.uid,
        gid: node.gid,
    }
}

fn add_new<T: PartialEq>(list: &mut Vec<T>, items: impl Iterator<Item = T>) {
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

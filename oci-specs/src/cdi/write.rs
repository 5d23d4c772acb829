//! A spec of one's own as text.
//!
//! Decides its form: JSON, or YAML whose texts are all in quotes, so that none reads as anything else; and that it has the lowest version
//! that suffices. Must not touch the disk.

use std::fmt::Write as _;

use serde_json::Value;

use super::edits::{ContainerEdits, DeviceNode};
use super::spec::{Spec, SpecDevice, SpecEdits, SpecHook, SpecMount, SpecNode};

/// A spec that is to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewSpec {
    /// `vendor/class`.
    pub kind: String,
    /// What every container gets that has any of the devices.
    pub edits: ContainerEdits,
    /// Names, and what a container gets with each.
    pub devices: Vec<(String, ContainerEdits)>,
}

impl NewSpec {
    /// As JSON.
    ///
    /// # Errors
    /// The field and the rule that it breaks, in words.
    pub fn to_json(&self) -> Result<String, String> {
        let text = serde_json::to_string_pretty(&self.checked()?).map_err(|e| e.to_string())?;
        Ok(text + "\n")
    }

    /// As YAML.
    ///
    /// # Errors
    /// As [`NewSpec::to_json`].
    pub fn to_yaml(&self) -> Result<String, String> {
        let value = serde_json::to_value(self.checked()?).map_err(|error| error.to_string())?;
        let mut text = "---".to_owned();
        yaml(&value, 0, &mut text);
        Ok(text + "\n")
    }

    fn checked(&self) -> Result<Spec, String> {
        let device = |(name, edits): &(String, ContainerEdits)| SpecDevice {
            name: name.clone(),
            container_edits: written(edits),
            ..SpecDevice::default()
        };
        let mut spec = Spec {
            kind: self.kind.clone(),
            devices: self.devices.iter().map(device).collect(),
            container_edits: written(&self.edits),
            ..Spec::default()
        };
        spec.cdi_version = spec.lowest_version().to_owned();
        spec.checked()
    }
}

fn written(edits: &ContainerEdits) -> SpecEdits {
    SpecEdits {
        env: edits.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        device_nodes: edits.device_nodes.iter().map(node).collect(),
        mounts: edits
            .mounts
            .iter()
            .map(|mount| SpecMount {
                host_path: mount.source.clone(),
                container_path: mount.destination.clone(),
                options: mount.options.clone(),
                kind: mount.kind.clone(),
            })
            .collect(),
        hooks: edits
            .hooks
            .iter()
            .map(|hook| SpecHook {
                hook_name: hook.kind.name().to_owned(),
                path: hook.path.clone(),
                args: hook.args.clone(),
                env: hook.env.clone(),
                timeout: hook.timeout,
            })
            .collect(),
        additional_gids: edits.additional_gids.clone(),
        ..SpecEdits::default()
    }
}

/// What a reader would assume anyhow is left out.
fn node(node: &DeviceNode) -> SpecNode {
    let unless = |text: &String, usual: &str| match text == usual {
        true => String::new(),
        false => text.clone(),
    };
    SpecNode {
        path: node.path.clone(),
        host_path: unless(&node.host_path, &node.path),
        kind: node.kind.clone().unwrap_or_default(),
        major: node.major,
        minor: node.minor,
        file_mode: node.file_mode,
        permissions: unless(&node.access, "rwm"),
        uid: node.uid,
        gid: node.gid,
    }
}

/// Appends a value to a line that has begun. A text in quotes is written as in JSON, which YAML 1.2 reads alike.
fn yaml(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let _ = write!(text, "\n{indent}{key}:");
                yaml(value, depth + 1, text);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                let mut item = String::new();
                yaml(value, depth + 1, &mut item);
                // What is in it begins on the line of its dash.
                let _ = write!(text, "\n{indent}- {}", item.trim_start());
            }
        }
        plain => {
            let _ = write!(text, " {plain}");
        }
    }
}

//! One CDI spec: its fields.
//!
//! Decides how each reads and is written. Unknown fields are refused, as CDI's own reader does: a container
//! that lacks what a newer spec asks for would fail later, and without words. Must not touch the disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::parts::null_is_default;

/// A spec file.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) cdi_version: String,
    pub(super) kind: String,
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) devices: Vec<SpecDevice>,
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "SpecEdits::is_empty"
    )]
    pub(super) container_edits: SpecEdits,
}

/// A device of a spec.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SpecDevice {
    pub(super) name: String,
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "SpecEdits::is_empty"
    )]
    pub(super) container_edits: SpecEdits,
}

/// What a container gets.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SpecEdits {
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(super) env: Vec<String>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(super) device_nodes: Vec<SpecNode>,
    #[serde(deserialize_with = "null_is_default", skip_serializing)]
    pub(super) net_devices: Vec<serde::de::IgnoredAny>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(super) hooks: Vec<SpecHook>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(super) mounts: Vec<SpecMount>,
    #[serde(skip_serializing)]
    pub(super) intel_rdt: Option<serde::de::IgnoredAny>,
    #[serde(
        rename = "additionalGids",
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(super) additional_gids: Vec<u32>,
}

/// A device node; what is absent is as on the host.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SpecNode {
    pub(super) path: String,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub(super) host_path: String,
    #[serde(
        rename = "type",
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub(super) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) major: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) minor: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file_mode: Option<u32>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub(super) permissions: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gid: Option<u32>,
}

/// A hook.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SpecHook {
    pub(super) hook_name: String,
    pub(super) path: String,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(super) args: Vec<String>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(super) env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timeout: Option<i64>,
}

/// A mount.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SpecMount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub(super) options: Vec<String>,
    #[serde(
        rename = "type",
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub(super) kind: String,
}

impl SpecMount {
    /// Whether a path of the host is bound; else it is a filesystem of that type.
    pub(super) fn is_bind(&self) -> bool {
        self.kind.is_empty() || self.kind == "bind"
    }
}

impl SpecEdits {
    /// Whether a container gets nothing by them.
    pub(super) fn is_empty(&self) -> bool {
        let Self { env, device_nodes, net_devices, hooks, mounts, intel_rdt, additional_gids } =
            self;
        env.is_empty()
            && device_nodes.is_empty()
            && net_devices.is_empty()
            && hooks.is_empty()
            && mounts.is_empty()
            && intel_rdt.is_none()
            && additional_gids.is_empty()
    }
}

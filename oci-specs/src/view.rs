//! Read-only views of `config.json`: the fields that Berth looks at and no others.
//!
//! Decides how absent fields read. Unknown fields are skipped without being built, so a view costs
//! one pass over the bytes. Must not be written back: a typed round trip loses what it does not know.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

/// The top level of the runtime specification's `config.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecView {
    /// `annotations`; absent and `null` read as empty.
    #[serde(deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    /// `process`, absent in the specs of some sandboxes.
    pub process: Option<ProcessView>,
    /// `root`.
    pub root: Option<RootView>,
    /// `linux`.
    pub linux: Option<LinuxView>,
}

/// `process`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ProcessView {
    /// `process.terminal`.
    pub terminal: bool,
}

/// `root`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RootView {
    /// `root.path`, relative to the bundle unless absolute.
    pub path: PathBuf,
}

/// `linux`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxView {
    /// `linux.cgroupsPath`: a path below each hierarchy's root, or `slice:prefix:name` for systemd.
    pub cgroups_path: String,
    /// `linux.namespaces`; absent and `null` read as empty.
    #[serde(deserialize_with = "null_is_default")]
    pub namespaces: Vec<NamespaceView>,
}

/// One entry of `linux.namespaces`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceView {
    /// `type`: `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup` or `time`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `path` of a namespace to join; empty for a new one.
    pub path: String,
}

impl SpecView {
    /// Whether the container gets a PID namespace of its own, so that its init's death ends every
    /// process in it (pid_namespaces(7)).
    pub fn has_private_pid_namespace(&self) -> bool {
        self.linux.as_ref().is_some_and(|linux| {
            linux.namespaces.iter().any(|ns| ns.kind == "pid" && ns.path.is_empty())
        })
    }

    /// `linux.cgroupsPath`, empty when absent.
    pub fn cgroups_path(&self) -> &str {
        self.linux.as_ref().map_or("", |linux| &linux.cgroups_path)
    }
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(json: &str) -> SpecView {
        serde_json::from_str(json).expect("the view accepts valid specs")
    }

    #[test]
    fn nulls_read_as_absent() {
        let spec =
            view(r#"{"annotations":null,"process":null,"linux":{"namespaces":null},"root":null}"#);
        assert!(spec.annotations.is_empty());
        assert!(!spec.has_private_pid_namespace());
        assert_eq!(spec.cgroups_path(), "");
    }

    #[test]
    fn a_joined_pid_namespace_is_not_private() {
        let private = view(r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#);
        let joined = view(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#);
        let host = view(r#"{"linux":{"namespaces":[{"type":"mount"}]}}"#);
        assert!(private.has_private_pid_namespace());
        assert!(!joined.has_private_pid_namespace());
        assert!(!host.has_private_pid_namespace());
    }
}

//! The runtime handler in containerd's configuration, as its own dump shows it, drop-ins included.
//!
//! Decides which tables are Berth's and what is said there. Must not know what of it is a problem.

use std::path::Path;
use std::process::{Command, Stdio};

use toml::{Table, Value};

/// Where containerd's configuration is.
pub const CONFIG: &str = "/etc/containerd/config.toml";
/// The shim's file name.
pub const SHIM: &str = "containerd-shim-berth-v2";
const RUNTIME_TYPE: &str = "io.containerd.berth.v2";

/// What there is to read.
pub enum Dump {
    /// containerd is not set up on this machine.
    NoFile,
    /// Its program cannot be asked.
    NoProgram,
    /// The handlers that run Berth.
    Handlers(Vec<Handler>),
}

/// One handler.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Handler {
    /// Patterns of annotations that reach the shim from a pod.
    pub pod_annotations: Vec<String>,
    /// Whether systemd makes the cgroups.
    pub systemd_cgroup: bool,
    /// The OCI runtime, where the handler names one.
    pub binary: Option<String>,
}

/// Asks containerd.
pub fn dump() -> Dump {
    if !Path::new(CONFIG).exists() {
        return Dump::NoFile;
    }
    let output = Command::new("containerd").args(["config", "dump"]).stdin(Stdio::null()).output();
    match output {
        Err(_) => Dump::NoProgram,
        Ok(output) => Dump::Handlers(handlers(&String::from_utf8_lossy(&output.stdout))),
    }
}

/// Berth's handlers in this configuration, of whichever version: tables of runtimes, wherever they stand.
fn handlers(text: &str) -> Vec<Handler> {
    let mut found = Vec::new();
    if let Ok(config) = text.parse::<Table>() {
        collect(&config, &mut found);
    }
    found
}

fn collect(table: &Table, found: &mut Vec<Handler>) {
    let text = |key: &str| table.get(key).and_then(Value::as_str).unwrap_or_default();
    let runs_berth = text("runtime_type") == RUNTIME_TYPE
        || Path::new(text("runtime_path")).file_name().is_some_and(|name| name == SHIM);
    if runs_berth {
        found.push(handler(table));
    }
    for below in table.values().filter_map(Value::as_table) {
        collect(below, found);
    }
}

fn handler(table: &Table) -> Handler {
    let patterns = table.get("pod_annotations").and_then(Value::as_array);
    let options = table.get("options").and_then(Value::as_table);
    let option = |key: &str| options.and_then(|options| options.get(key));
    let binary = option("BinaryName").and_then(Value::as_str).filter(|name| !name.is_empty());
    Handler {
        pod_annotations: patterns
            .into_iter()
            .flatten()
            .filter_map(|pattern| pattern.as_str().map(str::to_owned))
            .collect(),
        systemd_cgroup: option("SystemdCgroup").and_then(Value::as_bool).unwrap_or(false),
        binary: binary.map(str::to_owned),
    }
}

impl Handler {
    /// Whether requests reach Berth.
    pub fn hears(&self) -> bool {
        self.pod_annotations.iter().any(|pattern| pattern == "berth.dev/*")
    }

    /// The pattern that lets a pod's author write what only the kubelet should say: which devices it has allocated.
    pub fn lets_pods_allocate(&self) -> Option<&str> {
        let cdi = |pattern: &&String| {
            let domain = pattern.split_once('/').map(|(domain, _)| domain);
            domain.is_some_and(|domain| domain == "cdi.k8s.io" || domain.starts_with('*'))
                && *pattern != "*.berth.dev/*"
        };
        self.pod_annotations.iter().find(cdi).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_found_in_both_versions_and_both_forms() {
        let text = r#"
            version = 3
            [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.berth]
            runtime_type = "io.containerd.berth.v2"
            pod_annotations = ["berth.dev/*", "*.berth.dev/*"]
            [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.other]
            runtime_type = "io.containerd.runc.v2"
            runtime_path = "/usr/bin/containerd-shim-berth-v2"
            [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.other.options]
            SystemdCgroup = true
            BinaryName = "crun"
            [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
            runtime_type = "io.containerd.runc.v2"
        "#;
        let mut found = handlers(text);
        found.sort_by_key(Handler::hears);
        let other =
            Handler { systemd_cgroup: true, binary: Some("crun".into()), ..Handler::default() };
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], other);
        assert!(found[1].hears() && found[1].lets_pods_allocate().is_none());
        assert!(handlers("no toml [").is_empty());
    }

    #[test]
    fn a_pattern_that_covers_what_the_kubelet_says_is_seen() {
        let with = |pattern: &str| Handler {
            pod_annotations: vec!["*.berth.dev/*".into(), pattern.into()],
            ..Handler::default()
        };
        for wide in ["*/*", "cdi.k8s.io/*", "*.k8s.io/*"] {
            assert_eq!(with(wide).lets_pods_allocate(), Some(wide));
        }
        assert_eq!(with("berth.dev/*").lets_pods_allocate(), None);
    }
}

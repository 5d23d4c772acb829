//! The node's configuration file: one for all doors.
//!
//! Decides defaults and what is accepted. Unknown keys are errors that name key and line, so that a
//! typing error never silently means "default". Must not know containers.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

use plan::{CpuSet, Policy};
use serde::{Deserialize, Serialize};

/// Where the configuration lives unless `BERTH_CONFIG` names another file.
const DEFAULT_PATH: &str = "/etc/berth/config.toml";

/// The effective configuration.
#[derive(Debug, Clone, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[shim]`
    pub shim: ShimSection,
    /// `[runtime]`
    pub runtime: RuntimeSection,
    /// `[node]`
    pub node: NodeSection,
    /// `[policy]`
    pub policy: Policy,
}

/// `[shim]`: how the shim presents itself to containerd.
#[derive(Debug, Clone, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ShimSection {
    /// `bootstrap`: what `start` answers.
    pub bootstrap: Dialect,
}

/// What `start` answers.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// A plain address: ttrpc, Task v2. Understood by every containerd since 1.6, and containerd
    /// then calls `start` and `delete` for each member of a pod.
    #[default]
    Address,
    /// Version 3: JSON for containerd 2.0 to 2.2, `BootstrapResult` where `BootstrapParams` came in
    /// on standard input (2.3 and later).
    V3,
}

/// `[runtime]`: the OCI runtime. The only section that a handler's own file may override.
#[derive(Debug, Clone, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RuntimeSection {
    /// `binary`: the OCI runtime, a path or a name looked up in `PATH`.
    pub binary: String,
    /// `root`: its state directory; the containerd namespace is appended.
    pub root: PathBuf,
    /// `systemd-cgroup`: let systemd make the cgroups.
    pub systemd_cgroup: bool,
    /// `launch-deadline`: longest time in seconds for a create, start, exec, checkpoint or restore of the OCI runtime.
    pub launch_deadline: u32,
    /// `control-deadline`: longest time in seconds for any other call of it.
    pub control_deadline: u32,
}

impl Default for RuntimeSection {
    fn default() -> Self {
        Self {
            binary: "runc".into(),
            root: "/run/containerd/runc".into(),
            systemd_cgroup: false,
            launch_deadline: 120,
            control_deadline: 10,
        }
    }
}

impl RuntimeSection {
    /// Deadline for create, start and exec, which may run hooks.
    pub fn launch_deadline(&self) -> Duration {
        Duration::from_secs(self.launch_deadline.max(1).into())
    }

    /// Deadline for everything else.
    pub fn control_deadline(&self) -> Duration {
        Duration::from_secs(self.control_deadline.max(1).into())
    }
}

/// `[node]`: where the driver is, where Berth keeps its things, and which GPUs are its to give.
#[derive(Debug, Clone, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct NodeSection {
    /// `gpus`: UUIDs or PCI addresses of the GPUs that Berth may hand out; empty for all.
    pub gpus: Vec<String>,
    /// `exclusive-cpus`: CPUs that containers may have for themselves, as a list; no other container with a GPU gets them.
    pub exclusive_cpus: CpuSet,
    /// `reserved-cpus`: CPUs that no container with a GPU gets.
    pub reserved_cpus: CpuSet,
    /// `root`: the host's root, below which devices, /proc, /sys and the driver are looked for.
    pub root: PathBuf,
    /// `driver-root`: root of the driver's files inside `root`; `/run/nvidia/driver` with a driver container.
    pub driver_root: PathBuf,
    /// `nvml`: the management library, a name for the loader or a path.
    pub nvml: PathBuf,
    /// `run`: what dies with the boot: the ledger, caches.
    pub run: PathBuf,
    /// `state`: what outlives it: the prepared driver files.
    pub state: PathBuf,
    /// `tool`: the `berth` program, which looks at the node for the shim: a path, or a name looked up beside the shim, then in `PATH`.
    pub tool: PathBuf,
    /// `observe-deadline`: longest time in seconds for one look at the node.
    pub observe_deadline: u32,
    /// `release-wait`: how long in seconds an admission waits for what is just being given back.
    pub release_wait: u32,
    /// `mig-linger`: how long in seconds a MIG instance that nobody uses any more is kept for the next request of its profile.
    pub mig_linger: u32,
    /// `kubelet`: the kubelet's directory, which shows what device plugins have allocated.
    pub kubelet: PathBuf,
    /// `cdi-dirs`: CDI specifications; a later directory beats an earlier one.
    pub cdi_dirs: Vec<PathBuf>,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            gpus: Vec::new(),
            exclusive_cpus: CpuSet::none(),
            reserved_cpus: CpuSet::none(),
            root: "/".into(),
            driver_root: "/".into(),
            nvml: "libnvidia-ml.so.1".into(),
            run: "/run/berth".into(),
            state: "/var/lib/berth".into(),
            tool: "berth".into(),
            observe_deadline: 60,
            release_wait: 15,
            mig_linger: 0,
            kubelet: "/var/lib/kubelet".into(),
            cdi_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
        }
    }
}

/// A configuration that cannot be used. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there but cannot be read, or `BERTH_CONFIG` names one that is not there.
    #[error("cannot read configuration {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("configuration {path} is not valid: {source}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Key, line and reason.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads the node's configuration: the file that `BERTH_CONFIG` names, else
    /// `/etc/berth/config.toml`, else the defaults.
    ///
    /// # Errors
    /// [`ConfigError`] when a file is there and unusable.
    pub fn load() -> Result<Self, ConfigError> {
        match env::var_os("BERTH_CONFIG") {
            Some(path) => Self::read(Path::new(&path)),
            None => match Self::read(Path::new(DEFAULT_PATH)) {
                Err(ConfigError::Read { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    Ok(Self::default())
                }
                other => other,
            },
        }
    }

    /// The file that [`Config::load`] reads, whether it is there or not.
    pub fn path() -> PathBuf {
        env::var_os("BERTH_CONFIG").map_or_else(|| DEFAULT_PATH.into(), PathBuf::from)
    }

    /// The file that `BERTH_CONFIG` names, if it names one.
    pub fn explicit_path() -> Option<PathBuf> {
        env::var_os("BERTH_CONFIG").map(PathBuf::from)
    }

    /// The policy as decisions take it: `[policy]` with `node.gpus`.
    pub fn policy(&self) -> Policy {
        Policy { gpus: self.node.gpus.clone(), ..self.policy.clone() }
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(toml::from_str::<Config>("").expect("empty is valid"), Config::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = toml::from_str::<Config>("[runtime]\nbinary = \"crun\"\nbinry = 1\n")
            .expect_err("a typing error")
            .to_string();
        assert!(error.contains("binry") && error.contains("line 3"), "{error}");
    }

    /// What is installed as /etc/berth/config.toml.
    const PACKAGED: &str = include_str!("../../../packaging/config/config.toml");
    /// What operators read.
    const GUIDE: &str = include_str!("../../../docs/berth.md");

    /// The same with everything in force that it shows commented out; its sentences stay comments.
    fn in_force(text: &str) -> String {
        let key =
            |rest: &str| rest.starts_with(|first: char| first == '[' || first.is_ascii_lowercase());
        let lines = text
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| key(rest)).unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_packaged_file_shows_every_key_with_its_default() {
        let as_installed: Config = toml::from_str(PACKAGED).expect("valid");
        assert_eq!(as_installed, Config::default(), "installing it changes nothing");
        let (keys, ceiling) =
            PACKAGED.split_once("#[policy.ceilings").expect("an example of a ceiling");
        let keys = in_force(keys);
        assert_eq!(toml::from_str::<Config>(&keys).expect("valid"), Config::default());
        let shown: toml::Table = keys.parse().expect("valid");
        for (section, all) in toml::Table::try_from(Config::default()).expect("a table") {
            for key in all.as_table().expect("a section").keys().filter(|key| *key != "ceilings") {
                assert!(
                    shown[&section].get(key).is_some(),
                    "{section}.{key} is not in the packaged file"
                );
                assert!(
                    GUIDE.contains(&format!("| `{section}.{key}` |")),
                    "{section}.{key} is not in docs/berth.md"
                );
            }
        }
        let ceiling: Config =
            toml::from_str(&in_force(&format!("[policy.ceilings{ceiling}"))).expect("valid");
        let ceiling = ceiling.policy.ceilings.get("team-*").expect("its example");
        assert!(ceiling.gpus.is_some() && ceiling.memory.is_some(), "{ceiling:?}");
    }

    #[test]
    fn every_key_is_read() {
        let config: Config = toml::from_str(
            "[shim]\nbootstrap = \"v3\"\n[runtime]\nbinary = \"crun\"\nroot = \"/r\"\n\
             systemd-cgroup = true\nlaunch-deadline = 3\ncontrol-deadline = 0\n",
        )
        .expect("valid");
        assert_eq!(config.shim.bootstrap, Dialect::V3);
        assert_eq!(config.runtime.binary, "crun");
        assert_eq!(config.runtime.launch_deadline(), Duration::from_secs(3));
        // A deadline of nothing would refuse every call.
        assert_eq!(config.runtime.control_deadline(), Duration::from_secs(1));
    }
}

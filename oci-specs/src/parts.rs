//! The parts of `config.json` that are both read and written: devices, their rules, mounts, hooks.
//!
//! Decides how each reads (absent and `null` alike) and how it is written (absent again). Must not
//! know who wants a part, or where in the file it stands.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

/// An entry of `linux.devices`: a node that the OCI runtime makes in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    /// Where it stands in the container.
    pub path: String,
    /// `c` (or its synonym `u`), `b` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Major number; 0 for a pipe.
    #[serde(deserialize_with = "null_is_default")]
    pub major: i64,
    /// Minor number; 0 for a pipe.
    #[serde(deserialize_with = "null_is_default")]
    pub minor: i64,
    /// Permission bits; the runtime's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Owner in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

impl Device {
    /// Whether both are the same device in the kernel's eyes, whatever their paths and modes.
    pub fn is_same_device(&self, other: &Self) -> bool {
        let kind = |device: &Self| match device.kind.as_str() {
            "u" => 'c',
            kind => kind.chars().next().unwrap_or_default(),
        };
        (kind(self), self.major, self.minor) == (kind(other), other.major, other.minor)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:{}", self.kind, self.major, self.minor)
    }
}

/// An entry of `linux.resources.devices`: what the device cgroup lets the container open. Later
/// entries beat earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRule {
    /// Allowed or denied.
    #[serde(deserialize_with = "null_is_default")]
    pub allow: bool,
    /// `c`, `b`, or `a` for both; empty reads as absent and means `a`.
    #[serde(
        rename = "type",
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub kind: String,
    /// Major number; absent or negative means any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// Minor number; absent or negative means any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Any of `r`, `w` and `m`.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub access: String,
}

/// An entry of `mounts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Where it stands in the container.
    pub destination: String,
    /// Filesystem type; empty reads as absent, as it may be for a bind mount.
    #[serde(
        rename = "type",
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub kind: String,
    /// What is mounted: a host path for a bind mount.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Options as in fstab(5), and the runtime's own.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// When a hook runs (OCI runtime-spec, "POSIX-platform Hooks").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookKind {
    /// `prestart`: deprecated by the specification, still run by every runtime.
    #[default]
    Prestart,
    /// `createRuntime`.
    CreateRuntime,
    /// `createContainer`.
    CreateContainer,
    /// `startContainer`: in the container.
    StartContainer,
    /// `poststart`.
    Poststart,
    /// `poststop`.
    Poststop,
}

impl HookKind {
    /// Every kind, in the order in which they run.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// Its name in `config.json` and in CDI.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// An entry of one of the lists under `hooks`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// When it runs: the list that it stands in.
    #[serde(skip)]
    pub kind: HookKind,
    /// The program, an absolute path on the host.
    pub path: String,
    /// Its arguments, the program's name first.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds until it is given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// Hooks described by their program and one argument, for taking them out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookPattern {
    /// The file name of the program, in whatever directory it stands.
    pub program: String,
    /// An argument that must be among the hook's; `None` matches whatever they are.
    pub argument: Option<String>,
}

impl HookPattern {
    /// Whether the hook is one of those described.
    pub fn matches(&self, hook: &Hook) -> bool {
        let program = Path::new(&hook.path).file_name();
        program.is_some_and(|name| name == self.program.as_str())
            && self.argument.as_ref().is_none_or(|wanted| hook.args.contains(wanted))
    }
}

/// Reads `null` as absent.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

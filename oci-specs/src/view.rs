//! Read-only views of `config.json`: the fields that Berth looks at and no others.
//!
//! Decides how absent fields read. Unknown fields are skipped without being built, so a view costs
//! one pass over the bytes. Must not be written back: a typed round trip loses what it does not know.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::parts::{Device, DeviceRule, Hook, HookKind, null_is_default};

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
    /// `mounts`, in the order in which they are made.
    #[serde(deserialize_with = "null_is_default")]
    pub mounts: Vec<MountView>,
    /// `hooks`: all of them, each with its kind; kinds unknown here are left out.
    #[serde(deserialize_with = "hooks")]
    pub hooks: Vec<Hook>,
    /// `linux`.
    pub linux: Option<LinuxView>,
}

/// `process`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ProcessView {
    /// `process.terminal`.
    #[serde(deserialize_with = "null_is_default")]
    pub terminal: bool,
    /// `process.env`: `KEY=value` each.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// `process.capabilities`.
    #[serde(deserialize_with = "null_is_default")]
    pub capabilities: CapabilitiesView,
}

/// `process.capabilities`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CapabilitiesView {
    /// `bounding`: names such as `CAP_SYS_ADMIN`; the most that the container can ever have.
    #[serde(deserialize_with = "null_is_default")]
    pub bounding: Vec<String>,
}

/// `root`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RootView {
    /// `root.path`, relative to the bundle unless absolute.
    pub path: PathBuf,
    /// `root.readonly`.
    #[serde(deserialize_with = "null_is_default")]
    pub readonly: bool,
}

/// One entry of `mounts`: where and what. Its type and options cost as much to read as all the rest,
/// at every launch, and nobody asks for them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MountView {
    /// `destination`, a path in the container.
    pub destination: String,
    /// `source`; empty when absent.
    #[serde(deserialize_with = "null_is_default")]
    pub source: String,
}

/// `linux`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxView {
    /// `linux.cgroupsPath`: a path below each hierarchy's root, or `slice:prefix:name` for systemd.
    #[serde(deserialize_with = "null_is_default")]
    pub cgroups_path: String,
    /// `linux.namespaces`; absent and `null` read as empty.
    #[serde(deserialize_with = "null_is_default")]
    pub namespaces: Vec<NamespaceView>,
    /// `linux.devices`.
    #[serde(deserialize_with = "null_is_default")]
    pub devices: Vec<Device>,
    /// `linux.resources`.
    #[serde(deserialize_with = "null_is_default")]
    pub resources: ResourcesView,
    /// `linux.rootfsPropagation`: `slave`, `private`, `shared` or `unbindable`; empty when absent.
    #[serde(deserialize_with = "null_is_default")]
    pub rootfs_propagation: String,
}

/// `linux.resources`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResourcesView {
    /// `devices`: the device cgroup's rules, the last that applies wins.
    #[serde(deserialize_with = "null_is_default")]
    pub devices: Vec<DeviceRule>,
    /// `cpu`.
    #[serde(deserialize_with = "null_is_default")]
    pub cpu: CpuView,
}

/// `linux.resources.cpu`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CpuView {
    /// `cpus`: a list of CPUs as cpuset(7) has it; empty when absent.
    #[serde(deserialize_with = "null_is_default")]
    pub cpus: String,
    /// `mems`: NUMA nodes, likewise.
    #[serde(deserialize_with = "null_is_default")]
    pub mems: String,
    /// `quota`: microseconds in each period; negative for no limit.
    pub quota: Option<i64>,
    /// `period`: microseconds.
    pub period: Option<u64>,
}

impl CpuView {
    /// What the `cpu` of a `linux.resources` says, as JSON: that of an update, too.
    ///
    /// # Errors
    /// When it is no object with fields of the specified types.
    pub fn of_resources(resources: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<ResourcesView>(resources).map(|resources| resources.cpu)
    }

    /// CPUs that the quota is worth, rounded up; `None` without one.
    pub fn worth(&self) -> Option<u64> {
        let quota = u64::try_from(self.quota?).ok().filter(|quota| *quota > 0)?;
        // The kernel's default (cgroup-v2.rst, `cpu.max`).
        let period = self.period.filter(|period| *period > 0).unwrap_or(100_000);
        Some(quota.div_ceil(period))
    }
}

/// One entry of `linux.namespaces`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceView {
    /// `type`: `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup` or `time`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `path` of a namespace to join; empty for a new one.
    #[serde(deserialize_with = "null_is_default")]
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

    /// Whether the container gets user ids of its own.
    pub fn has_user_namespace(&self) -> bool {
        self.linux.as_ref().is_some_and(|linux| linux.namespaces.iter().any(|ns| ns.kind == "user"))
    }

    /// Rules in force by which character devices of this major can be opened: of one of these minors, or of any. Rules for every major are
    /// [`SpecView::is_privileged`]'s.
    pub fn rules_opening(
        &self,
        major: i64,
        minors: std::ops::RangeInclusive<i64>,
    ) -> impl Iterator<Item = &DeviceRule> {
        let rules = self.linux.as_ref().map_or(&[][..], |linux| &linux.resources.devices);
        rules.iter().enumerate().filter_map(move |(at, rule)| {
            let opens = rule.allow && rule.lets_open() && rule.is_for_char(major, &minors);
            let is_kept =
                || !rules[at + 1..].iter().any(|later| !later.allow && later.takes_back(rule));
            (opens && is_kept()).then_some(rule)
        })
    }

    /// `linux.cgroupsPath`, empty when absent.
    pub fn cgroups_path(&self) -> &str {
        self.linux.as_ref().map_or("", |linux| &linux.cgroups_path)
    }

    /// The value of a variable in the container's environment. Where the list names it twice the
    /// last one is meant: runc and crun set them one after the other.
    pub fn env(&self, name: &str) -> Option<&str> {
        let env = self.process.as_ref().map_or(&[][..], |process| &process.env);
        env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }

    /// What lets the container reach devices that nobody gave it, in words; `None` when nothing does.
    ///
    /// That is CAP_SYS_ADMIN in the bounding set, or a device rule that allows any number and that
    /// no later rule takes back.
    pub fn is_privileged(&self) -> Option<String> {
        let bounding = self.process.as_ref().map_or(&[][..], |p| &p.capabilities.bounding);
        if bounding.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            return Some("CAP_SYS_ADMIN is in its bounding set".into());
        }
        let rules = self.linux.as_ref().map_or(&[][..], |linux| &linux.resources.devices);
        let (at, rule) = rules.iter().enumerate().rev().find(|(at, rule)| {
            rule.is_for_any_number()
                && rule.allow
                && rule.lets_open()
                && !rules[at + 1..].iter().any(|later| !later.allow && later.takes_back(rule))
        })?;
        Some(format!("its device rule {at} allows {rule}"))
    }
}

/// `hooks` as one list: an object of lists, by kind.
fn hooks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hook>, D::Error> {
    struct Kinds;
    impl<'de> Visitor<'de> for Kinds {
        type Value = Vec<Hook>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of lists of hooks")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(name) = map.next_key::<String>()? {
                let Some(kind) = HookKind::named(&name) else {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                };
                let hooks = map.next_value::<Option<Vec<Hook>>>()?.unwrap_or_default();
                all.extend(hooks.into_iter().map(|hook| Hook { kind, ..hook }));
            }
            Ok(all)
        }
    }
    deserializer.deserialize_any(Kinds)
}

#[cfg(test)]
mod tests;

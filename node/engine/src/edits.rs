//! What a grant changes in `config.json`: device nodes with their rules, environment, mounts.
//!
//! Decides the edits as data. Must not write them.

use device::{DeviceNode, DriverTree, Host};
use ledger::{Grant, Origin};
use oci_specs::{Device, DeviceRule, Edits, Mount};
use plan::{MigUuid, Pinning};

use crate::pinning::GpuCpus;

/// Environment variables: names and values.
pub(crate) type Variables = Vec<(String, String)>;

/// Everything that the edits are made of.
pub(crate) struct Parts<'a> {
    pub(crate) host: &'a Host,
    pub(crate) grant: &'a Grant,
    pub(crate) nodes: &'a [DeviceNode],
    pub(crate) tree: Option<&'a DriverTree>,
    /// Whether the tree comes as a layer, so that no file of it has to be bound.
    pub(crate) layered: bool,
    /// Whether another has marked the container as injected.
    pub(crate) already_void: bool,
    /// What the container is held to.
    pub(crate) pinning: &'a Pinning,
    /// CPUs near each GPU, where they differ: the variable, and the file with the same.
    pub(crate) gpu_cpus: Option<GpuCpus>,
    /// Whether device rules hold at all.
    pub(crate) confined: bool,
    /// Files that come with extras.
    pub(crate) extra_mounts: Vec<Mount>,
}

/// The edits of one grant.
pub(crate) fn edits(parts: &Parts<'_>) -> Edits {
    let mut edits = Edits {
        env: env(parts),
        cpus: parts.pinning.effective.as_ref().map(ToString::to_string),
        mems: parts.pinning.memory.as_ref().map(ToString::to_string),
        ..Edits::default()
    };
    edits.mounts.extend(parts.extra_mounts.iter().cloned());
    edits.mounts.extend(parts.gpu_cpus.iter().filter_map(GpuCpus::mount));
    for node in parts.nodes {
        edits.devices.push(Device {
            path: node.path.clone(),
            kind: "c".into(),
            major: node.major.into(),
            minor: node.minor.into(),
            file_mode: Some(node.mode),
            uid: Some(node.uid),
            gid: Some(node.gid),
        });
        if parts.confined {
            edits.device_rules.push(DeviceRule {
                allow: true,
                kind: "c".into(),
                major: Some(node.major.into()),
                minor: Some(node.minor.into()),
                access: "rw".into(),
            });
        }
    }
    if let Some(tree) = parts.tree {
        edits.mounts.extend(sockets(parts.host, tree));
        if !parts.layered {
            edits.mounts.extend(binds(tree));
        }
    }
    edits
}

fn env(parts: &Parts<'_>) -> Variables {
    let mut env = vec![("BERTH_GRANT".to_owned(), parts.grant.id.to_string())];
    // `void` tells NVIDIA's own tools that all is done: leave them that.
    let external = matches!(parts.grant.origin, Origin::External { .. });
    if !(external && parts.already_void) {
        env.push(("NVIDIA_VISIBLE_DEVICES".into(), visible(parts.grant)));
    }
    env.extend(parts.gpu_cpus.iter().map(GpuCpus::variable));
    env
}

/// UUIDs of what was given: of the MIG devices, where it is these.
fn visible(grant: &Grant) -> String {
    let migs = grant.slots.iter().filter_map(|slot| slot.instance.as_ref()?.uuid.as_ref());
    let uuids: Vec<&str> = match grant.slots.is_empty() {
        true => grant.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect(),
        false => migs.map(MigUuid::as_str).collect(),
    };
    uuids.join(",")
}

fn sockets(host: &Host, tree: &DriverTree) -> Vec<Mount> {
    let options = ["rbind", "rprivate", "nosuid", "nodev", "noexec"];
    tree.sockets
        .iter()
        .map(|path| mount(&host.path(path).to_string_lossy(), path, &options))
        .collect()
}

/// One bind for each directory of libraries, and one for each file that has its place among the image's own. What is a link in the tree is
/// bound as what it leads to there.
fn binds(tree: &DriverTree) -> Vec<Mount> {
    let options = ["ro", "rbind", "rprivate", "nosuid", "nodev"];
    let conf = DriverTree::LOADER_CONF.to_owned();
    let files = tree.binaries.iter().chain(&tree.firmware).chain(&tree.data);
    let places = tree.lib_dirs.iter().chain(files).chain(std::iter::once(&conf));
    places
        .map(|place| {
            let source = tree.path.join(place.trim_start_matches('/'));
            mount(&source.to_string_lossy(), place, &options)
        })
        .collect()
}

/// One bind, read-only.
pub(crate) fn bind(source: &std::path::Path, destination: &str) -> Mount {
    let options = ["ro", "bind", "rprivate", "nosuid", "nodev", "noexec"];
    mount(&source.to_string_lossy(), destination, &options)
}

fn mount(source: &str, destination: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: "bind".into(),
        source: source.to_owned(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    }
}

/// What another allocator's specification asks for, completed by ours. Of one device or place named twice, ours counts.
pub(crate) fn joined(theirs: Edits, ours: Edits) -> Edits {
    let mut all = theirs;
    all.devices.retain(|device| !ours.devices.iter().any(|one| one.path == device.path));
    all.mounts.retain(|mount| !ours.mounts.iter().any(|one| one.destination == mount.destination));
    all.env.retain(|(name, _)| !ours.env.iter().any(|(one, _)| one == name));
    all.devices.extend(ours.devices);
    all.device_rules.extend(ours.device_rules);
    all.mounts.extend(ours.mounts);
    all.env.extend(ours.env);
    all.cpus = ours.cpus.or(all.cpus);
    all.mems = ours.mems.or(all.mems);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(device: &str, mount_at: &str, variable: &str, value: &str) -> Edits {
        Edits {
            devices: vec![Device {
                path: device.into(),
                kind: "c".into(),
                major: 195,
                minor: 0,
                file_mode: None,
                uid: None,
                gid: None,
            }],
            mounts: vec![mount(value, mount_at, &["ro"])],
            env: vec![(variable.into(), value.into())],
            ..Edits::default()
        }
    }

    #[test]
    fn of_what_two_bring_ours_counts() {
        let all = joined(edits("/dev/a", "/m", "V", "theirs"), edits("/dev/a", "/m", "V", "ours"));
        assert_eq!(all, edits("/dev/a", "/m", "V", "ours"));
    }

    #[test]
    fn what_only_they_bring_stays() {
        let all = joined(edits("/dev/a", "/m", "V", "theirs"), edits("/dev/b", "/n", "W", "ours"));
        assert_eq!((all.devices.len(), all.mounts.len(), all.env.len()), (2, 2, 2));
    }
}

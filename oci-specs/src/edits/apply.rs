//! Edits applied to the parts of a `config.json` one by one.
//!
//! Decides what is left alone because it is so already. Must not read or write files.

use std::path::Path;

use super::{Edits, env};
use crate::edit_error::EditError;
use crate::json::{List, Object};
use crate::parts::{Device, DeviceRule, Hook, HookKind, Mount};

/// Applies all edits to the document.
pub(super) fn to_spec(spec: &mut Object<'_>, edits: &Edits) -> Result<(), EditError> {
    if !edits.annotations.is_empty() {
        spec.object("annotations", "annotations", |annotations| {
            edits.annotations.iter().try_for_each(|(key, value)| {
                annotations.string(key, &format!("annotations[{key:?}]"), value)
            })
        })?;
    }
    if !edits.env.is_empty() || !edits.additional_gids.is_empty() {
        spec.object("process", "process", |process| {
            env::set(process, &edits.env)?;
            add_groups(process, &edits.additional_gids)
        })?;
    }
    if !edits.mounts.is_empty() {
        spec.list("mounts", "mounts", |list| set_mounts(list, &edits.mounts))?;
    }
    if !edits.hooks.is_empty() || !edits.removed_hooks.is_empty() {
        spec.object("hooks", "hooks", |hooks| set_hooks(hooks, edits))?;
    }
    let (cpus, mems) = (edits.cpus.as_deref(), edits.mems.as_deref());
    let has_cpuset = cpus.is_some() || mems.is_some();
    if !edits.devices.is_empty() || !edits.device_rules.is_empty() || has_cpuset {
        spec.object("linux", "linux", |linux| {
            set_devices(linux, &edits.devices)?;
            add_rules(linux, &edits.device_rules)?;
            if !has_cpuset {
                return Ok(());
            }
            linux.object("resources", "linux.resources", |resources| {
                set_cpuset(resources, cpus, mems)
            })
        })?;
    }
    Ok(())
}

/// Sets the CPUs and memory nodes of a `resources` object.
pub(super) fn set_cpuset(
    resources: &mut Object<'_>,
    cpus: Option<&str>,
    mems: Option<&str>,
) -> Result<(), EditError> {
    resources.object("cpu", "linux.resources.cpu", |cpu| {
        if let Some(cpus) = cpus {
            cpu.string("cpus", "linux.resources.cpu.cpus", cpus)?;
        }
        match mems {
            Some(mems) => cpu.string("mems", "linux.resources.cpu.mems", mems),
            None => Ok(()),
        }
    })
}

fn add_groups(process: &mut Object<'_>, wanted: &[u32]) -> Result<(), EditError> {
    if wanted.is_empty() {
        return Ok(());
    }
    process.object("user", "process.user", |user| {
        user.list("additionalGids", "process.user.additionalGids", |list| {
            let mut groups: Vec<u32> = list.read()?;
            for group in wanted {
                if !groups.contains(group) {
                    list.push(group)?;
                    groups.push(*group);
                }
            }
            Ok(())
        })
    })
}

fn set_mounts(list: &mut List<'_>, wanted: &[Mount]) -> Result<(), EditError> {
    let mut mounts: Vec<Mount> = list.read()?;
    for (at, mount) in wanted.iter().enumerate() {
        let destination = Path::new(&mount.destination);
        let is_there = |other: &Mount| Path::new(&other.destination) == destination;
        if wanted[at + 1..].iter().any(is_there) {
            continue;
        }
        if let Some(at) = mounts.iter().rposition(is_there) {
            if mounts[at] != *mount {
                list.replace(at, mount)?;
                mounts[at] = mount.clone();
            }
            continue;
        }
        let is_below = |other: &Mount| Path::new(&other.destination).starts_with(destination);
        let at = mounts.iter().position(is_below).unwrap_or(mounts.len());
        list.insert(at, mount)?;
        mounts.insert(at, mount.clone());
    }
    Ok(())
}

fn set_devices(linux: &mut Object<'_>, wanted: &[Device]) -> Result<(), EditError> {
    if wanted.is_empty() {
        return Ok(());
    }
    linux.list("devices", "linux.devices", |list| {
        let mut devices: Vec<Device> = list.read()?;
        for device in wanted {
            let path = Path::new(&device.path);
            match devices.iter().find(|present| Path::new(&present.path) == path) {
                None => {
                    list.push(device)?;
                    devices.push(device.clone());
                }
                Some(present) if present.is_same_device(device) => {}
                Some(present) => {
                    return Err(EditError::DeviceConflict {
                        path: device.path.clone(),
                        present: present.to_string(),
                        wanted: device.to_string(),
                    });
                }
            }
        }
        Ok(())
    })
}

fn add_rules(linux: &mut Object<'_>, wanted: &[DeviceRule]) -> Result<(), EditError> {
    if wanted.is_empty() {
        return Ok(());
    }
    linux.object("resources", "linux.resources", |resources| {
        resources.list("devices", "linux.resources.devices", |list| {
            let mut rules: Vec<DeviceRule> = list.read()?;
            for (at, rule) in wanted.iter().enumerate() {
                if !rule.is_in_force(&rules, &wanted[at + 1..]) {
                    list.push(rule)?;
                    rules.push(rule.clone());
                }
            }
            Ok(())
        })
    })
}

fn set_hooks(hooks: &mut Object<'_>, edits: &Edits) -> Result<(), EditError> {
    for kind in HookKind::ALL {
        let name = kind.name();
        hooks.list(name, &format!("hooks.{name}"), |list| {
            let mut present: Vec<Hook> = list.read()?;
            for at in (0..present.len()).rev() {
                if edits.removed_hooks.iter().any(|pattern| pattern.matches(&present[at])) {
                    list.remove(at);
                    present.remove(at);
                }
            }
            for hook in edits.hooks.iter().filter(|hook| hook.kind == kind) {
                let is_it = |other: &Hook| Hook { kind, ..other.clone() } == *hook;
                if !present.iter().any(is_it) {
                    list.push(hook)?;
                    present.push(hook.clone());
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

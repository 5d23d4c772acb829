//! The `/proc/driver/nvidia` that a container is shown: the driver's facts, and of the GPUs the granted ones alone.
//!
//! Decides what of the real one is shown. A tree is made once for each set of GPUs and kept for the boot; where it is put is `arm`'s.
//!
//! ```text
//! <run>/<boot>/facts/{version,registry,params,gpus/<address>/*}              what the driver said when the node was looked at
//! <run>/<boot>/proc/<key>/nvidia/{version,registry,params,gpus/<address>/*}  what of it one set of GPUs is shown
//! ```
//!
//! Reading a GPU's files asks the driver, which may be hung: whoever looks at the node does that, under a deadline, and launches copy.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use plan::{Gpu, PciAddress};
use sha2::{Digest, Sha256};

use super::nodes::MigDevice;
use crate::error::{DeviceError, file};
use crate::{Host, cache, keep};

/// What the driver shows.
const REAL: &str = "/proc/driver/nvidia";
/// Tells nvidia-modprobe in the container to leave device nodes alone.
const MODIFY: &str = "ModifyDeviceFiles";

/// The tree for these GPUs and the MIG devices on them: a folder that can go onto `/proc/driver`, and whose `nvidia` can go onto `/proc/driver/nvidia`.
///
/// # Errors
/// When the driver's facts cannot be read or the tree cannot be written.
pub fn proc_tree(host: &Host, gpus: &[&Gpu], migs: &[MigDevice]) -> Result<PathBuf, DeviceError> {
    let trees = keep::boot_dir(host)?.join("proc");
    let tree = trees.join(key(host, gpus, migs));
    if tree.is_dir() {
        return Ok(tree);
    }
    keep::make_dir(&trees)?;
    let unfinished = keep::beside(&tree);
    let made = build(host, gpus, migs, &unfinished).and_then(|()| {
        match fs::rename(&unfinished, &tree) {
            // Another made the same one meanwhile.
            Err(_) if tree.is_dir() => Ok(()),
            renamed => renamed.map_err(file("put in its place", &tree)),
        }
    });
    if unfinished.exists() {
        // What stays if this fails, too, goes with the boot.
        let _ = fs::remove_dir_all(&unfinished);
    }
    made.map(|()| tree)
}

/// The driver as it is loaded, and the GPUs and MIG devices in whatever order, with what lets a process use these: its numbers change with the mode.
fn key(host: &Host, gpus: &[&Gpu], migs: &[MigDevice]) -> String {
    let gpus = gpus.iter().map(|gpu| format!("{} {}\n", gpu.pci, gpu.uuid));
    let access = |access: String| {
        let text = keep::read_text(&host.path(REAL).join("capabilities").join(&access));
        format!("{access} {}", text.unwrap_or_default())
    };
    let migs = migs.iter().flat_map(MigDevice::access).map(access);
    let mut parts: Vec<String> = gpus.chain(migs).collect();
    parts.sort();
    let mut hash = Sha256::new();
    hash.update(format!("{} {:?}\n", host.root.display(), cache::module(host)));
    for part in parts {
        hash.update(part);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Keeps what the driver says of itself and its GPUs. May wait for the driver: never where containers are launched.
///
/// # Errors
/// When it cannot be kept.
#[cfg_attr(not(feature = "nvml"), allow(dead_code, reason = "only the observer captures"))]
pub(crate) fn capture(host: &Host) -> Result<(), DeviceError> {
    let (real, facts) = (host.path(REAL), facts(host)?);
    let unfinished = keep::beside(&facts);
    fs::create_dir(&unfinished).map_err(file("create the folder", &unfinished))?;
    fs::create_dir(unfinished.join("gpus")).map_err(file("create the folder", &unfinished))?;
    for name in ["version", "registry", "params"] {
        copy(&real.join(name), &unfinished.join(name))?;
    }
    for name in keep::names(&real.join("gpus"))? {
        copy_folder(&real.join("gpus").join(&name), &unfinished.join("gpus").join(&name))?;
    }
    // Whoever reads in between reads the driver's own.
    let old = keep::beside(&facts);
    let _ = fs::rename(&facts, &old);
    fs::rename(&unfinished, &facts).map_err(file("put in its place", &facts))?;
    let _ = fs::remove_dir_all(&old);
    Ok(())
}

fn facts(host: &Host) -> Result<PathBuf, DeviceError> {
    Ok(keep::boot_dir(host)?.join("facts"))
}

/// Where to read the facts: what was kept, if it is of the driver that is loaded.
fn source(host: &Host) -> Result<PathBuf, DeviceError> {
    let (real, facts) = (host.path(REAL), facts(host)?);
    let version = |folder: &Path| keep::read(&folder.join("version")).ok().flatten();
    let kept = version(&facts).filter(|kept| Some(kept) == version(&real).as_ref());
    Ok(if kept.is_some() { facts } else { real })
}

fn build(host: &Host, gpus: &[&Gpu], migs: &[MigDevice], tree: &Path) -> Result<(), DeviceError> {
    let real = source(host)?;
    let shown = tree.join("nvidia");
    fs::create_dir_all(shown.join("gpus")).map_err(file("create the folder", &shown))?;
    let version = real.join("version");
    write(&shown.join("version"), keep::read_text(&version)?.as_bytes())?;
    copy(&real.join("registry"), &shown.join("registry"))?;
    let params = keep::read(&real.join("params"))?.unwrap_or_default();
    write(&shown.join("params"), masked(&String::from_utf8_lossy(&params)).as_bytes())?;
    let listed = keep::names(&real.join("gpus"))?;
    for gpu in gpus {
        // As the driver writes it; a GPU that is not listed has no folder in the container, either.
        let names = |name: &&String| name.parse::<PciAddress>().is_ok_and(|pci| pci == gpu.pci);
        if let Some(name) = listed.iter().find(names) {
            copy_folder(&real.join("gpus").join(name), &shown.join("gpus").join(name))?;
        }
    }
    capabilities(host, migs, &shown)?;
    for folder in [tree.to_owned(), shown.clone(), shown.join("gpus")] {
        read_only(&folder)?;
    }
    Ok(())
}

/// What lets a process use these MIG devices. These files the driver keeps in the kernel: reading them asks no GPU.
fn capabilities(host: &Host, migs: &[MigDevice], shown: &Path) -> Result<(), DeviceError> {
    let real = host.path(REAL).join("capabilities");
    let mut folders = BTreeSet::new();
    for access in migs.iter().flat_map(MigDevice::access) {
        let to = shown.join("capabilities").join(&access);
        let above = to.ancestors().skip(1).take_while(|folder| *folder != shown);
        folders.extend(above.map(Path::to_owned));
        let parent = to.parent().unwrap_or(shown);
        fs::create_dir_all(parent).map_err(file("create the folder", parent))?;
        if !to.exists() {
            let from = real.join(&access);
            write(&to, keep::read_text(&from)?.as_bytes())?;
        }
    }
    folders.iter().rev().try_for_each(|folder| read_only(folder))
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), DeviceError> {
    fs::create_dir(to).map_err(file("create the folder", to))?;
    for name in keep::names(from)? {
        if from.join(&name).is_file() {
            copy(&from.join(&name), &to.join(&name))?;
        }
    }
    read_only(to)
}

/// Some files of the driver cannot be read at times (`power` of a sleeping GPU), and none of these is needed.
fn copy(from: &Path, to: &Path) -> Result<(), DeviceError> {
    match keep::read(from) {
        Ok(Some(bytes)) => write(to, &bytes),
        Ok(None) | Err(_) => Ok(()),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DeviceError> {
    keep::write_new(path, bytes, 0o444).map_err(file("write", path))
}

fn read_only(folder: &Path) -> Result<(), DeviceError> {
    let mode = fs::Permissions::from_mode(0o555);
    fs::set_permissions(folder, mode).map_err(file("protect", folder))
}

/// The driver's parameters, but for one.
fn masked(params: &str) -> String {
    let other = |line: &&str| line.split(':').next().is_none_or(|name| name.trim() != MODIFY);
    let mut text = format!("{MODIFY}: 0\n");
    for line in params.lines().filter(other) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;

//! MIG instances as the launch path knows them: what the driver lists, and what was last learned of those that are listed.
//!
//! ```text
//! /proc/driver/nvidia/capabilities/gpu<minor>/mig/gi<id>/{access, ci<id>/access}   what there is, without a word of where
//! <run>/<boot>/mig-<uuid>.json                                                     profile, start and UUID of each
//! ```
//!
//! What is kept of one GPU holds for as long as the driver lists the same. Whoever makes or destroys an instance writes anew what is
//! kept of that GPU (`act`), so that the next launch needs no look at the node. Decides when what is kept is believed. Must not know whose an
//! instance is.

#[cfg(feature = "nvml")]
pub(crate) mod act;
#[cfg(feature = "nvml")]
mod raw;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use plan::mig::Instance;
use plan::{Gpu, GpuUuid, Inventory};
use serde::{Deserialize, Serialize};

use crate::error::DeviceError;
use crate::{Host, cache, keep};

/// Of the file; another one is learned anew.
const FORMAT: u32 = 1;

/// What is kept of one GPU.
#[derive(Serialize, Deserialize)]
struct Kept {
    format: u32,
    listing: Listing,
    instances: Vec<Instance>,
}

/// What the driver lists of one GPU. An instance's file has another inode than that of one which had its id before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listing {
    module: Option<u64>,
    entries: Vec<(String, u64)>,
}

impl Listing {
    /// The driver's, now.
    pub(crate) fn now(host: &Host, gpu: &Gpu) -> Result<Self, DeviceError> {
        let below = folder(host, gpu.minor);
        let inode = |path: &Path| inode(path).unwrap_or_default();
        let mut entries = Vec::new();
        for instance in named(&below, "gi")? {
            entries.push((instance.clone(), inode(&below.join(&instance))));
            for compute in named(&below.join(&instance), "ci")? {
                let name = format!("{instance}/{compute}");
                entries.push((name.clone(), inode(&below.join(&name))));
            }
        }
        Ok(Self { module: cache::module(host), entries })
    }

    fn has(&self, gpu_instance: u32) -> bool {
        let name = format!("gi{gpu_instance}");
        self.entries.iter().any(|(entry, _)| *entry == name)
    }

    /// Whether the very GPU instance is in both, with the same compute instances: one that is made anew has its id, and may be elsewhere.
    fn agrees_about(&self, other: &Self, gpu_instance: u32) -> bool {
        let name = format!("gi{gpu_instance}");
        let of_it = |entry: &&(String, u64)| {
            entry.0.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let entries = self.entries.iter().filter(of_it);
        self.module == other.module && entries.eq(other.entries.iter().filter(of_it))
    }
}

/// Puts into the inventory which instances there are. Whether that is known of every GPU; of one that `is_busy`, on which somebody works, what was known
/// before does, as far as it is still there.
pub(crate) fn fill(
    host: &Host,
    inventory: &mut Inventory,
    is_busy: impl Fn(&GpuUuid) -> bool,
) -> Result<bool, DeviceError> {
    let mut known = true;
    for gpu in inventory.gpus.iter_mut().filter(|gpu| gpu.mig) {
        let listing = Listing::now(host, gpu)?;
        let kept = kept(host, &gpu.uuid)?;
        let is_same = kept.as_ref().is_some_and(|kept| kept.listing == listing);
        gpu.instances = match kept {
            Some(kept) if is_same => kept.instances,
            Some(kept) => still_there(kept, &listing),
            None => Vec::new(),
        };
        known &= is_same || listing.entries.is_empty() || is_busy(&gpu.uuid);
    }
    Ok(known)
}

/// What is kept, as far as the driver still lists it. What is left of an instance that has changed is that it is in the way.
fn still_there(kept: Kept, now: &Listing) -> Vec<Instance> {
    let Kept { listing: then, mut instances, .. } = kept;
    instances.retain(|instance| now.has(instance.gpu_instance));
    for instance in &mut instances {
        if !now.agrees_about(&then, instance.gpu_instance) {
            instance.compute_instances.clear();
        }
    }
    instances
}

/// What tells the GPU instance with this id from one that had, or will have, its id: the inode of the driver's file. `None` where the driver lists none.
pub fn instance_inode(host: &Host, gpu_minor: u32, gpu_instance: u32) -> Option<u64> {
    inode(&folder(host, gpu_minor).join(format!("gi{gpu_instance}")))
}

/// Whether the GPU is in MIG mode now, as the driver's listing shows. Asks no GPU.
pub fn is_in_mig_mode(host: &Host, gpu: &Gpu) -> bool {
    folder(host, gpu.minor).is_dir()
}

fn kept(host: &Host, gpu: &GpuUuid) -> Result<Option<Kept>, DeviceError> {
    let bytes = keep::read(&path(host, gpu)?)?;
    let kept = bytes.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    Ok(kept.filter(|kept| kept.format == FORMAT))
}

/// Keeps what was learned while `listing` held.
#[cfg_attr(not(feature = "nvml"), allow(dead_code, reason = "only those who look write"))]
pub(crate) fn store(
    host: &Host,
    gpu: &GpuUuid,
    listing: Listing,
    instances: Vec<Instance>,
) -> Result<(), DeviceError> {
    let path = path(host, gpu)?;
    let kept = Kept { format: FORMAT, listing, instances };
    let bytes = serde_json::to_vec(&kept).map_err(|error| DeviceError::Malformed {
        path: path.clone(),
        how: format!("cannot be written: {error}"),
    })?;
    keep::replace(&path, &bytes, 0o600)
}

fn path(host: &Host, gpu: &GpuUuid) -> Result<PathBuf, DeviceError> {
    Ok(keep::boot_dir(host)?.join(format!("mig-{gpu}.json")))
}

/// Where the driver lists the instances of a GPU.
fn folder(host: &Host, gpu_minor: u32) -> PathBuf {
    host.path(&format!("/proc/driver/nvidia/capabilities/gpu{gpu_minor}/mig"))
}

fn named(folder: &Path, prefix: &str) -> Result<Vec<String>, DeviceError> {
    let mut names = keep::names(folder)?;
    names.retain(|name| keep::is_numbered(name, prefix));
    Ok(names)
}

/// Of the file by which an instance's use is granted.
fn inode(instance: &Path) -> Option<u64> {
    fs::metadata(instance.join("access")).ok().map(|meta| meta.ino())
}

#[cfg(test)]
mod tests;

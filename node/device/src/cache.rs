//! The cached inventory: observed once, believed for as long as its key is the node's.
//!
//! Decides when it is believed. What it says is `plan`'s; who makes it is not its business. The cache is only ever a saving: whatever is
//! wrong with it, the node is observed anew.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plan::Inventory;
use serde::{Deserialize, Serialize};

use crate::error::DeviceError;
use crate::{Host, keep};

/// Of the file; another one is observed anew.
const FORMAT: u32 = 2;

/// How long an inventory is believed in which a GPU is missing: it may have been reset since, which no key shows.
const INCOMPLETE: Duration = Duration::from_secs(300);

/// In the folder of the boot.
const NAME: &str = "inventory.json";

/// What must be the same for a cached inventory to hold.
///
/// The module is known by the inode of its folder in sysfs: kernfs gives each a number of its own (64 bits, with a generation), so that a
/// module that was loaded again has another one. The folder's times say nothing: the kernel forgets them with the inode whenever it is
/// short of memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    boot: String,
    root: PathBuf,
    nvml: PathBuf,
    module: Option<u64>,
    version: String,
    gpus: Vec<String>,
    mig: Vec<String>,
}

/// What a look at the node found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) inventory: Inventory,
    /// Whether something did not answer that may answer later.
    pub(crate) incomplete: bool,
    pub(crate) problems: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Cached {
    format: u32,
    key: Key,
    seen: Seen,
}

impl Key {
    /// The node's, now. `None` on a node without the driver, where there is nothing to observe.
    pub(crate) fn now(host: &Host) -> Result<Option<Self>, DeviceError> {
        let version = host.path("/proc/driver/nvidia/version");
        let Some(version) = keep::read(&version)? else { return Ok(None) };
        Ok(Some(Self {
            boot: host.boot_id()?,
            root: host.root.clone(),
            nvml: host.nvml.clone(),
            module: module(host),
            version: String::from_utf8_lossy(&version).into_owned(),
            gpus: keep::names(&host.path("/proc/driver/nvidia/gpus"))?,
            mig: in_mig_mode(&host.path("/proc/driver/nvidia/capabilities"))?,
        }))
    }
}

/// The driver as it is loaded.
pub(crate) fn module(host: &Host) -> Option<u64> {
    fs::metadata(host.path("/sys/module/nvidia")).ok().map(|meta| meta.ino())
}

/// `gpu0` and the like, of which the mode is on. What instances they have is known by itself (`nvidia::mig`).
fn in_mig_mode(capabilities: &Path) -> Result<Vec<String>, DeviceError> {
    let mut gpus = keep::names(capabilities)?;
    gpus.retain(|name| name.starts_with("gpu") && capabilities.join(name).join("mig").is_dir());
    gpus.sort();
    Ok(gpus)
}

/// The cached inventory, if it holds for one of `keys`.
pub(crate) fn load(host: &Host, keys: &[&Key]) -> Option<Inventory> {
    let cached = cached(host)?;
    if cached.seen.incomplete && age(&path(host)?)? > INCOMPLETE {
        return None;
    }
    keys.contains(&&cached.key).then_some(cached.seen.inventory)
}

/// What the last look at this node found amiss, in words: GPUs that are lost, modules that are missing. Empty before the first look.
pub fn problems(host: &Host) -> Vec<String> {
    let now = Key::now(host).ok().flatten();
    match (cached(host), now) {
        (Some(cached), Some(now)) if cached.key == now => cached.seen.problems,
        _ => Vec::new(),
    }
}

fn cached(host: &Host) -> Option<Cached> {
    let cached: Cached = serde_json::from_slice(&keep::read(&path(host)?).ok()??).ok()?;
    (cached.format == FORMAT).then_some(cached)
}

fn path(host: &Host) -> Option<PathBuf> {
    Some(host.run.join(host.boot_id().ok()?).join(NAME))
}

/// How old a file is; none for one from the future.
fn age(path: &Path) -> Option<Duration> {
    fs::metadata(path).ok()?.modified().ok()?.elapsed().ok()
}

/// Keeps what was observed while `key` held.
#[cfg_attr(not(feature = "nvml"), allow(dead_code, reason = "only the observer writes"))]
pub(crate) fn store(host: &Host, key: Key, seen: Seen) -> Result<(), DeviceError> {
    let path = keep::boot_dir(host)?.join(NAME);
    let bytes = serde_json::to_vec(&Cached { format: FORMAT, key, seen }).map_err(|error| {
        DeviceError::Malformed { path: path.clone(), how: format!("cannot be written: {error}") }
    })?;
    keep::replace(&path, &bytes, 0o600)
}

//! The driver's files as a container gets them: one prepared tree for each driver version and set of capabilities.
//!
//! ```text
//! <run>/<boot>/driver-<version>-<capabilities>-<key>  ─► (symlink, made when the tree was checked in this boot)
//! <state>/driver/<version>/<capabilities>-<fingerprint>/manifest.json
//!                                                      /root/{usr/local/nvidia/lib64,usr/bin,usr/lib/firmware,etc/ld.so.conf.d,…}/…
//! ```
//!
//! Decides what a tree is and when a prepared one serves. Must not know how it gets into a container.

#[cfg(any(feature = "nvml", test))]
mod build;
#[cfg(any(feature = "nvml", test))]
mod data;
#[cfg(any(feature = "nvml", test))]
mod elf;
#[cfg(any(feature = "nvml", test))]
mod families;
#[cfg(any(feature = "nvml", test))]
mod files;
#[cfg(any(feature = "nvml", test))]
mod layout;
#[cfg(any(feature = "nvml", test))]
mod places;
#[cfg(any(feature = "nvml", test))]
mod root;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use plan::{Capabilities, Capability, Driver};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::DeviceError;
use crate::tool::{Errand, Tool};
use crate::{Host, keep};

#[cfg(any(feature = "nvml", test))]
pub use build::prepare_driver;
#[cfg(feature = "nvml")]
pub use places::{DriverFile, driver_files};

/// Format of the manifest; another one is prepared anew.
const FORMAT: u32 = 2;

/// Sockets of the driver's services, and what they belong to.
const SOCKETS: [(&str, Capability); 2] = [
    ("/run/nvidia-persistenced/socket", Capability::Utility),
    ("/run/nvidia-fabricmanager/socket", Capability::Compute),
];

/// The prepared files. Paths but the first are those in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverTree {
    /// The tree on the node: a root directory with nothing else in it.
    pub path: PathBuf,
    /// Where the libraries are, native ones first.
    pub lib_dirs: Vec<String>,
    /// Every directory of the tree, relative to its root, parents first.
    pub directories: Vec<PathBuf>,
    /// What the loader is to know.
    pub libraries: Vec<Library>,
    /// Programs.
    pub binaries: Vec<String>,
    /// Firmware, which user space reads the version of.
    pub firmware: Vec<String>,
    /// What else has its place among the image's own files: what tells other loaders of the libraries, what those read, and modules.
    pub data: Vec<String>,
    /// Sockets that exist on the node, where the container should have them, too. Not in the tree.
    #[serde(skip)]
    pub sockets: Vec<String>,
}

/// A library as the loader is to find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    /// What programs ask for.
    pub soname: String,
    /// Where it is in the container.
    pub path: String,
    /// Which programs load it.
    pub width: Width,
}

/// For which programs of a machine a library is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Width {
    /// For its 64-bit ones.
    Native,
    /// For the 32-bit ones that it runs, too.
    Narrow,
}

impl DriverTree {
    /// Tells the image's own `ldconfig`, if it is ever run, where the libraries are.
    pub const LOADER_CONF: &'static str = "/etc/ld.so.conf.d/000-berth.conf";

    /// Permissions of every directory of the tree, which are root's.
    pub const DIRECTORY_MODE: u32 = 0o755;
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    tree: DriverTree,
}

/// The driver's files of these capabilities: one file is read when they were prepared in this boot; else `berth prepare-driver` does it,
/// once for all who ask.
///
/// # Errors
/// When the files are not where they should be, or cannot be prepared.
pub fn driver_tree(
    host: &Host,
    tool: &Tool,
    driver: &Driver,
    capabilities: &Capabilities,
) -> Result<DriverTree, DeviceError> {
    let boot = keep::boot_dir(host)?;
    let prepared = boot.join(checked_name(host, driver, capabilities));
    let known = || known(host, &prepared, capabilities);
    if let Some(tree) = known()? {
        return Ok(tree);
    }
    let lock = boot.join("driver.lock");
    let list = capabilities.to_string();
    let args = ["prepare-driver", "--capabilities", &list];
    let task = "prepare the driver's files";
    tool.fetch(&Errand { task, args: &args, lock: &lock }, known)
}

/// Trees of other driver versions than the loaded one. Containers may still use them; they go when somebody removes them.
///
/// # Errors
/// When their folder cannot be listed.
pub fn old_trees(host: &Host, current: Option<&Driver>) -> Result<Vec<PathBuf>, DeviceError> {
    let trees = host.state.join("driver");
    let current = current.map(|driver| driver.version.as_str());
    let old = |name: &String| is_version(name) && Some(name.as_str()) != current;
    let names = keep::names(&trees)?;
    Ok(names.into_iter().filter(old).map(|name| trees.join(name)).collect())
}

/// Name of the link by which a prepared tree is found. The key says where its files came from.
fn checked_name(host: &Host, driver: &Driver, capabilities: &Capabilities) -> String {
    let (root, files, state) = (&host.root, &host.driver_root, &host.state);
    let from = format!("{}\n{}\n{}", root.display(), files.display(), state.display());
    let key = digest(from.as_bytes());
    format!("driver-{}-{}-{key}", plain(&driver.version), joined(capabilities))
}

fn known(
    host: &Host,
    prepared: &Path,
    capabilities: &Capabilities,
) -> Result<Option<DriverTree>, DeviceError> {
    let Some(mut tree) = read_manifest(prepared)? else { return Ok(None) };
    // Services come and go while the files stay.
    tree.sockets = sockets(host, capabilities);
    Ok(Some(tree))
}

/// Sockets of these capabilities that are there.
fn sockets(host: &Host, capabilities: &Capabilities) -> Vec<String> {
    let there = |(path, of): &(&str, Capability)| capabilities.has(*of) && host.path(path).exists();
    SOCKETS.iter().filter(|one| there(one)).map(|(path, _)| (*path).to_owned()).collect()
}

/// What is prepared in this folder. A manifest of another format, or none that can be read, is none: preparing makes another.
fn read_manifest(folder: &Path) -> Result<Option<DriverTree>, DeviceError> {
    let bytes = keep::read(&folder.join("manifest.json"))?.unwrap_or_default();
    let manifest = serde_json::from_slice::<Manifest>(&bytes).ok();
    Ok(manifest.filter(|manifest| manifest.format == FORMAT).map(|manifest| manifest.tree))
}

/// `compute+utility`: commas and colons mean something in an overlay's options.
fn joined(capabilities: &Capabilities) -> String {
    capabilities.to_string().replace(',', "+")
}

/// A version as part of a file's name.
fn plain(version: &str) -> String {
    version.chars().filter(|char| char.is_ascii_digit() || *char == '.').collect()
}

pub(crate) fn is_version(name: &str) -> bool {
    let mut parts = name.split('.');
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    name.contains('.') && parts.all(number)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

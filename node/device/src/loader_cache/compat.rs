//! CUDA forward compatibility: an image's own driver libraries, newer than the node's.
//!
//! NVIDIA's images bring a newer user-mode driver under `/usr/local/cuda/compat`, meant to be used where the
//! node's driver is of an older branch. Decides by names alone whether that is so, and which cache entries
//! then come before ours. Nothing of the image is opened, mounted or run for it. Must not know where
//! the node's own libraries are.

#![forbid(unsafe_code)]

use super::Entry;
use crate::rootfs::{Kind, Root, RootError};

/// The loader's configuration that names [`DIRECTORY`] before the node's own libraries (`000-berth.conf`), in whatever locale names are sorted.
pub const CONF: &str = "/etc/ld.so.conf.d/000-berth-compat.conf";

/// Where images bring them.
pub const DIRECTORY: &str = "/usr/local/cuda/compat";

/// Most names looked at there; the packages have about a dozen.
const MOST_NAMES: usize = 4096;

/// Under which names programs and the driver open these libraries, besides their full names.
const SONAMES: [(&str, &[&str]); 5] = [
    ("libcuda", &["libcuda.so.1", "libcuda.so"]),
    ("libcudadebugger", &["libcudadebugger.so.1"]),
    ("libnvidia-nvvm", &["libnvidia-nvvm.so.4"]),
    ("libnvidia-nvvm70", &["libnvidia-nvvm70.so.4"]),
    ("libnvidia-ptxjitcompiler", &["libnvidia-ptxjitcompiler.so.1"]),
];

/// The driver libraries that this image brings for forward compatibility, if they are of a later branch
/// (the version's first number) than `driver`, the node's version; none otherwise.
pub fn compat_entries(root: &Root, driver: &str) -> Result<Vec<Entry>, RootError> {
    let Some(driver) = numbers(driver) else { return Ok(Vec::new()) };
    let Some(names) = root.list(DIRECTORY, MOST_NAMES)? else { return Ok(Vec::new()) };
    let files: Vec<(&str, &str)> = names
        .iter()
        .filter(|(_, kind)| *kind == Kind::File)
        .filter_map(|(name, _)| name.split_once(".so."))
        .collect();
    let newest = files
        .iter()
        .filter(|(library, _)| *library == "libcuda")
        .filter_map(|(_, version)| Some((numbers(version)?, *version)))
        .max();
    let Some((_, version)) = newest.filter(|(newest, _)| newest[0] > driver[0]) else {
        return Ok(Vec::new());
    };
    let of_that_version = files.iter().filter(|(_, other)| *other == version);
    Ok(of_that_version.flat_map(|(library, _)| entries_of(library, version)).collect())
}

/// The names of one library, all leading to the file itself: the links beside it may say anything.
fn entries_of(library: &str, version: &str) -> Vec<Entry> {
    let file = format!("{library}.so.{version}");
    let path = format!("{DIRECTORY}/{file}");
    let short = SONAMES.iter().find(|(known, _)| *known == library).map_or(&[][..], |(_, of)| *of);
    std::iter::once(file)
        .chain(short.iter().map(|name| (*name).to_owned()))
        .map(|soname| Entry::native(&soname, &path))
        .collect()
}

/// A driver's version: two to four numbers with dots between.
fn numbers(version: &str) -> Option<Vec<u32>> {
    let numbers: Vec<u32> = version
        .split('.')
        .map(|part| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?)
        .collect::<Option<_>>()?;
    (2..=4).contains(&numbers.len()).then_some(numbers)
}

//! The cache of glibc's loader, `/etc/ld.so.cache`, as data: an image's own, with the driver's libraries in it.
//!
//! Decides what a container's cache says: everything that the image's said, but for each library of
//! ours our path alone. The image's `ldconfig` is never run and neither is the node's; a file is read,
//! merged and put in its place through [`Root`]. Where the image has no cache, ours says only what we
//! bring, which takes nothing away: the loader looks into its default directories for all that a cache
//! does not name. musl reads no cache at all. Must not know what a GPU is, nor where the libraries come from.

#![forbid(unsafe_code)]

mod compat;
mod format;
mod libc;
mod order;
mod read;
mod write;

#[cfg(test)]
mod tests;

use crate::rootfs::{Root, RootError};

pub use compat::{CONF as COMPAT_CONF, DIRECTORY as COMPAT_DIRECTORY, compat_entries};
pub use format::{LARGEST, MOST_ENTRIES};
pub use libc::{Libc, MUSL_LOADER, libc_of};

use format::{Contents, Hwcap, Record};

/// Where glibc's loader looks for its cache.
pub const PATH: &str = "/etc/ld.so.cache";

/// Said by `ldconfig -p` of a cache that had no generator of its own.
const GENERATOR: &[u8] = b"berth";

/// An entry for any ELF library, of whatever machine (`FLAG_ELF`); loaders take it where nothing fits better.
const ANY_ELF: i32 = 1;

/// What is wrong with a loader cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The image's cache cannot be understood, so it cannot be merged with ours.
    #[error("the image's /etc/ld.so.cache is {how}: run ldconfig when building the image")]
    Malformed {
        /// In which way.
        how: &'static str,
    },
    /// A library that no cache could name.
    #[error("{soname:?} at {path:?} cannot be put into a loader cache: its path must be absolute")]
    BadEntry {
        /// Its name.
        soname: String,
        /// Its path.
        path: String,
    },
    /// The file could not be read or written.
    #[error(transparent)]
    Root(#[from] RootError),
}

/// A library as the loader is to find it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// What programs ask for, `libcuda.so.1`.
    pub soname: String,
    /// Where it is in the container, absolute.
    pub path: String,
    /// Kind and machine, [`Arch::flags`].
    pub flags: i32,
}

/// A machine whose libraries the loader tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// The machine that this program is built for; the node's, and so the container's.
    pub const NATIVE: Self =
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// The flags of its glibc libraries (`FLAG_ELF_LIBC6` and the machine; glibc, sysdeps/generic/ldconfig.h).
    pub fn flags(self) -> i32 {
        match self {
            Self::X86_64 => 0x0303,
            Self::Aarch64 => 0x0a03,
        }
    }

    /// The flags of the glibc libraries of the 32-bit programs that it runs, too: plain `FLAG_ELF_LIBC6` for i386, whose loader knows
    /// no other; with `FLAG_ARM_LIBHF` for Arm.
    pub fn flags_of_32_bits(self) -> i32 {
        match self {
            Self::X86_64 => 0x0003,
            Self::Aarch64 => 0x0903,
        }
    }

    /// As file names of loaders have it.
    fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// The contents of a loader cache, in the loader's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoaderCache {
    contents: Contents,
}

impl LoaderCache {
    /// Reads a cache of any of glibc's three forms. No bytes is no entries: the loader ignores an empty
    /// file, too.
    pub fn parse(bytes: &[u8]) -> Result<Self, CacheError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut contents = format::parse(bytes)?;
        contents.records.sort_by(order::compare);
        Ok(Self { contents })
    }

    /// Puts `ours` in. What a former merge put in from `lib_dirs` goes, and so does every other entry that
    /// the loader could take for one of ours: the same name as the loader compares names, of the same
    /// kind or of none in particular. Of two of ours with one name and kind the first stays.
    pub fn merge(&mut self, ours: &[Entry], lib_dirs: &[&str]) -> Result<(), CacheError> {
        let mut added: Vec<Record> = Vec::with_capacity(ours.len());
        for entry in ours {
            added.push(entry.record()?);
        }
        added.sort_by(order::compare);
        added.dedup_by(|next, kept| kept.flags == next.flags && same_name(kept, next));
        let dirs = || lib_dirs.iter().map(|dir| dir.trim_end_matches('/').as_bytes());
        let former = |old: &Record| dirs().any(|dir| is_below(&old.path, dir));
        self.contents.records.retain(|old| !former(old) && !shadowed(old, &added));
        self.contents.records.append(&mut added);
        self.contents.records.sort_by(order::compare);
        Ok(())
    }

    /// What it names, in the loader's order; names that are not UTF-8 shown as well as they can be.
    pub fn entries(&self) -> Vec<Entry> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let records = self.contents.records.iter();
        records
            .map(|record| Entry {
                soname: text(&record.soname),
                path: text(&record.path),
                flags: record.flags,
            })
            .collect()
    }

    /// The file: glibc's new form alone, little endian, with its extension section.
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.contents.generator.is_empty() {
            let generator = GENERATOR.to_vec();
            return format::write(&Contents { generator, ..self.contents.clone() });
        }
        format::write(&self.contents)
    }
}

impl Entry {
    /// A library for this machine.
    pub fn native(soname: &str, path: &str) -> Self {
        Self { soname: soname.to_owned(), path: path.to_owned(), flags: Arch::NATIVE.flags() }
    }

    /// A library for the 32-bit programs of this machine.
    pub fn of_32_bits(soname: &str, path: &str) -> Self {
        Self { flags: Arch::NATIVE.flags_of_32_bits(), ..Self::native(soname, path) }
    }

    fn record(&self) -> Result<Record, CacheError> {
        let bad = self.soname.is_empty()
            || !self.path.starts_with('/')
            || self.soname.contains('\0')
            || self.path.contains('\0');
        if bad {
            let (soname, path) = (self.soname.clone(), self.path.clone());
            return Err(CacheError::BadEntry { soname, path });
        }
        Ok(Record {
            soname: self.soname.clone().into_bytes(),
            path: self.path.clone().into_bytes(),
            flags: self.flags,
            os_version: 0,
            hwcap: Hwcap::Mask(0),
        })
    }
}

fn same_name(one: &Record, other: &Record) -> bool {
    order::compare_names(&one.soname, &other.soname).is_eq()
}

/// Whether the loader could take `old` for one of `ours`, which are in its order.
fn shadowed(old: &Record, ours: &[Record]) -> bool {
    let before = |one: &Record| order::compare_names(&one.soname, &old.soname).is_gt();
    let from = ours.partition_point(before);
    ours[from..]
        .iter()
        .take_while(|one| same_name(one, old))
        .any(|one| old.flags == one.flags || old.flags == ANY_ELF)
}

fn is_below(path: &[u8], dir: &[u8]) -> bool {
    !dir.is_empty() && path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"))
}

/// The cache that a container of this root is to have: the image's own, merged with `libraries`, which live
/// in `lib_dirs`. Those of `compat`, the image's own newer driver (see [`compat_entries`]), come first. None
/// if the image's cache already is exactly this.
pub fn merged(
    root: &Root,
    libraries: &[Entry],
    lib_dirs: &[&str],
    compat: &[Entry],
) -> Result<Option<Vec<u8>>, CacheError> {
    let own = root.read(PATH, LARGEST as u64)?.unwrap_or_default();
    let mut cache = LoaderCache::parse(&own)?;
    // The first of one name stays, so the node's own give way.
    let ours: Vec<Entry> = compat.iter().chain(libraries).cloned().collect();
    cache.merge(&ours, lib_dirs)?;
    let bytes = cache.to_bytes();
    Ok((bytes != own).then_some(bytes))
}

/// Writes what [`merged`] says to the image's `/etc/ld.so.cache`. A second time changes nothing.
pub fn install(
    root: &Root,
    libraries: &[Entry],
    lib_dirs: &[&str],
    compat: &[Entry],
) -> Result<(), CacheError> {
    if let Some(cache) = merged(root, libraries, lib_dirs, compat)? {
        root.make_dirs("/etc", 0o755)?;
        root.replace(PATH, &cache, 0o644)?;
    }
    Ok(())
}

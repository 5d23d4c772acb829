//! The file format of glibc's `/etc/ld.so.cache`: its numbers, and what a file says once it is read.
//!
//! Three forms exist: the old one (`ld.so-1.7.0`, until glibc 2.1), the new one hidden in the string table
//! of an old one (the default until glibc 2.31), and the new one alone (`glibc-ld.so.cache1.1`); since
//! 2.33 an extension section may follow the strings (glibc, sysdeps/generic/dl-cache.h). All are read, the
//! last is written: every loader since glibc 2.2 takes it. Must not know what is merged or why.

#![forbid(unsafe_code)]

pub(super) use super::read::parse;
pub(super) use super::write::write;

/// Largest cache that is read, in bytes.
pub const LARGEST: usize = 32 << 20;

/// Most entries that a cache may have.
pub const MOST_ENTRIES: usize = 100_000;

pub(super) const NEW_MAGIC: &[u8] = b"glibc-ld.so.cache";
pub(super) const NEW_VERSION: &[u8] = b"1.1";
pub(super) const NEW_HEADER: usize = 48;
pub(super) const NEW_ENTRY: usize = 24;

/// `flags` in the header: byte order unknown (written before glibc 2.33), or little endian.
pub(super) const ORDER_UNSET: u8 = 0;
pub(super) const ORDER_LITTLE: u8 = 2;

pub(super) const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
pub(super) const EXTENSION_HEADER: usize = 8;
pub(super) const EXTENSION_SECTION: usize = 16;
pub(super) const TAG_GENERATOR: u32 = 0;
pub(super) const TAG_HWCAPS: u32 = 1;

/// The bit that marks an index into the named subdirectories, above the ISA level's ten bits.
pub(super) const NAMED: u64 = 1 << 62;
pub(super) const ISA_LEVEL: u64 = (1 << 10) - 1;

/// One line of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) soname: Vec<u8>,
    pub(super) path: Vec<u8>,
    pub(super) flags: i32,
    pub(super) os_version: u32,
    pub(super) hwcap: Hwcap,
}

/// For which processors an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hwcap {
    /// The bit mask of loaders before 2.33; 0 is every processor.
    Mask(u64),
    /// A `glibc-hwcaps` subdirectory.
    Named { name: Vec<u8>, isa_level: u32 },
}

/// What a file says, in its own order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) records: Vec<Record>,
    pub(super) generator: Vec<u8>,
}

//! Reading a loader cache from bytes that nobody trusts.
//!
//! Offsets, counts and lengths come from the image, so each is checked before use, and what they may sum up
//! to is bounded. Decides what is too much or too odd to be read.

#![forbid(unsafe_code)]

use super::CacheError;
use super::format::{
    Contents, EXTENSION_HEADER, EXTENSION_MAGIC, EXTENSION_SECTION, Hwcap, ISA_LEVEL, LARGEST,
    MOST_ENTRIES, NAMED, NEW_ENTRY, NEW_HEADER, NEW_MAGIC, NEW_VERSION, ORDER_LITTLE, ORDER_UNSET,
    Record, TAG_GENERATOR, TAG_HWCAPS,
};

/// Most that the names and paths of a cache may come to, in bytes; 5000 libraries have less than one MiB.
const MOST_TEXT: usize = 8 << 20;

/// Longest name or path in a cache, the kernel's PATH_MAX.
const LONGEST_STRING: usize = 4096;

/// Longest name of a named subdirectory, the kernel's NAME_MAX.
const LONGEST_HWCAP: usize = 255;

/// Most named hardware-capability subdirectories.
const MOST_HWCAPS: usize = 1024;

/// Longest generator line kept.
const LONGEST_GENERATOR: usize = 4096;

const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;

/// Reads a cache of any form.
pub(super) fn parse(bytes: &[u8]) -> Result<Contents, CacheError> {
    if bytes.len() > LARGEST {
        return Err(malformed("larger than 32 MiB"));
    }
    if bytes.starts_with(NEW_MAGIC) {
        return parse_new(bytes, 0);
    }
    if !bytes.starts_with(OLD_MAGIC) {
        return Err(malformed("not of a known format"));
    }
    let count = entry_count(bytes, 12, OLD_HEADER, OLD_ENTRY)?;
    let strings = OLD_HEADER + count * OLD_ENTRY;
    let embedded = strings.next_multiple_of(8);
    if bytes.get(embedded..).is_some_and(|rest| rest.starts_with(NEW_MAGIC)) {
        return parse_new(bytes, embedded);
    }
    parse_old(bytes, count, strings)
}

fn parse_old(bytes: &[u8], count: usize, strings: usize) -> Result<Contents, CacheError> {
    let mut texts = Texts { bytes: &bytes[strings..], total: 0 };
    let records = (0..count).map(|index| {
        let at = OLD_HEADER + index * OLD_ENTRY;
        Ok(Record {
            flags: word(bytes, at)? as i32,
            soname: texts.at(word(bytes, at + 4)?)?,
            path: texts.at(word(bytes, at + 8)?)?,
            os_version: 0,
            hwcap: Hwcap::Mask(0),
        })
    });
    Ok(Contents { records: records.collect::<Result<_, CacheError>>()?, generator: Vec::new() })
}

/// Reads the new form that begins at `start`. Its strings count from there, its extension from the
/// beginning of the file; both as the loader has it.
fn parse_new(bytes: &[u8], start: usize) -> Result<Contents, CacheError> {
    let new = &bytes[start..];
    if new.len() < NEW_HEADER {
        return Err(malformed("cut off in its header"));
    }
    if &new[NEW_MAGIC.len()..NEW_MAGIC.len() + NEW_VERSION.len()] != NEW_VERSION {
        return Err(malformed("of a version other than 1.1"));
    }
    if !matches!(new[28] & 3, ORDER_UNSET | ORDER_LITTLE) {
        return Err(malformed("not little endian"));
    }
    let count = entry_count(new, 20, NEW_HEADER, NEW_ENTRY)?;
    let extension = Extension::parse(bytes, word(new, 32)?)?;
    let mut texts = Texts { bytes: new, total: 0 };
    let mut records = Vec::with_capacity(count);
    for index in 0..count {
        let at = NEW_HEADER + index * NEW_ENTRY;
        let bits = u64::from(word(new, at + 16)?) | u64::from(word(new, at + 20)?) << 32;
        // An index that leads nowhere is an entry that no loader uses.
        let Some(hwcap) = extension.hwcap(bits) else { continue };
        records.push(Record {
            flags: word(new, at)? as i32,
            soname: texts.at(word(new, at + 4)?)?,
            path: texts.at(word(new, at + 8)?)?,
            os_version: word(new, at + 12)?,
            hwcap,
        });
    }
    Ok(Contents { records, generator: extension.generator })
}

/// The number of entries that the header says, if they fit into the file.
fn entry_count(bytes: &[u8], at: usize, header: usize, entry: usize) -> Result<usize, CacheError> {
    let count = word(bytes, at)? as usize;
    if count > MOST_ENTRIES {
        return Err(malformed("of more than 100000 entries"));
    }
    if header + count * entry > bytes.len() {
        return Err(malformed("cut off in its entries"));
    }
    Ok(count)
}

/// What follows the strings since glibc 2.33.
#[derive(Default)]
struct Extension {
    generator: Vec<u8>,
    hwcaps: Vec<Vec<u8>>,
}

impl Extension {
    fn parse(bytes: &[u8], offset: u32) -> Result<Self, CacheError> {
        let mut extension = Self::default();
        if offset == 0 {
            return Ok(extension);
        }
        let at = offset as usize;
        if !at.is_multiple_of(4) || word(bytes, at)? != EXTENSION_MAGIC {
            return Err(malformed("damaged in its extension"));
        }
        let count = word(bytes, at + 4)? as usize;
        let sections = at + EXTENSION_HEADER;
        if count > (bytes.len() - sections) / EXTENSION_SECTION {
            return Err(malformed("cut off in its extension"));
        }
        for index in 0..count {
            let section = sections + index * EXTENSION_SECTION;
            let (start, size) =
                (word(bytes, section + 8)? as usize, word(bytes, section + 12)? as usize);
            let body = start
                .checked_add(size)
                .and_then(|end| bytes.get(start..end))
                .ok_or_else(|| malformed("cut off in its extension"))?;
            match word(bytes, section)? {
                TAG_GENERATOR => {
                    extension.generator = body[..body.len().min(LONGEST_GENERATOR)].to_vec();
                }
                TAG_HWCAPS => extension.hwcaps = hwcap_names(bytes, body)?,
                // A section of a later glibc, which its loader can do without, as without a cache.
                _ => {}
            }
        }
        Ok(extension)
    }

    fn hwcap(&self, bits: u64) -> Option<Hwcap> {
        if (bits >> 32) & !ISA_LEVEL != NAMED >> 32 {
            return Some(Hwcap::Mask(bits));
        }
        let name = self.hwcaps.get(bits as u32 as usize)?.clone();
        Some(Hwcap::Named { name, isa_level: ((bits >> 32) & ISA_LEVEL) as u32 })
    }
}

fn hwcap_names(bytes: &[u8], body: &[u8]) -> Result<Vec<Vec<u8>>, CacheError> {
    if !body.len().is_multiple_of(4) || body.len() / 4 > MOST_HWCAPS {
        return Err(malformed("damaged in its list of hardware capabilities"));
    }
    let mut texts = Texts { bytes, total: 0 };
    let names = (0..body.len() / 4).map(|index| texts.at(word(body, index * 4)?));
    let names = names.collect::<Result<Vec<_>, CacheError>>()?;
    if names.iter().any(|name| name.len() > LONGEST_HWCAP) {
        return Err(malformed("damaged in its list of hardware capabilities"));
    }
    Ok(names)
}

/// The strings of a file, and how much of them was taken: a small file may name one long string very
/// often.
struct Texts<'a> {
    bytes: &'a [u8],
    total: usize,
}

impl Texts<'_> {
    fn at(&mut self, offset: u32) -> Result<Vec<u8>, CacheError> {
        let rest = self
            .bytes
            .get(offset as usize..)
            .ok_or_else(|| malformed("of offsets outside of itself"))?;
        let length = rest
            .iter()
            .take(LONGEST_STRING)
            .position(|byte| *byte == 0)
            .ok_or_else(|| malformed("of strings without an end"))?;
        self.total += length;
        if self.total > MOST_TEXT {
            return Err(malformed("of more than 8 MiB of names"));
        }
        Ok(rest[..length].to_vec())
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, CacheError> {
    at.checked_add(4)
        .and_then(|end| bytes.get(at..end))
        .and_then(|word| word.try_into().ok())
        .map(u32::from_le_bytes)
        .ok_or_else(|| malformed("cut off"))
}

fn malformed(how: &'static str) -> CacheError {
    CacheError::Malformed { how }
}

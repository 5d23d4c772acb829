//! Writing a loader cache in glibc's new form.
//!
//! Decides the layout; the same records make the same bytes. Must not know where the records come from.

#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};

use super::format::{
    Contents, EXTENSION_HEADER, EXTENSION_MAGIC, EXTENSION_SECTION, Hwcap, NAMED, NEW_ENTRY,
    NEW_HEADER, NEW_MAGIC, NEW_VERSION, ORDER_LITTLE, TAG_GENERATOR, TAG_HWCAPS,
};

/// Writes records, which must be in the loader's order, as a file of the new form.
pub(super) fn write(contents: &Contents) -> Vec<u8> {
    let hwcaps: BTreeSet<&[u8]> = contents
        .records
        .iter()
        .filter_map(|record| match &record.hwcap {
            Hwcap::Named { name, .. } => Some(name.as_slice()),
            Hwcap::Mask(_) => None,
        })
        .collect();
    let mut strings = Strings {
        start: NEW_HEADER + contents.records.len() * NEW_ENTRY,
        bytes: Vec::new(),
        known: HashMap::new(),
    };
    // Sorted, as the loader walks them side by side with its own.
    let hwcap_offsets: Vec<u32> = hwcaps.iter().map(|name| strings.add(name)).collect();
    let index_of: HashMap<&[u8], u64> = hwcaps.into_iter().zip(0..).collect();
    let mut entries = Vec::with_capacity(strings.start);
    for record in &contents.records {
        let bits = match &record.hwcap {
            Hwcap::Mask(mask) => *mask,
            Hwcap::Named { name, isa_level } => {
                NAMED | u64::from(*isa_level) << 32 | index_of[name.as_slice()]
            }
        };
        entries.extend(record.flags.to_le_bytes());
        entries.extend(strings.add(&record.soname).to_le_bytes());
        entries.extend(strings.add(&record.path).to_le_bytes());
        entries.extend(record.os_version.to_le_bytes());
        entries.extend(bits.to_le_bytes());
    }

    let extension = (strings.start + strings.bytes.len()).next_multiple_of(4);
    let mut file = Vec::with_capacity(extension + 256);
    file.extend(NEW_MAGIC);
    file.extend(NEW_VERSION);
    file.extend(number(contents.records.len()));
    file.extend(number(strings.bytes.len()));
    file.extend(u32::from(ORDER_LITTLE).to_le_bytes());
    file.extend(number(extension));
    file.resize(NEW_HEADER, 0);
    file.append(&mut entries);
    file.append(&mut strings.bytes);
    file.resize(extension, 0);
    write_extension(&mut file, &contents.generator, &hwcap_offsets);
    file
}

fn write_extension(file: &mut Vec<u8>, generator: &[u8], hwcaps: &[u32]) {
    let sections = if hwcaps.is_empty() { 1 } else { 2 };
    let bodies = file.len() + EXTENSION_HEADER + sections * EXTENSION_SECTION;
    let hwcaps_size = hwcaps.len() * 4;
    file.extend(EXTENSION_MAGIC.to_le_bytes());
    file.extend(number(sections));
    let mut section = |tag: u32, start: usize, size: usize| {
        file.extend(tag.to_le_bytes());
        file.extend(0_u32.to_le_bytes());
        file.extend(number(start));
        file.extend(number(size));
    };
    section(TAG_GENERATOR, bodies + hwcaps_size, generator.len());
    if !hwcaps.is_empty() {
        section(TAG_HWCAPS, bodies, hwcaps_size);
    }
    for offset in hwcaps {
        file.extend(offset.to_le_bytes());
    }
    file.extend(generator);
}

/// A string table, each string once.
struct Strings<'a> {
    start: usize,
    bytes: Vec<u8>,
    known: HashMap<&'a [u8], u32>,
}

impl<'a> Strings<'a> {
    fn add(&mut self, text: &'a [u8]) -> u32 {
        *self.known.entry(text).or_insert_with(|| {
            let offset = self.start + self.bytes.len();
            self.bytes.extend(text);
            self.bytes.push(0);
            offset as u32
        })
    }
}

/// A size as the file has it. What is read is bounded far below 4 GiB, and what is added is ours.
fn number(value: usize) -> [u8; 4] {
    (value as u32).to_le_bytes()
}

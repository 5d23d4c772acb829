//! The few facts of a shared library that preparing it needs: what machine it is for and what name it goes by.
//!
//! Decides nothing. Reads little-endian ELF (elf(5)), 64-bit and 32-bit, and takes no offset of the file on trust: what does not fit is no
//! library.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::Width;

/// Most entries of any table that is looked through.
const MOST: u64 = 4096;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;

/// Numbers of the machine that this program runs on, and of the 32-bit one whose programs it runs, too (`e_machine`).
const NATIVE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
const NATIVE_32: u16 = if cfg!(target_arch = "aarch64") { 40 } else { 3 };

/// A shared library for this machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Library {
    /// `DT_SONAME`, if it has one.
    pub(super) soname: Option<String>,
    /// For which programs.
    pub(super) width: Width,
}

/// A range of the file that is mapped somewhere.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    length: u64,
}

/// Where the fields are in files of one class.
struct Form {
    machine: u16,
    /// In the header: where the program headers are, the size of one, their number.
    table: usize,
    table_size: usize,
    table_count: usize,
    /// In a program header: offset, address and size in the file.
    segment: [usize; 3],
    segment_size: usize,
    /// Size of an address, an offset or a size.
    word: usize,
}

const WIDE: Form = Form {
    machine: NATIVE,
    table: 32,
    table_size: 54,
    table_count: 56,
    segment: [8, 16, 32],
    segment_size: 56,
    word: 8,
};

const NARROW: Form = Form {
    machine: NATIVE_32,
    table: 28,
    table_size: 42,
    table_count: 44,
    segment: [4, 8, 16],
    segment_size: 32,
    word: 4,
};

impl Form {
    /// Reads an address, an offset or a size.
    fn at(&self, bytes: &[u8], at: usize) -> Option<u64> {
        if self.word == 8 { u64_at(bytes, at) } else { u32_at(bytes, at).map(u64::from) }
    }
}

/// Reads `file`; `None` if it is no shared library that this machine's programs load.
pub(super) fn library(file: &File) -> Option<Library> {
    read(&|offset, length| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset).ok().map(|()| bytes)
    })
}

/// Bytes of the file from an offset on; `None` past its end.
type Read<'a> = &'a dyn Fn(u64, usize) -> Option<Vec<u8>>;

fn read(bytes: Read<'_>) -> Option<Library> {
    // A 32-bit header is shorter, but no library ends with it.
    let header = bytes(0, 64)?;
    let (width, form) = match header.first_chunk()? {
        b"\x7fELF\x02\x01" => (Width::Native, WIDE),
        b"\x7fELF\x01\x01" => (Width::Narrow, NARROW),
        _ => return None,
    };
    // A shared object.
    if u16_at(&header, 16)? != 3 || u16_at(&header, 18)? != form.machine {
        return None;
    }
    let segments = segments(bytes, &header, &form)?;
    let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else {
        return Some(Library { soname: None, width });
    };
    let mut name = None;
    let mut strings = None;
    // Tag and value, a word each.
    let size = 2 * form.word;
    for index in 0..(dynamic.length / size as u64).min(MOST) {
        let entry = bytes(dynamic.offset.checked_add(index * size as u64)?, size)?;
        let (tag, value) = (form.at(&entry, 0)?, form.at(&entry, form.word)?);
        match tag {
            0 => break,
            DT_SONAME => name = Some(value),
            DT_STRTAB => strings = Some(value),
            _ => {}
        }
    }
    let Some(name) = name else { return Some(Library { soname: None, width }) };
    let address = strings?.checked_add(name)?;
    let soname = string(bytes, offset_of(&segments, address)?)?;
    Some(Library { soname: Some(soname), width })
}

fn segments(bytes: Read<'_>, header: &[u8], form: &Form) -> Option<Vec<Segment>> {
    let table = form.at(header, form.table)?;
    let size = u64::from(u16_at(header, form.table_size)?);
    let count = u64::from(u16_at(header, form.table_count)?).min(MOST);
    let [offset, address, length] = form.segment;
    let mut segments = Vec::new();
    for index in 0..count {
        let entry = bytes(table.checked_add(index.checked_mul(size)?)?, form.segment_size)?;
        segments.push(Segment {
            kind: u32_at(&entry, 0)?,
            offset: form.at(&entry, offset)?,
            address: form.at(&entry, address)?,
            length: form.at(&entry, length)?,
        });
    }
    Some(segments)
}

/// Where in the file an address of the library is.
fn offset_of(segments: &[Segment], address: u64) -> Option<u64> {
    let holds = |segment: &&Segment| {
        segment.kind == PT_LOAD
            && address.checked_sub(segment.address).is_some_and(|into| into < segment.length)
    };
    let segment = segments.iter().find(holds)?;
    segment.offset.checked_add(address - segment.address)
}

/// A name: printable, without a slash, ended by a zero byte.
fn string(bytes: Read<'_>, offset: u64) -> Option<String> {
    let mut name = String::new();
    for index in 0..255 {
        match *bytes(offset.checked_add(index)?, 1)?.first()? {
            0 => return (!name.is_empty()).then_some(name),
            byte if byte.is_ascii_graphic() && byte != b'/' => name.push(char::from(byte)),
            _ => return None,
        }
    }
    None
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::{elf, elf_of_32_bits};
    use super::*;
    use proptest::prelude::*;

    fn of(bytes: &[u8]) -> Option<Library> {
        read(&|offset, length| {
            let start = usize::try_from(offset).ok()?;
            bytes.get(start..start.checked_add(length)?).map(<[u8]>::to_vec)
        })
    }

    #[test]
    fn the_name_is_read_from_the_dynamic_section() {
        let found = of(&elf(Some("libcuda.so.1"))).expect("a library");
        assert_eq!(found.soname.as_deref(), Some("libcuda.so.1"));
        assert_eq!(of(&elf(None)), Some(Library { soname: None, width: Width::Native }));
    }

    #[test]
    fn a_library_of_32_bits_is_told_from_one_of_64() {
        let found = of(&elf_of_32_bits("libcuda.so.1"));
        let wanted = Library { soname: Some("libcuda.so.1".into()), width: Width::Narrow };
        assert_eq!(found, Some(wanted));
        assert_eq!(of(&elf(Some("libcuda.so.1"))).map(|found| found.width), Some(Width::Native));
    }

    #[test]
    fn the_c_library_of_this_machine_is_read_as_its_own_loader_reads_it() {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("our own");
        let path = maps.split_whitespace().find(|word| word.ends_with("/libc.so.6"));
        // A test program that is linked without glibc has nothing to compare with.
        let Some(path) = path else { return eprintln!("skipped: no libc.so.6 is loaded") };
        let file = File::open(path).expect("it is loaded");
        assert_eq!(library(&file).and_then(|found| found.soname).as_deref(), Some("libc.so.6"));
    }

    #[test]
    fn other_machines_and_programs_are_no_libraries() {
        let library = elf(Some("libcuda.so.1"));
        for (at, byte) in [(0, 0), (4, 1), (5, 2), (16, 2), (18, 0x28)] {
            let mut other = library.clone();
            other[at] = byte;
            assert_eq!(of(&other), None, "byte {at}");
        }
        assert_eq!(of(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_no_name() {
        for bad in ["../../etc/passwd", "a\nb", ""] {
            assert_eq!(of(&elf(Some(bad))), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn damaged_files_are_answered_and_never_read_outside(
            damage in prop::collection::vec((0_usize..512, any::<u8>()), 0..24),
            length in 0_usize..512,
            narrow in any::<bool>(),
        ) {
            let name = "libcuda.so.1";
            let mut bytes = if narrow { elf_of_32_bits(name) } else { elf(Some(name)) };
            for (at, byte) in damage {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            bytes.truncate(length);
            if let Some(Library { soname: Some(name), .. }) = of(&bytes) {
                prop_assert!(!name.is_empty() && !name.contains('/'));
            }
        }
    }
}

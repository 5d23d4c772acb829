//! The order in which glibc's loader expects its cache: what its binary search compares by.
//!
//! After `_dl_cache_libcmp` (glibc, elf/dl-cache.c) and `compare` (elf/cache.c): numbers inside names count
//! as numbers, and the table is sorted downwards. Must not know how the file is laid out.

#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::ffi::c_char;

use super::format::{Hwcap, Record};

/// One step of a name: numbers are above all characters, and the end is the character 0.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    Character(i32),
    Number(i32),
}

/// How the loader compares two sonames. Equal does not mean the same bytes: `libx.so.1` and `libx.so.01`
/// are one name to it.
///
/// It subtracts numbers where this compares them: the same unless they are more than 2^31 apart, where its
/// difference overflows and no order could be kept at all.
pub(super) fn compare_names(one: &[u8], other: &[u8]) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        let (left, right) = (next(&mut one), next(&mut other));
        match left.cmp(&right) {
            Ordering::Equal if left == Token::Character(0) => return Ordering::Equal,
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
}

fn next(name: &mut &[u8]) -> Token {
    let digits = name.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 0 {
        let (number, rest) = name.split_at(digits);
        *name = rest;
        // An int that wraps, as the loader's does.
        return Token::Number(number.iter().fold(0_i32, |value, digit| {
            value.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'))
        }));
    }
    match name.split_first() {
        None => Token::Character(0),
        Some((byte, rest)) => {
            *name = rest;
            // Characters are signed on some machines, and the loader's comparison with them.
            Token::Character(i32::from(*byte as c_char))
        }
    }
}

/// The order of the table.
pub(super) fn compare(one: &Record, other: &Record) -> Ordering {
    compare_names(&other.soname, &one.soname)
        .then_with(|| other.flags.cmp(&one.flags))
        .then_with(|| compare_hwcaps(&one.hwcap, &other.hwcap))
        .then_with(|| other.os_version.cmp(&one.os_version))
}

/// Named subdirectories come first, by name: the loader stops looking at the first entry without one. Then
/// the old bit masks, the most demanding first.
fn compare_hwcaps(one: &Hwcap, other: &Hwcap) -> Ordering {
    match (one, other) {
        (Hwcap::Named { name: left, .. }, Hwcap::Named { name: right, .. }) => left.cmp(right),
        (Hwcap::Named { .. }, Hwcap::Mask(_)) => Ordering::Less,
        (Hwcap::Mask(_), Hwcap::Named { .. }) => Ordering::Greater,
        (Hwcap::Mask(left), Hwcap::Mask(right)) => {
            right.count_ones().cmp(&left.count_ones()).then_with(|| right.cmp(left))
        }
    }
}

//! The loader cache as data: what is kept, what gives way, and what hostile bytes may do (nothing).

mod glibc;

use std::cmp::Ordering;
use std::fs;
use std::os::unix::fs::symlink;

use proptest::collection::vec;
use proptest::prelude::*;

use super::format::{self, Contents, Hwcap, Record};
use super::order::{compare, compare_names};
use super::{CacheError, Entry, Libc, LoaderCache, compat_entries, install, libc_of, merged};
use crate::rootfs::Root;

const LIB_DIR: &str = "/usr/local/nvidia/lib64";

fn entry(soname: &str, path: &str) -> Entry {
    Entry::native(soname, path)
}

fn ours(soname: &str) -> Entry {
    entry(soname, &format!("{LIB_DIR}/{soname}"))
}

fn record(soname: &str, path: &str, flags: i32, hwcap: Hwcap) -> Record {
    Record { soname: soname.into(), path: path.into(), flags, os_version: 0, hwcap }
}

fn v3() -> Hwcap {
    Hwcap::Named { name: b"x86-64-v3".to_vec(), isa_level: 3 }
}

fn cache_of(records: Vec<Record>) -> LoaderCache {
    LoaderCache::parse(&format::write(&Contents { records, generator: b"a test".to_vec() }))
        .unwrap()
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let name = "lib[a-c]{1,2}\\.so(\\.[0-9]{1,3}){0,2}";
    let flags = prop_oneof![Just(0x0303), Just(0x0a03), Just(3), Just(1)];
    let hwcap = prop_oneof![
        4 => Just(Hwcap::Mask(0)),
        1 => any::<u64>().prop_map(|bits| Hwcap::Mask(bits & !(1 << 62))),
        1 => ("[a-z0-9-]{1,9}", 0_u32..1024).prop_map(|(name, isa_level)| Hwcap::Named { name: name.into_bytes(), isa_level }),
    ];
    let one = (name, "(/[a-z]{1,4}){1,3}", flags, any::<u32>(), hwcap);
    let one = one.prop_map(|(soname, path, flags, os_version, hwcap)| Record {
        soname: soname.into_bytes(),
        path: path.into_bytes(),
        flags,
        os_version,
        hwcap,
    });
    vec(one, 0..40)
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let one = ("lib[a-c]{1,2}\\.so(\\.[0-9]{1,2}){0,1}", prop_oneof![Just(0x0303), Just(3)]);
    vec(
        one.prop_map(|(soname, flags)| Entry {
            path: format!("{LIB_DIR}/{soname}"),
            soname,
            flags,
        }),
        0..10,
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(records in records(), generator in vec(1_u8..=255, 0..40)) {
        let contents = Contents { records, generator };
        prop_assert_eq!(format::parse(&format::write(&contents)).unwrap(), contents);
    }

    #[test]
    fn no_bytes_make_the_parser_panic(
        mut bytes in vec(any::<u8>(), 0..400),
        magic in prop::sample::select(vec!["glibc-ld.so.cache1.1", "ld.so-1.7.0", ""]),
    ) {
        let length = magic.len().min(bytes.len());
        bytes[..length].copy_from_slice(&magic.as_bytes()[..length]);
        let _ = LoaderCache::parse(&bytes);
    }

    #[test]
    fn a_damaged_cache_is_read_or_refused_and_what_is_read_can_be_written(
        records in records(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = format::write(&Contents { records, generator: b"x".to_vec() });
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(cache) = LoaderCache::parse(&bytes) {
            prop_assert_eq!(LoaderCache::parse(&cache.to_bytes()).unwrap().entries(), cache.entries());
        }
    }

    #[test]
    fn a_merged_cache_is_sorted_has_all_of_ours_and_nothing_that_shadows_them(
        records in records(),
        ours in entries(),
    ) {
        let mut cache = cache_of(records.clone());
        cache.merge(&ours, &[LIB_DIR]).unwrap();
        let all = &cache.contents.records;
        prop_assert!(all.is_sorted_by(|one, next| compare(one, next) != Ordering::Greater));
        for entry in &ours {
            let of_that_name: Vec<&Record> = all
                .iter()
                .filter(|record| compare_names(&record.soname, entry.soname.as_bytes()).is_eq())
                .filter(|record| record.flags == entry.flags || record.flags == 1)
                .collect();
            prop_assert_eq!(of_that_name.len(), 1, "{:?}", entry);
            prop_assert!(of_that_name[0].path.starts_with(LIB_DIR.as_bytes()));
        }
        for old in records {
            let kept = all.contains(&old);
            let shadowed = ours.iter().any(|entry| {
                compare_names(&old.soname, entry.soname.as_bytes()).is_eq()
                    && (old.flags == entry.flags || old.flags == 1)
            });
            prop_assert_eq!(kept, !shadowed, "{:?}", old);
        }
        let once = cache.to_bytes();
        cache.merge(&ours, &[LIB_DIR]).unwrap();
        prop_assert_eq!(cache.to_bytes(), once);
    }

    #[test]
    fn names_have_a_total_order(
        one in "[ab0-9.\u{e9}]{0,12}", two in "[ab0-9.\u{e9}]{0,12}", three in "[ab0-9.\u{e9}]{0,12}",
    ) {
        let by = |one: &String, two: &String| compare_names(one.as_bytes(), two.as_bytes());
        prop_assert_eq!(by(&one, &two), by(&two, &one).reverse());
        if by(&one, &two).is_le() && by(&two, &three).is_le() {
            prop_assert!(by(&one, &three).is_le());
        }
    }
}

#[test]
fn numbers_in_names_count_as_numbers() {
    let by = |one: &str, two: &str| compare_names(one.as_bytes(), two.as_bytes());
    assert_eq!(by("libx.so.10", "libx.so.9"), Ordering::Greater);
    assert_eq!(by("libx.so.1", "libx.so.01"), Ordering::Equal);
    assert_eq!(by("libx.so", "libx.so.1"), Ordering::Less);
    assert_eq!(by("libx1", "libxa"), Ordering::Greater);
    // An int wraps.
    assert_eq!(by("libx.so.4294967297", "libx.so.1"), Ordering::Equal);
}

#[test]
fn the_old_form_alone_is_read() {
    let mut bytes = b"ld.so-1.7.0\0".to_vec();
    bytes.extend(1_u32.to_le_bytes());
    for word in [3_u32, 0, 7] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(b"libx.so\0/lib/libx.so\0");
    bytes[24..28].copy_from_slice(&8_u32.to_le_bytes());
    let cache = LoaderCache::parse(&bytes).unwrap();
    let expected =
        Entry { soname: "libx.so".to_owned(), path: "/lib/libx.so".to_owned(), flags: 3 };
    assert_eq!(cache.entries(), [expected]);
}

#[test]
fn what_lies_about_its_size_is_refused() {
    let good = cache_of(vec![record("libx.so", "/lib/libx.so", 0x0303, v3())]).to_bytes();
    let with = |at: usize, word: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        bytes
    };
    let cases = [
        ("entries", with(20, 1_000)),
        ("a great many entries", with(20, u32::MAX)),
        ("big endian", with(28, 3)),
        ("extension outside", with(32, !3)),
        ("extension on itself", with(32, 4)),
        ("name outside", with(52, u32::MAX)),
        ("path outside", with(56, good.len() as u32)),
        ("another version", [&b"glibc-ld.so.cache9.9"[..], &good[20..]].concat()),
        ("text", b"not a cache at all".to_vec()),
        ("header alone", good[..30].to_vec()),
        (
            "the old form's entries",
            [&b"ld.so-1.7.0\0"[..], &9_u32.to_le_bytes(), &[0; 40]].concat(),
        ),
        ("one entry more than anybody has", crowded(100_001)),
        ("too large", vec![0; format::LARGEST + 1]),
    ];
    for (what, bytes) in cases {
        let result = LoaderCache::parse(&bytes);
        assert!(matches!(result, Err(CacheError::Malformed { .. })), "{what}: {result:?}");
    }
    assert!(LoaderCache::parse(&good).is_ok());
    assert!(LoaderCache::parse(&crowded(100_000)).is_ok());
}

/// A cache of one entry, repeated.
fn crowded(count: usize) -> Vec<u8> {
    let records = vec![record("x", "/x", 0x0303, Hwcap::Mask(0)); count];
    format::write(&Contents { records, generator: Vec::new() })
}

#[test]
fn a_small_file_that_names_one_long_string_very_often_is_refused() {
    let mut bytes = crowded(90_000);
    let long = bytes.len() as u32;
    bytes.extend([b'a'; 4_000]);
    bytes.push(0);
    for index in 0..90_000 {
        bytes[48 + index * 24 + 4..][..4].copy_from_slice(&long.to_le_bytes());
    }
    let refusal = LoaderCache::parse(&bytes).unwrap_err();
    assert!(refusal.to_string().contains("8 MiB"), "{refusal}");
}

#[test]
fn an_entry_that_no_cache_could_hold_is_refused() {
    for bad in [entry("", "/x"), entry("libx.so", "x"), entry("libx\0.so", "/x")] {
        let result = LoaderCache::default().merge(&[bad], &[LIB_DIR]);
        assert!(matches!(result, Err(CacheError::BadEntry { .. })));
    }
}

fn image() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(directory.path()).unwrap();
    (directory, root)
}

#[test]
fn installing_twice_changes_nothing_more_and_a_missing_cache_becomes_ours() {
    let (directory, root) = image();
    let libraries = [ours("libcuda.so.1"), ours("libnvidia-ml.so.1")];
    install(&root, &libraries, &[LIB_DIR], &[]).unwrap();
    let once = fs::read(directory.path().join("etc/ld.so.cache")).unwrap();
    assert_eq!(LoaderCache::parse(&once).unwrap().entries().len(), 2);
    assert!(once.ends_with(b"berth"), "ldconfig -p says who made it");
    assert_eq!(merged(&root, &libraries, &[LIB_DIR], &[]).unwrap(), None);
    install(&root, &libraries, &[LIB_DIR], &[]).unwrap();
    assert_eq!(fs::read(directory.path().join("etc/ld.so.cache")).unwrap(), once);
}

#[test]
fn a_cache_that_cannot_be_understood_stays_and_is_named() {
    let (directory, root) = image();
    let file = directory.path().join("etc/ld.so.cache");
    fs::create_dir(directory.path().join("etc")).unwrap();
    fs::write(&file, b"garbage").unwrap();
    let error = install(&root, &[ours("libcuda.so.1")], &[LIB_DIR], &[]).unwrap_err();
    assert!(error.to_string().contains("/etc/ld.so.cache"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"garbage");

    fs::write(&file, b"").unwrap();
    install(&root, &[ours("libcuda.so.1")], &[LIB_DIR], &[]).unwrap();
}

#[test]
fn a_cache_that_is_a_link_to_the_node_is_neither_read_nor_written() {
    // CVE-2025-23267.
    let (directory, root) = image();
    let node = tempfile::tempdir().unwrap();
    let victim = node.path().join("ld.so.cache");
    let theirs = cache_of(vec![record("libsecret.so.1", "/s", 0x0303, Hwcap::Mask(0))]).to_bytes();
    fs::write(&victim, &theirs).unwrap();
    fs::create_dir(directory.path().join("etc")).unwrap();
    symlink(&victim, directory.path().join("etc/ld.so.cache")).unwrap();
    install(&root, &[ours("libcuda.so.1")], &[LIB_DIR], &[]).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), theirs);
    let made = fs::read(directory.path().join("etc/ld.so.cache")).unwrap();
    assert_eq!(LoaderCache::parse(&made).unwrap().entries(), [ours("libcuda.so.1")]);
}

fn compat_image(names: &[&str]) -> (tempfile::TempDir, Root) {
    let (directory, root) = image();
    let compat = directory.path().join("usr/local/cuda-12.4/compat");
    fs::create_dir_all(&compat).unwrap();
    symlink("/usr/local/cuda-12.4", directory.path().join("usr/local/cuda")).unwrap();
    for name in names {
        fs::write(compat.join(name), b"").unwrap();
    }
    (directory, root)
}

#[test]
fn a_newer_driver_in_the_image_comes_before_the_nodes() {
    let (directory, root) = compat_image(&[
        "libcuda.so.550.54.15",
        "libnvidia-ptxjitcompiler.so.550.54.15",
        "libnvidia-nvvm.so.550.54.15",
        "libcuda.so.470.1",
        "README",
    ]);
    let compat = compat_entries(&root, "535.183.01").unwrap();
    let libraries = ["libcuda.so.1", "libcudadebugger.so.1", "libnvidia-ptxjitcompiler.so.1"];
    install(&root, &libraries.map(ours), &[LIB_DIR], &compat).unwrap();
    let bytes = fs::read(directory.path().join("etc/ld.so.cache")).unwrap();
    let entries = LoaderCache::parse(&bytes).unwrap().entries();
    let paths_of = |soname: &str| -> Vec<&str> {
        let named = entries.iter().filter(|entry| entry.soname == soname);
        named.map(|entry| entry.path.as_str()).collect()
    };
    assert_eq!(paths_of("libcuda.so.1"), ["/usr/local/cuda/compat/libcuda.so.550.54.15"]);
    let compiler = "/usr/local/cuda/compat/libnvidia-ptxjitcompiler.so.550.54.15";
    assert_eq!(paths_of("libnvidia-ptxjitcompiler.so.1"), [compiler]);
    assert_eq!(paths_of("libcudadebugger.so.1"), ["/usr/local/nvidia/lib64/libcudadebugger.so.1"]);
    assert_eq!(paths_of("libnvidia-nvvm.so.4").len(), 1);

    // Once the node's driver has caught up, its own come back.
    let (libraries, none) = (libraries.map(ours), compat_entries(&root, "550.90.07").unwrap());
    install(&root, &libraries, &[LIB_DIR], &none).unwrap();
    let bytes = fs::read(directory.path().join("etc/ld.so.cache")).unwrap();
    let entries = LoaderCache::parse(&bytes).unwrap().entries();
    assert!(entries.contains(&ours("libcuda.so.1")), "{entries:?}");
    let of_that_name = entries.iter().filter(|entry| entry.soname == "libcuda.so.1");
    assert_eq!(of_that_name.count(), 1);
}

#[test]
fn only_a_regular_file_of_a_later_branch_counts_as_newer() {
    let (directory, root) = compat_image(&["libcuda.so.550.54.15"]);
    for (driver, newer) in
        [("535.1", true), ("550.1", false), ("550.54.15", false), ("570.1", false), ("x", false)]
    {
        assert_eq!(!compat_entries(&root, driver).unwrap().is_empty(), newer, "{driver}");
    }
    // A link named so counts for nothing (CVE-2024-0132 mounted what it led to).
    let compat = directory.path().join("usr/local/cuda-12.4/compat");
    fs::remove_file(compat.join("libcuda.so.550.54.15")).unwrap();
    symlink("/etc/passwd", compat.join("libcuda.so.999.1")).unwrap();
    fs::write(compat.join("libcuda.so.99999999999999.1"), b"").unwrap();
    assert_eq!(compat_entries(&root, "535.1").unwrap(), []);
    assert_eq!(compat_entries(&image().1, "535.1").unwrap(), []);
}

#[test]
fn the_c_library_is_known_by_its_loader() {
    let cases: [(&[&str], Libc); 5] = [
        (&["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"], Libc::Glibc),
        (&["lib/ld-musl-x86_64.so.1", "lib/ld-musl-aarch64.so.1"], Libc::Musl),
        // Alpine with gcompat.
        (
            &[
                "lib/libc.musl-x86_64.so.1",
                "lib/libc.musl-aarch64.so.1",
                "lib64/ld-linux-x86-64.so.2",
                "lib/ld-linux-aarch64.so.1",
            ],
            Libc::Musl,
        ),
        // Debian with musl-dev.
        (
            &[
                "lib/ld-musl-x86_64.so.1",
                "lib/ld-musl-aarch64.so.1",
                "lib64/ld-linux-x86-64.so.2",
                "lib/ld-linux-aarch64.so.1",
            ],
            Libc::Glibc,
        ),
        (&["bin/static"], Libc::Unknown),
    ];
    for (names, expected) in cases {
        let (directory, root) = image();
        for name in names {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        assert_eq!(libc_of(&root), expected, "{names:?}");
    }
}

//! CVE-2025-23267 and what is like it: a loader cache that leads out of the root, is no file, or is none that could be read.

use anyhow::Result;
use integration_tests::containerd::stage::Stage;

use super::Then::{Refused, Runs};
use super::{BOTH, Way, device, fifo, file, folder, link, try_all, upwards};

const CACHE: &str = "etc/ld.so.cache";

/// In NVIDIA's toolkit the node's ldconfig followed it and wrote a file of the node.
pub fn cve_2025_23267_a_cache_that_is_a_link(stage: &Stage) -> Result<()> {
    try_all(
        stage,
        &BOTH,
        &[
            ("absolute", |root, canary| link(root, CACHE, &canary.at(CACHE)), Runs),
            ("upwards", |root, canary| link(root, CACHE, &upwards(&canary.at(CACHE))), Runs),
            ("to be made", |root, canary| link(root, CACHE, &canary.at("empty/made")), Runs),
            (
                "through proc",
                |root, canary| link(root, CACHE, &format!("/proc/self/root{}", canary.at(CACHE))),
                Runs,
            ),
        ],
    )
}

pub fn cve_2025_23267_a_cache_of_its_own_kind(stage: &Stage) -> Result<()> {
    try_all(
        stage,
        &BOTH,
        &[
            ("loop", |root, _| link(root, CACHE, "/etc/ld.so.cache"), Refused("ld.so.cache")),
            (
                "through init",
                |root, canary| link(root, CACHE, &format!("/proc/1/root{}", canary.at(CACHE))),
                Runs,
            ),
            ("a fifo", |root, _| fifo(root, CACHE), Refused("a device, fifo or socket")),
            ("endless", |root, _| device(root, CACHE), Refused("a device, fifo or socket")),
            ("a folder", |root, _| folder(root, CACHE), Refused("a directory")),
        ],
    )
}

/// The header of glibc's format, and these counts and offsets in it.
fn header(entries: u32, strings: u32, extension: u32) -> Vec<u8> {
    let mut bytes = b"glibc-ld.so.cache1.1".to_vec();
    bytes.extend(entries.to_le_bytes());
    bytes.extend(strings.to_le_bytes());
    bytes.extend([2, 0, 0, 0]);
    bytes.extend(extension.to_le_bytes());
    bytes.resize(48, 0);
    bytes
}

pub fn a_cache_of_lies_is_refused_or_read_for_what_it_is(stage: &Stage) -> Result<()> {
    try_all(
        stage,
        &[Way::Overlay],
        &[
            ("empty", |root, _| file(root, CACHE, b""), Runs),
            (
                "no cache",
                |root, _| file(root, CACHE, b"not a cache"),
                Refused("not of a known format"),
            ),
            (
                "truncated",
                |root, _| file(root, CACHE, &header(9, 0, 0)),
                Refused("cut off in its entries"),
            ),
            (
                "countless",
                |root, _| file(root, CACHE, &header(u32::MAX, 0, 0)),
                Refused("more than 100000"),
            ),
            (
                "its own extension",
                |root, _| file(root, CACHE, &header(0, 0, 16)),
                Refused("damaged in its extension"),
            ),
        ],
    )?;
    try_all(
        stage,
        &[Way::Folder],
        &[
            (
                "gigantic",
                |root, _| {
                    file(root, CACHE, b"")?;
                    Ok(std::fs::File::options()
                        .write(true)
                        .open(root.join(CACHE))?
                        .set_len(1 << 40)?)
                },
                Refused("ld.so.cache"),
            ),
            (
                "outside of itself",
                |root, _| {
                    let mut bytes = header(1, 0, 0);
                    bytes.extend([0xff; 24]);
                    file(root, CACHE, &bytes)
                },
                Refused("ld.so.cache"),
            ),
            (
                "old and empty",
                |root, _| {
                    let mut bytes = b"ld.so-1.7.0\0".to_vec();
                    bytes.extend(0_u32.to_le_bytes());
                    file(root, CACHE, &bytes)
                },
                Runs,
            ),
        ],
    )
}

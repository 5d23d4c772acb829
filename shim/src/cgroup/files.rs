//! Reading the kernel's small text files.
//!
//! Decides that a file which is missing or odd reads as nothing: controllers come and go with kernels
//! and configurations, and a gauge that is absent must not hide those that are there.

use std::fs;
use std::path::Path;

/// The file's text, empty when it cannot be read.
pub fn text(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_default()
}

/// A file of one number; `max` reads as the largest, anything else as zero.
pub fn number(dir: &Path, name: &str) -> u64 {
    parse(text(dir, name).trim())
}

/// A number as the kernel writes them; `max` is the largest, anything odd is zero.
pub fn parse(text: &str) -> u64 {
    if text == "max" { u64::MAX } else { text.parse().unwrap_or(0) }
}

/// Calls `each` for every `key value` line of a file.
pub fn pairs(dir: &Path, name: &str, mut each: impl FnMut(&str, u64)) {
    for line in text(dir, name).lines() {
        if let Some((key, value)) = line.split_once(' ') {
            each(key, parse(value.trim()));
        }
    }
}

/// The page sizes for which the kernel offers huge pages, as its file names spell them (`2MB`).
pub fn huge_page_sizes(dir: &Path, suffix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut sizes: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| {
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
            (!size.contains('.')).then(|| size.to_owned())
        })
        .collect();
    sizes.sort();
    sizes
}

/// Lines of `device hca_handle=n hca_object=n` (rdma controller): the device, its handles and objects.
pub fn rdma_devices(dir: &Path, name: &str) -> Vec<(String, u32, u32)> {
    let value = |word: Option<&str>| {
        let number = word.and_then(|w| w.split_once('=')).map_or(0, |(_, v)| parse(v));
        u32::try_from(number).unwrap_or(u32::MAX)
    };
    text(dir, name)
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), value(words.next()), value(words.next())))
        })
        .collect()
}

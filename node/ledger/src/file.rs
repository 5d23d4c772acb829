//! The file: one JSON document (`packed` has its form) with everything in it, read whole and replaced whole.
//!
//! Decides what counts as a sound document. Replaced by a temporary file and a rename, so that a reader sees the one or the other; not synced,
//! because the folder is on tmpfs and what it says dies with the boot anyway. Must not know locks.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::error::{Damage, LedgerError};
use crate::packed::Document;
use crate::record::Snapshot;
use crate::texts::{self, Texts};
use crate::trusted::{self, Trouble};

/// The format that this version writes and reads.
pub const FORMAT: u64 = 1;
/// The most grants that are written. A node has tens; a thousand containers would be many.
pub const MOST_GRANTS: usize = 10_000;
/// The most bytes that are written, or read.
pub const MOST_BYTES: usize = 16 << 20;

const TEMPORARY: &str = ".ledger.json.new";

/// The file as it was read or written: held open, so that no other file can get its inode number.
#[derive(Debug)]
pub(crate) struct Seen {
    _file: File,
    stamp: Stamp,
    texts: Texts,
}

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What of a document is older than any format.
#[derive(Deserialize)]
struct Header {
    format: u64,
}

/// Reads the file. One that is missing is generation 0 and empty; anything else that is not sound is an error.
pub(crate) fn read(path: &Path) -> Result<(Snapshot, Option<Seen>), LedgerError> {
    let unusable = |damage| LedgerError::Unusable { path: path.to_owned(), damage };
    let failed = |source| LedgerError::failed("read", path, source);
    let (mut file, metadata) = match trusted::open(path) {
        Ok(Some(opened)) => opened,
        Ok(None) => return Ok((Snapshot::default(), None)),
        Err(Trouble::Damage(damage)) => return Err(unusable(damage)),
        Err(Trouble::Io(source)) => return Err(failed(source)),
    };
    if metadata.len() > MOST_BYTES as u64 {
        return Err(unusable(Damage::Size { bytes: metadata.len() }));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    (&mut file).take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    let (snapshot, texts) = decode(bytes).map_err(unusable)?;
    Ok((snapshot, Some(Seen { _file: file, stamp: Stamp::of(&metadata), texts })))
}

/// Replaces the file, in which `seen` was found. The caller has made sure that it may.
pub(crate) fn replace(
    path: &Path,
    snapshot: &Snapshot,
    seen: Option<&Seen>,
) -> Result<Seen, LedgerError> {
    let texts = match seen {
        Some(seen) => encode(path, snapshot, &seen.texts)?,
        None => encode(path, snapshot, &Texts::default())?,
    };
    let temporary = path.with_file_name(TEMPORARY);
    let written = write(&temporary, path, texts);
    written.map_err(|source| {
        // It has a fixed name, and the next writer removes it.
        let _ = fs::remove_file(&temporary);
        LedgerError::failed("replace", path, source)
    })
}

/// Whether the file is still the one that was seen, or still missing.
pub(crate) fn is_same(path: &Path, seen: Option<&Seen>) -> Result<bool, LedgerError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(seen.is_some_and(|seen| seen.stamp == Stamp::of(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(seen.is_none()),
        Err(source) => Err(LedgerError::failed("look at", path, source)),
    }
}

fn write(temporary: &Path, path: &Path, texts: Texts) -> io::Result<Seen> {
    let mut file = trusted::make_anew(temporary)?;
    for part in texts.parts() {
        file.write_all(part)?;
    }
    fs::rename(temporary, path)?;
    // After the rename, which sets the time of change.
    let stamp = Stamp::of(&file.metadata()?);
    Ok(Seen { _file: file, stamp, texts })
}

pub(crate) fn decode(bytes: Vec<u8>) -> Result<(Snapshot, Texts), Damage> {
    if bytes.is_empty() {
        return Err(Damage::Empty);
    }
    let bytes = Arc::new(bytes);
    if let Some(read) = texts::read(&bytes, FORMAT) {
        return Ok(read);
    }
    // Checked for UTF-8 as a whole, which takes less than checking each string. What is none is an error that names the place.
    let document = match std::str::from_utf8(&bytes) {
        Ok(text) => serde_json::from_str::<Document>(text),
        Err(_) => serde_json::from_slice(&bytes),
    };
    match document {
        Ok(document) if document.format == FORMAT => {
            let generation = document.generation;
            let grants = document.unpack().map_err(Damage::Syntax)?;
            let grants = grants.into_iter().map(Arc::new).collect();
            Ok((Snapshot { generation, grants }, Texts::default()))
        }
        Ok(Document { format, .. }) => Err(Damage::Format { format, known: FORMAT }),
        // Another format's document need not look like ours: what it says about itself explains more.
        Err(error) => match serde_json::from_slice::<Header>(&bytes) {
            Ok(Header { format }) if format != FORMAT => {
                Err(Damage::Format { format, known: FORMAT })
            }
            _ => Err(Damage::Syntax(error)),
        },
    }
}

pub(crate) fn encode(path: &Path, snapshot: &Snapshot, old: &Texts) -> Result<Texts, LedgerError> {
    let within = |amount, limit, unit| match amount <= limit {
        true => Ok(()),
        false => Err(LedgerError::TooLarge { path: path.to_owned(), amount, limit, unit }),
    };
    within(snapshot.grants.len(), MOST_GRANTS, "grants")?;
    let texts = texts::write(snapshot, FORMAT, old)
        .map_err(|source| LedgerError::Unwritable { path: path.to_owned(), source })?;
    within(texts.size(), MOST_BYTES, "bytes")?;
    Ok(texts)
}

#[cfg(test)]
mod tests;

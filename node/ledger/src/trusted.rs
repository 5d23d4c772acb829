//! Opening what Berth keeps under /run: only what it can itself have put there.
//!
//! Decides that a symbolic link is never followed, that nothing but a file (or a folder) of our own user is used, and that nobody else
//! can get at it. Must not know what is in it.

use std::fs::{self, DirBuilder, File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::geteuid;

use crate::error::Damage;

const FILE: &str = "a file";
const FOLDER: &str = "a folder";

/// Why something could not be opened.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The kernel refused.
    Io(io::Error),
    /// It is not to be trusted.
    Damage(Damage),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Opens for reading; `None` when there is nothing.
pub(crate) fn open(path: &Path) -> Result<Option<(File, Metadata)>, Trouble> {
    match regular(path, OpenOptions::new().read(true)) {
        Err(Trouble::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// Opens for reading and writing, and makes an empty file with mode 0600 where there is none.
pub(crate) fn open_or_make(path: &Path) -> Result<(File, Metadata), Trouble> {
    regular(path, OpenOptions::new().read(true).write(true).create(true))
}

/// Makes a new file with mode 0600, in the place of whatever had that name.
pub(crate) fn make_anew(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the folder if it is missing, and those above it. Others may look into it; whoever can write there can put any ledger aside.
pub(crate) fn make_parent(path: &Path) -> Result<(), Trouble> {
    fs::create_dir_all(path)?;
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Err(not(FOLDER, metadata.file_type()));
    }
    match belongs(&metadata) {
        Err(Trouble::Damage(Damage::Mode { mode })) if mode & 0o022 == 0 => Ok(()),
        judged => judged,
    }
}

/// Makes the folder with mode 0700 if it is missing.
pub(crate) fn make_folder(path: &Path) -> Result<(), Trouble> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let metadata = fs::symlink_metadata(path)?;
    match metadata.is_dir() {
        true => belongs(&metadata),
        false => Err(not(FOLDER, metadata.file_type())),
    }
}

fn regular(path: &Path, options: &mut OpenOptions) -> Result<(File, Metadata), Trouble> {
    // O_NONBLOCK: opening a fifo must not wait for its other end. std adds O_CLOEXEC to every open.
    let opened = options.mode(0o600).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match fs::symlink_metadata(path) {
        Ok(there) if !there.is_file() => not(FILE, there.file_type()),
        _ => error.into(),
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(not(FILE, metadata.file_type()));
    }
    belongs(&metadata)?;
    Ok((file, metadata))
}

fn belongs(metadata: &Metadata) -> Result<(), Trouble> {
    ours(metadata.uid(), metadata.mode(), geteuid().as_raw()).map_err(Trouble::Damage)
}

/// Whether it is `us` alone who can have written there.
fn ours(uid: u32, mode: u32, us: u32) -> Result<(), Damage> {
    if uid != us {
        return Err(Damage::Owner { uid, ours: us });
    }
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(Damage::Mode { mode: mode & 0o7777 }),
    }
}

fn not(wanted: &'static str, found: FileType) -> Trouble {
    let found = match found {
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_dir() => FOLDER,
        kind if kind.is_file() => FILE,
        kind if kind.is_fifo() => "a fifo",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Trouble::Damage(Damage::Kind { found, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_our_user_alone_can_reach_is_ours() {
        let words = |uid, mode| ours(uid, mode, 0).map_err(|damage| damage.to_string());
        assert_eq!(words(0, 0o100_600), Ok(()));
        assert_eq!(words(0, 0o40_700), Ok(()));
        assert_eq!(words(1000, 0o100_600), Err("belongs to user 1000, not to 0".to_owned()));
        for mode in [0o100_640, 0o100_604, 0o100_620, 0o100_602, 0o100_601] {
            let shown = mode & 0o777;
            let expected = format!("has mode {shown:04o}, which lets others in");
            assert_eq!(words(0, mode), Err(expected));
        }
    }
}

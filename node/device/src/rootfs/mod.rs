//! A container's root filesystem, reached by file descriptor and never by a path twice.
//!
//! Everything below a root belongs to an image that nobody here trusts: its symlinks, fifos, devices and
//! loops are its own business and never decide what happens to a file of the node. Each path is
//! resolved once, by `openat2` with `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS`, and what was found is
//! used by its descriptor. Decides how files are looked at, read, replaced and listed in such a tree; must
//! not know what is in them or why somebody wants them.

#![forbid(unsafe_code)]

mod error;
mod write;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, stat};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, fstatfs};

pub use error::RootError;

/// How often a resolution is tried that a rename elsewhere on the node disturbed (`EAGAIN`; openat2(2)).
const ATTEMPTS: usize = 64;

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or the way there is no directory.
    Absent,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, a fifo, a socket.
    Other,
}

impl Kind {
    fn of(status: &FileStat) -> Self {
        match SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => Self::File,
            SFlag::S_IFDIR => Self::Directory,
            SFlag::S_IFLNK => Self::Symlink,
            _ => Self::Other,
        }
    }

    /// As it is said in a message.
    pub fn words(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::File => "a regular file",
            Self::Directory => "a directory",
            Self::Symlink => "a symbolic link",
            Self::Other => "a device, fifo or socket",
        }
    }
}

/// A container's root directory, held open. Paths given to it are those that the container would use
/// (`/etc/passwd`; the first slash may be left out) and resolve inside it, whatever they lead through.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
}

impl Root {
    /// Opens the root directory at `path`, a path of the node that the caller vouches for.
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(path, flags, Mode::empty())
            .map(Self::at)
            .map_err(|errno| RootError::Open { path: path.to_owned(), source: errno.into() })
    }

    /// The root that this directory is.
    pub fn at(directory: OwnedFd) -> Self {
        Self { directory }
    }

    /// Whether it is the directory at `path` of the node, by whatever way either was reached.
    pub fn is(&self, path: &Path) -> bool {
        let same = |own: FileStat, other: FileStat| {
            (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino)
        };
        matches!((fstat(&self.directory), stat(path)), (Ok(own), Ok(other)) if same(own, other))
    }

    /// Whether it is an overlay, so that what is written to it goes to a layer above the image.
    pub fn is_overlay(&self) -> bool {
        fstatfs(&self.directory).is_ok_and(|found| found.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
    }

    /// What stands at `path`; a symbolic link there is not followed.
    pub fn kind(&self, path: &str) -> Result<Kind, RootError> {
        self.kind_by(path, OFlag::O_NOFOLLOW)
    }

    /// What `path` leads to inside the root, a symbolic link there followed.
    pub fn target_kind(&self, path: &str) -> Result<Kind, RootError> {
        self.kind_by(path, OFlag::empty())
    }

    fn kind_by(&self, path: &str, flags: OFlag) -> Result<Kind, RootError> {
        let failed = RootError::failed("look at", path);
        match self.resolve(path, OFlag::O_PATH | flags) {
            Ok(found) => Ok(Kind::of(&fstat(&found).map_err(failed)?)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(Kind::Absent),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// The bytes of the regular file that `path` leads to, symbolic links followed inside the root; none
    /// if there is nothing. Anything that is no regular file is refused without being opened (opening a
    /// fifo waits, and opening a device may do something), and so is one of more than `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, RootError> {
        let found = match self.resolve(path, OFlag::O_PATH) {
            Ok(found) => found,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(RootError::failed("find", path)(errno)),
        };
        let status = fstat(&found).map_err(RootError::failed("look at", path))?;
        if Kind::of(&status) != Kind::File {
            return Err(RootError::Unexpected {
                path: path.to_owned(),
                found: Kind::of(&status).words(),
                wanted: Kind::File.words(),
            });
        }
        let too_large = || RootError::TooLarge { path: path.to_owned(), limit, unit: "bytes" };
        let size = u64::try_from(status.st_size).unwrap_or(0);
        if size > limit {
            return Err(too_large());
        }
        let file = reopen(&found).map_err(RootError::failed("open", path))?;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        // One byte more than allowed: a file that grows meanwhile is noticed, too.
        File::from(file).take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(
            |source| RootError::Failed { action: "read", path: path.to_owned(), source },
        )?;
        if bytes.len() as u64 > limit {
            return Err(too_large());
        }
        Ok(Some(bytes))
    }

    /// The names in the directory that `path` leads to with what stands under them (links not followed),
    /// sorted; none if there is no such directory. Names that are not UTF-8 are left out, and more than
    /// `limit` names are refused.
    pub fn list(&self, path: &str, limit: usize) -> Result<Option<Vec<(String, Kind)>>, RootError> {
        let directory = match self.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
            Ok(directory) => directory,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(RootError::failed("list", path)(errno)),
        };
        let failed = RootError::failed("list", path);
        let mut stream = Dir::from_fd(directory).map_err(failed)?;
        let mut found = Vec::new();
        let mut seen = 0_usize;
        for entry in stream.iter() {
            let entry = entry.map_err(failed)?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            seen += 1;
            if seen > limit {
                let limit = limit as u64;
                return Err(RootError::TooLarge { path: path.to_owned(), limit, unit: "names" });
            }
            if let Ok(name) = entry.file_name().to_str() {
                found.push((name.to_owned(), entry.file_type()));
            }
        }
        let mut listed = Vec::with_capacity(found.len());
        for (name, of_type) in found {
            let kind = match of_type {
                Some(Type::File) => Kind::File,
                Some(Type::Directory) => Kind::Directory,
                Some(Type::Symlink) => Kind::Symlink,
                Some(_) => Kind::Other,
                // Not every filesystem says what its entries are.
                None => kind_in(&stream, &name).map_err(failed)?,
            };
            if kind != Kind::Absent {
                listed.push((name, kind));
            }
        }
        listed.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        Ok(Some(listed))
    }

    fn resolve(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let path = match path.trim_start_matches('/') {
            "" => ".",
            inside => inside,
        };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        for _ in 1..ATTEMPTS {
            match openat2(&self.directory, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                result => return result,
            }
        }
        openat2(&self.directory, path, how)
    }
}

/// What stands under a name in an open directory.
fn kind_in(directory: &Dir, name: &str) -> nix::Result<Kind> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Kind::of(&status)),
        Err(Errno::ENOENT) => Ok(Kind::Absent),
        Err(errno) => Err(errno),
    }
}

/// Opens for reading what an `O_PATH` descriptor holds, through our own `/proc`: the object itself, with
/// no path in it that anybody could change.
fn reopen(found: &OwnedFd) -> nix::Result<OwnedFd> {
    let own = format!("/proc/self/fd/{}", found.as_raw_fd());
    open(own.as_str(), OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())
}

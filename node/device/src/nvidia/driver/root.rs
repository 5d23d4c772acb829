//! The root directory that the driver's files are below.
//!
//! Decides how it is entered: it may be that of a driver container, whose absolute links mean its own root, so only by descriptor, with
//! openat2(2) and RESOLVE_IN_ROOT. Must not know what is looked for.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use crate::error::{DeviceError, file};

/// A file that was found, held open so that it stays what was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Its name.
    pub(super) name: String,
    /// Where it was found, below the driver's root.
    pub(super) path: String,
    pub(super) file: File,
    pub(super) meta: Metadata,
}

/// The driver's root directory.
pub(super) struct Root {
    pub(super) path: PathBuf,
    dir: File,
}

impl Root {
    pub(super) fn open(path: PathBuf) -> Result<Self, DeviceError> {
        let dir = File::open(&path).map_err(file("open the driver's root", &path))?;
        Ok(Self { path, dir })
    }

    fn at(&self, path: &str, flags: OFlag) -> Result<Option<OwnedFd>, DeviceError> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(Mode::empty());
        match openat2(&self.dir, path, how.resolve(resolve)) {
            Ok(fd) => Ok(Some(fd)),
            // ELOOP is also a link where none is followed.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(errno) => Err(self.failed("open", path)(errno.into())),
        }
    }

    fn failed(
        &self,
        action: &'static str,
        path: &str,
    ) -> impl FnOnce(io::Error) -> DeviceError + use<> {
        file(action, self.path.join(path.trim_start_matches('/')))
    }

    /// Names in a directory, sorted; none where there is none.
    pub(super) fn names(&self, dir: &str) -> Result<Vec<String>, DeviceError> {
        let Some(fd) = self.at(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY)? else {
            return Ok(Vec::new());
        };
        let list = || -> nix::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in Dir::from_fd(fd)?.iter() {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            Ok(names)
        };
        let mut names = list().map_err(|errno| self.failed("list", dir)(errno.into()))?;
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    /// A regular file.
    pub(super) fn file(
        &self,
        dir: &str,
        name: String,
        follow: bool,
    ) -> Result<Option<Found>, DeviceError> {
        let path = format!("{}/{name}", dir.trim_end_matches('/'));
        // Nothing is opened that could block or act.
        let flags = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let Some(fd) = self.at(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | flags)? else {
            return Ok(None);
        };
        let file = File::from(fd);
        let meta = file.metadata().map_err(self.failed("look at", &path))?;
        Ok(meta.is_file().then_some(Found { name, path, file, meta }))
    }

    pub(super) fn first(&self, dirs: &[&str], name: &str) -> Result<Option<Found>, DeviceError> {
        for dir in dirs {
            if let Some(found) = self.file(dir, name.to_owned(), true)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

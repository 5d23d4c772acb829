//! Writing into a container's root: whole files, put in place by a rename inside one held directory.
//!
//! Decides how a file is replaced without a name ever being followed. Must not know what is in it.

#![forbid(unsafe_code)]

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::{Kind, Root, RootError};

impl Root {
    /// Puts a regular file with these bytes and permission bits at `path`, whose directory must exist. What
    /// stands there is replaced in one step, a symbolic link itself and never what it points to; a
    /// directory is refused. On failure everything is as before. The new file belongs to whom
    /// the old one did, else to the directory's owner, so that a root shifted into a user namespace
    /// stays one.
    ///
    /// Not synced: a root does not outlive a power cut as a running container's, and is written again
    /// when the container is created again.
    pub fn replace(&self, path: &str, bytes: &[u8], mode: u32) -> Result<(), RootError> {
        let (parent, name) = split(path)?;
        let failed = |action| RootError::failed(action, path);
        let directory = self
            .resolve(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)
            .map_err(failed("find the directory of"))?;
        let owner = match fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(status) if Kind::of(&status) == Kind::Directory => {
                return Err(RootError::Unexpected {
                    path: path.to_owned(),
                    found: Kind::Directory.words(),
                    wanted: Kind::File.words(),
                });
            }
            Ok(status) if Kind::of(&status) == Kind::File => status,
            Ok(_) | Err(Errno::ENOENT) => fstat(&directory).map_err(failed("replace"))?,
            Err(errno) => return Err(failed("look at")(errno)),
        };

        let mut new = Fresh::create(&directory).map_err(failed("write beside"))?;
        new.file.write_all(bytes).map_err(|source| RootError::Failed {
            action: "write",
            path: path.to_owned(),
            source,
        })?;
        let status = fstat(&new.file).map_err(failed("write"))?;
        if (status.st_uid, status.st_gid) != (owner.st_uid, owner.st_gid) {
            let (user, group) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
            fchown(&new.file, Some(user), Some(group)).map_err(failed("set the owner of"))?;
        }
        // After the owner, whose change clears bits; set-user-id bits are nobody's wish here.
        fchmod(&new.file, Mode::from_bits_truncate(mode & 0o777))
            .map_err(failed("set the mode of"))?;
        new.put(name).map_err(failed("replace"))
    }

    /// Makes the directory `path` and those above it that are missing, with these permission bits. What
    /// exists stays as it is, and may be reached through symbolic links inside the root.
    pub fn make_dirs(&self, path: &str, mode: u32) -> Result<(), RootError> {
        let failed = RootError::failed("make the directory", path);
        let names: Vec<&str> =
            path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        if names.contains(&"..") {
            return Err(RootError::BadPath { path: path.to_owned() });
        }
        let directory = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let mut held = self.resolve("", directory).map_err(failed)?;
        for depth in 1..=names.len() {
            let so_far = names[..depth].join("/");
            held = match self.resolve(&so_far, directory) {
                Err(Errno::ENOENT) => {
                    let wanted = Mode::from_bits_truncate(mode & 0o777);
                    match mkdirat(&held, names[depth - 1], wanted) {
                        // Somebody else made it, or a symbolic link leads nowhere: the next step tells.
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(errno) => return Err(failed(errno)),
                    }
                    self.resolve(&so_far, directory)
                }
                result => result,
            }
            .map_err(failed)?;
        }
        Ok(())
    }
}

/// The directory and the last name of a path that is to be written.
fn split(path: &str) -> Result<(&str, &str), RootError> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "" | "." | ".." => Err(RootError::BadPath { path: path.to_owned() }),
        name => Ok((parent, name)),
    }
}

/// A new file under a name that nobody knows, removed again unless it is put in its place.
pub(super) struct Fresh<'a> {
    directory: &'a OwnedFd,
    name: String,
    file: File,
    placed: bool,
}

impl<'a> Fresh<'a> {
    pub(super) fn create(directory: &'a OwnedFd) -> nix::Result<Self> {
        // The keys of RandomState are the kernel's random bytes: the name cannot be prepared for.
        let name = format!(".berth-{:016x}", RandomState::new().hash_one("a name"));
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(directory, name.as_str(), flags, Mode::from_bits_truncate(0o600))?;
        Ok(Self { directory, name, file: file.into(), placed: false })
    }

    fn put(mut self, name: &str) -> nix::Result<()> {
        renameat(self.directory, self.name.as_str(), self.directory, name)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        if !self.placed {
            // Nothing more can be done about a file that cannot be removed.
            let _ = unlinkat(self.directory, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

//! What is placed: a prepared file or directory of the node as a detached, read-only mount.
//!
//! Decides what is fit to be shown to a container. Must not know where it goes.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::geteuid;

use super::{ArmError, call};

/// Whether something is a directory or a regular file: only like goes onto like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Directory,
    File,
}

impl Shape {
    /// Of what these mode bits say; none for anything else.
    pub(super) fn of(mode: libc::mode_t) -> Option<Self> {
        match SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => Some(Self::Directory),
            SFlag::S_IFREG => Some(Self::File),
            _ => None,
        }
    }
}

/// A detached tree, in no namespace until it is put somewhere.
pub(super) struct Tree {
    pub(super) mount: OwnedFd,
    pub(super) shape: Shape,
}

impl Tree {
    /// Copies the mount tree at `path`, which must belong to our user, be writable by nobody else, and be no
    /// symbolic link.
    pub(super) fn prepare(path: &Path, executable: bool) -> Result<Self, ArmError> {
        let failed = |action: &'static str| {
            move |errno: Errno| match errno {
                Errno::ENOSYS => ArmError::OldKernel { action },
                errno => ArmError::Source { action, path: path.to_owned(), source: errno.into() },
            }
        };
        let foreign = |how| ArmError::Foreign { path: path.to_owned(), how };

        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = open(path, flags, Mode::empty()).map_err(failed("open"))?;
        let status = fstat(&found).map_err(failed("look at"))?;
        let shape = Shape::of(status.st_mode)
            .ok_or_else(|| foreign("is neither a directory nor a regular file"))?;
        if status.st_uid != geteuid().as_raw() {
            return Err(foreign("belongs to another user"));
        }
        if status.st_mode & 0o022 != 0 {
            return Err(foreign("can be written by other users"));
        }

        let mount = call::clone_tree(found.as_fd()).map_err(failed("copy the mount of"))?;
        let mut attributes =
            libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        if !executable {
            attributes |= libc::MOUNT_ATTR_NOEXEC;
        }
        call::set_attributes(mount.as_fd(), attributes)
            .map_err(failed("set the mount attributes of"))?;
        Ok(Self { mount, shape })
    }
}

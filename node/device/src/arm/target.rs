//! Where things are placed: a container's mount namespace, and the places in it.
//!
//! Decides which of a placing's targets is taken and what it must be. The image arranged what is found
//! there, so a place is looked up once, from the container's root, checked by its descriptor and used by it.
//! Must not know what is placed.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::source::{Shape, Tree};
use super::{ArmError, call};

/// Where targets must be on a procfs.
const PROC: &str = "/proc/";

/// How often a resolution is tried that a mount elsewhere on the node disturbed (`EAGAIN`; openat2(2)).
const ATTEMPTS: usize = 64;

/// A container's mount namespace as it is seen through its init, held open.
pub(super) struct World {
    /// The mount namespace.
    pub(super) namespace: OwnedFd,
    /// The container's root directory in it.
    root: OwnedFd,
    /// The node's procfs, which is out of reach once the namespace is joined.
    proc: OwnedFd,
}

impl World {
    /// Opens the world of a living process in another mount namespace than ours.
    pub(super) fn of(pid: u32) -> Result<Self, ArmError> {
        let failed = |action: &'static str| {
            move |errno: Errno| match errno {
                Errno::ENOSYS => ArmError::OldKernel { action },
                Errno::ESRCH | Errno::ENOENT => ArmError::Gone { pid },
                errno => ArmError::Enter { action, pid, source: errno.into() },
            }
        };
        let opened =
            |path: String, flags| open(path.as_str(), flags | OFlag::O_CLOEXEC, Mode::empty());
        let process = call::process(pid).map_err(failed("take hold"))?;
        let namespace = opened(format!("/proc/{pid}/ns/mnt"), OFlag::O_RDONLY)
            .map_err(failed("open the mount namespace"))?;
        let root = opened(format!("/proc/{pid}/root"), OFlag::O_PATH | OFlag::O_DIRECTORY)
            .map_err(failed("open the root directory"))?;
        let proc = opened("/proc".to_owned(), OFlag::O_PATH | OFlag::O_DIRECTORY)
            .map_err(failed("open the files"))?;
        // Alive now, so the number meant the same process when the files above were opened.
        if call::has_ended(process.as_fd()).map_err(failed("ask after the life"))? {
            return Err(ArmError::Gone { pid });
        }
        let ours = opened("/proc/self/ns/mnt".to_owned(), OFlag::O_RDONLY)
            .map_err(failed("compare the mount namespace"))?;
        if same_object(&namespace, &ours).map_err(failed("compare the mount namespace"))? {
            return Err(ArmError::NotIsolated { pid });
        }
        Ok(Self { namespace, root, proc })
    }

    /// Puts a tree onto the first of these targets that exists. The calling thread is in the namespace.
    pub(super) fn put(&self, tree: &Tree, targets: &[String]) -> Result<(), ArmError> {
        for target in targets {
            let Some(place) = self.find(target)? else { continue };
            self.check(&place, target, tree.shape)?;
            return call::put_tree(tree.mount.as_fd(), place.as_fd())
                .map_err(failed("mount over", target));
        }
        Err(ArmError::NoTarget { targets: targets.to_vec() })
    }

    fn find(&self, target: &str) -> Result<Option<OwnedFd>, ArmError> {
        let mut resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        if target.starts_with(PROC) {
            resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS;
        }
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
        for _ in 1..ATTEMPTS {
            match openat2(&self.root, target, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
                Err(Errno::ELOOP) => {
                    let how = "reached through a symbolic link: change the image";
                    return Err(ArmError::Unexpected { target: target.to_owned(), how });
                }
                result => return result.map(Some).map_err(failed("find", target)),
            }
        }
        Err(failed("find", target)(Errno::EAGAIN))
    }

    /// Whether something of this shape may go there.
    fn check(&self, place: &OwnedFd, target: &str, shape: Shape) -> Result<(), ArmError> {
        let unexpected = |how| ArmError::Unexpected { target: target.to_owned(), how };
        let status = fstat(place).map_err(failed("look at", target))?;
        match (shape, Shape::of(status.st_mode)) {
            (Shape::Directory, Some(Shape::Directory)) | (Shape::File, Some(Shape::File)) => {}
            (Shape::Directory, _) => return Err(unexpected("not a directory: change the image")),
            (Shape::File, _) => return Err(unexpected("not a regular file: change the image")),
        }
        if target.starts_with(PROC) {
            let filesystem = fstatfs(place).map_err(failed("look at", target))?;
            if filesystem.filesystem_type() != PROC_SUPER_MAGIC {
                return Err(unexpected(
                    "not on a procfs: something else is mounted there; leave /proc alone",
                ));
            }
        }
        self.keep_private(place, target)
    }

    /// Sees to it that a mount at this place appears nowhere else, on the node least of all. The mount
    /// that it is on may be shared with others (`rootfsPropagation`). A container's procfs is made private:
    /// nobody waits for mounts inside of it. Other mounts are how they were asked for.
    fn keep_private(&self, place: &OwnedFd, target: &str) -> Result<(), ArmError> {
        let unknown = |source| ArmError::Target {
            action: "learn the propagation of",
            target: target.to_owned(),
            source,
        };
        let mount = self.mount_of(place).map_err(unknown)?;
        if !self.is_shared(&mount).map_err(unknown)? {
            return Ok(());
        }
        let procfs = if target.starts_with(PROC) { self.find("/proc/.")? } else { None };
        if let Some(procfs) = procfs
            && self.mount_of(&procfs).map_err(unknown)? == mount
        {
            return call::make_private(procfs.as_fd()).map_err(failed("make private", target));
        }
        Err(ArmError::Shared { target: target.to_owned() })
    }

    /// The number of the mount that a descriptor is on.
    fn mount_of(&self, place: &OwnedFd) -> io::Result<String> {
        let facts = self.proc_file(&format!("thread-self/fdinfo/{}", place.as_raw_fd()))?;
        let mount = facts.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        let mount = mount.ok_or_else(|| io::Error::other("its mount is not told"))?;
        Ok(mount.trim().to_owned())
    }

    /// Whether a mount of the container has peers that see what is mounted on it.
    fn is_shared(&self, mount: &str) -> io::Result<bool> {
        // Ours, in the namespace that was joined: the init's own would leave out what is above its root.
        let mounts = self.proc_file("thread-self/mountinfo")?;
        // "ID parent major:minor root point options [optional fields] - …" (proc(5)).
        let line = mounts
            .lines()
            .find(|line| line.split(' ').next() == Some(mount))
            .ok_or_else(|| io::Error::other("its mount is not listed"))?;
        let mut optional = line.split(' ').skip(6).take_while(|field| *field != "-");
        Ok(optional.any(|field| field.starts_with("shared:")))
    }

    fn proc_file(&self, path: &str) -> io::Result<String> {
        let file = openat(&self.proc, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text)?;
        Ok(text)
    }
}

fn failed(action: &'static str, target: &str) -> impl Fn(Errno) -> ArmError {
    move |errno| match errno {
        Errno::ENOSYS => ArmError::OldKernel { action },
        errno => ArmError::Target { action, target: target.to_owned(), source: errno.into() },
    }
}

fn same_object(one: &OwnedFd, other: &OwnedFd) -> nix::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

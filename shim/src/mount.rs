//! The container's root filesystem: mounting what containerd hands over, and unmounting it again.
//!
//! Decides how mount options become flags and data (mount(8)). Each call may take as long as the filesystem
//! pleases, so callers run it off the event loop. Must not know containers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::overlay::{DATA_LIMIT, in_directory, shorten};

/// One mount of a root filesystem, as containerd describes it.
#[derive(Debug, Clone, Default)]
pub struct Mount {
    /// Filesystem type, or `bind`.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Where below the root filesystem; empty for the root itself.
    pub target: String,
    /// Options as in fstab.
    pub options: Vec<String>,
}

/// A mount or unmount that failed. Every variant names its place.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel refused to mount.
    #[error("failed to mount rootfs component {kind:?} from {from:?} at {target}: {errno}", target = target.display())]
    Mount {
        /// Filesystem type.
        kind: String,
        /// What was to be mounted.
        from: String,
        /// Where.
        target: PathBuf,
        /// Why not.
        errno: Errno,
    },
    /// The target leaves the root filesystem or cannot be made.
    #[error("cannot use {target:?} below {rootfs} as a mount point: {problem}", rootfs = rootfs.display())]
    Target {
        /// As containerd gave it.
        target: String,
        /// The root filesystem.
        rootfs: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The kernel refused to unmount, even lazily.
    #[error("failed to unmount rootfs {path}: {errno}", path = path.display())]
    Unmount {
        /// What stays mounted.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
}

/// Mounts all of `mounts` on `rootfs`, in order. When one fails, those before it are undone.
///
/// # Errors
/// [`MountError`] of the one that failed.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<(), MountError> {
    for (done, one) in mounts.iter().enumerate() {
        if let Err(error) = one.mount_on(rootfs) {
            for made in mounts[..done].iter().rev() {
                // The first error is the one that explains; what was there before stays.
                let _ = made.target_below(rootfs).map(|target| unmount_one(&target));
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Unmounts everything at and below `rootfs`, lazily where it is busy. Nothing mounted is fine.
///
/// # Errors
/// [`MountError::Unmount`] for what stays.
pub fn unmount_all(rootfs: &Path) -> Result<(), MountError> {
    let flags = MntFlags::UMOUNT_NOFOLLOW;
    loop {
        // Mounts may be stacked; EINVAL says that none is left.
        match umount2(rootfs, flags) {
            Ok(()) | Err(Errno::EINTR) => {}
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(Errno::EBUSY) => {
                unmount_below(rootfs)?;
                let lazily = umount2(rootfs, flags | MntFlags::MNT_DETACH);
                lazily.or_else(|errno| match errno {
                    Errno::EINVAL => Ok(()),
                    errno => Err(MountError::Unmount { path: rootfs.into(), errno }),
                })?;
            }
            Err(errno) => return Err(MountError::Unmount { path: rootfs.into(), errno }),
        }
    }
}

/// Unmounts what lies below and at `rootfs`, innermost first, lazily where nothing else helps.
fn unmount_below(rootfs: &Path) -> Result<(), MountError> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut places: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| Some(PathBuf::from(unescape(line.split(' ').nth(4)?))))
        .filter(|place| place.starts_with(rootfs))
        .collect();
    places.sort();
    for path in places.into_iter().rev() {
        match unmount_one(&path) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(MountError::Unmount { path, errno }),
        }
    }
    Ok(())
}

/// What a mount does not take in the same call: a bind mount no other flags, and no mount a change of
/// propagation.
fn finish(target: &Path, flags: MsFlags, propagation: MsFlags) -> nix::Result<()> {
    if flags.contains(MsFlags::MS_BIND | MsFlags::MS_RDONLY) {
        let again = flags | MsFlags::MS_REMOUNT;
        mount(None::<&str>, target, None::<&str>, again, None::<&str>)?;
    }
    if !propagation.is_empty() {
        mount(None::<&str>, target, None::<&str>, propagation, None::<&str>)?;
    }
    Ok(())
}

fn unmount_one(path: &Path) -> nix::Result<()> {
    let flags = MntFlags::UMOUNT_NOFOLLOW;
    umount2(path, flags).or_else(|_| umount2(path, flags | MntFlags::MNT_DETACH))
}

/// Undoes the octal escapes of mountinfo (proc_pid_mountinfo(5)).
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Mount {
    fn mount_on(&self, rootfs: &Path) -> Result<(), MountError> {
        let target = self.target_below(rootfs)?;
        let (flags, data) = parse(&self.options);
        let (flags, propagation) = (flags & !propagation_flags(), flags & propagation_flags());
        let failed = |errno| MountError::Mount {
            kind: self.kind.clone(),
            from: self.source.clone(),
            target: target.clone(),
            errno,
        };
        let kind = if flags.contains(MsFlags::MS_BIND) { "bind" } else { &self.kind };
        let do_mount = |data: &str| {
            mount(
                Some(self.source.as_str()),
                &target,
                Some(kind),
                flags,
                (!data.is_empty()).then_some(data),
            )
        };
        if data.len() <= DATA_LIMIT {
            do_mount(&data).map_err(failed)?;
        } else {
            let (parent, short) = shorten(&data).ok_or(Errno::E2BIG).map_err(failed)?;
            in_directory(&parent, || do_mount(&short)).map_err(failed)?;
        }
        let finished = finish(&target, flags, propagation);
        finished.map_err(|errno| {
            // The first error is the one that explains.
            let _ = unmount_one(&target);
            failed(errno)
        })
    }

    /// The mount point. A target of its own may not leave the root filesystem: its path is containerd's,
    /// but what it resolves to would be the image's.
    fn target_below(&self, rootfs: &Path) -> Result<PathBuf, MountError> {
        let relative = self.target.trim_start_matches('/');
        if relative.is_empty() {
            return Ok(rootfs.to_owned());
        }
        let refuse = |problem: String| MountError::Target {
            target: self.target.clone(),
            rootfs: rootfs.to_owned(),
            problem,
        };
        if Path::new(relative).components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
            return Err(refuse("it must be a plain path below the root filesystem".into()));
        }
        let mut place = rootfs.to_owned();
        for part in Path::new(relative) {
            place.push(part);
            match fs::symlink_metadata(&place) {
                Ok(meta) if meta.is_symlink() => {
                    return Err(refuse(format!("{} is a symbolic link", place.display())));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir(&place).map_err(|e| refuse(e.to_string()))?;
                }
                Err(error) => return Err(refuse(error.to_string())),
            }
        }
        Ok(place)
    }
}

fn propagation_flags() -> MsFlags {
    MsFlags::MS_SHARED | MsFlags::MS_PRIVATE | MsFlags::MS_SLAVE | MsFlags::MS_UNBINDABLE
}

/// Splits options into flags and what is left for the filesystem.
fn parse(options: &[String]) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data: Vec<&str> = Vec::new();
    for option in options {
        match flag(option) {
            Some((set, true)) => flags |= set,
            Some((clear, false)) => flags &= !clear,
            // A loop device or a user id map would need work before the mount; the filesystem's own
            // error names an option that it does not know.
            None => data.push(option),
        }
    }
    (flags, data.join(","))
}

/// The flag of an option, and whether the option sets or clears it.
fn flag(option: &str) -> Option<(MsFlags, bool)> {
    let rec = MsFlags::MS_REC;
    Some(match option {
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "atime" => (MsFlags::MS_NOATIME, false),
        "bind" => (MsFlags::MS_BIND, true),
        "defaults" | "norelatime" | "nostrictatime" => (MsFlags::empty(), true),
        "dev" => (MsFlags::MS_NODEV, false),
        "diratime" => (MsFlags::MS_NODIRATIME, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "mand" => (MsFlags::MS_MANDLOCK, true),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "nodev" => (MsFlags::MS_NODEV, true),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "nomand" => (MsFlags::MS_MANDLOCK, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "private" => (MsFlags::MS_PRIVATE, true),
        "rbind" => (MsFlags::MS_BIND | rec, true),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "remount" => (MsFlags::MS_REMOUNT, true),
        "ro" => (MsFlags::MS_RDONLY, true),
        "rprivate" => (MsFlags::MS_PRIVATE | rec, true),
        "rshared" => (MsFlags::MS_SHARED | rec, true),
        "rslave" => (MsFlags::MS_SLAVE | rec, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "shared" => (MsFlags::MS_SHARED, true),
        "slave" => (MsFlags::MS_SLAVE, true),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "unbindable" => (MsFlags::MS_UNBINDABLE, true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_become_flags_and_data() {
        let (flags, data) = parse(&words("ro nosuid rw lowerdir=/a:/b index=off"));
        assert_eq!(flags, MsFlags::MS_NOSUID);
        assert_eq!(data, "lowerdir=/a:/b,index=off");
        let (flags, _) = parse(&words("rbind ro"));
        assert_eq!(flags, MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY);
    }

    #[test]
    fn a_target_may_not_leave_the_root_filesystem() {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::os::unix::fs::symlink("/etc", root.path().join("link")).expect("a link");
        for target in ["../x", "link/x", "a/../../x"] {
            let one = Mount { target: target.into(), ..Mount::default() };
            let error = one.target_below(root.path()).expect_err(target).to_string();
            assert!(error.contains(target), "{error}");
        }
        let inside = Mount { target: "/a/b".into(), ..Mount::default() };
        assert_eq!(inside.target_below(root.path()).expect("plain"), root.path().join("a/b"));
    }

    #[test]
    fn mountinfo_escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
    }
}

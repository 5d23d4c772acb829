//! What can go wrong on the machine, in words that name the object and a way out.
//!
//! Decides the words only.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::arm::ArmError;
use crate::loader_cache::CacheError;
use crate::rootfs::RootError;

/// Something on the machine could not be read, prepared or put in place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A step with a file that the kernel refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of the kernel, the driver or the kubelet that does not read as it should.
    #[error("{path} {how}", path = path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        how: String,
    },
    /// The program that looks at the node cannot be started.
    #[error(
        "cannot start {program} to {task}: {source}; \
         install it, or name it in the configuration as node.tool",
        program = program.display()
    )]
    ToolMissing {
        /// Which program.
        program: PathBuf,
        /// What it was wanted for.
        task: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It ran, and did not bring what it was started for.
    #[error("{program} could not {task}: {said}; see berth doctor", program = program.display())]
    ToolFailed {
        /// Which program.
        program: PathBuf,
        /// What it was to do.
        task: &'static str,
        /// Its last words, or how it ended.
        said: String,
    },
    /// It did not end.
    #[error(
        "{program} took more than {} s to {task} and was killed{said}; \
         the driver may hang: see berth doctor and the kernel's log",
        deadline.as_secs(), program = program.display()
    )]
    ToolSlow {
        /// Which program.
        program: PathBuf,
        /// What it was to do.
        task: &'static str,
        /// How long it had.
        deadline: Duration,
        /// What it had said so far, after a colon.
        said: String,
    },
    /// Another process has been at it for too long.
    #[error(
        "another process has tried for more than {} s to {task} (it holds {lock}); \
         the driver may hang: see berth doctor and the kernel's log",
        deadline.as_secs(), lock = lock.display()
    )]
    ToolBusy {
        /// What it does.
        task: &'static str,
        /// The lock that it holds.
        lock: PathBuf,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The driver's management library.
    #[error("{library}: cannot {action}: {said}", library = library.display())]
    Nvml {
        /// Which library.
        library: PathBuf,
        /// What was asked of it.
        action: &'static str,
        /// What it answered.
        said: String,
    },
    /// The driver's files are not where they were looked for.
    #[error(
        "{library} of driver {version}, for {capability}, is not below {root} (looked in {}); install the \
         driver's libraries of the loaded version, or set node.driver-root",
        searched.join(", "), root = root.display()
    )]
    NoLibrary {
        /// The file that every driver has.
        library: &'static str,
        /// Version of the loaded driver.
        version: String,
        /// The driver capability that is nothing without it.
        capability: &'static str,
        /// The driver's root.
        root: PathBuf,
        /// Directories below it.
        searched: Vec<String>,
    },
    /// Of those for 32-bit programs there is none.
    #[error(
        "no 32-bit library of driver {version}, for compat32, is below {root} (looked in {}); install the \
         driver's 32-bit libraries of the loaded version, or leave compat32 out",
        searched.join(", "), root = root.display()
    )]
    NoNarrowLibrary {
        /// Version of the loaded driver.
        version: String,
        /// The driver's root.
        root: PathBuf,
        /// Directories below it.
        searched: Vec<String>,
    },
    /// The kernel has no such device.
    #[error("{path} lists no device {name:?}: the driver's kernel module is not loaded", path = path.display())]
    NoMajor {
        /// The kernel's list.
        path: PathBuf,
        /// What was looked for.
        name: &'static str,
    },
    /// A device node that is not the device that its name says.
    #[error(
        "{path} is {found}, not character device {major}:{minor}: remove it and run nvidia-modprobe",
        path = path.display()
    )]
    WrongNode {
        /// The node on the host.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        major: u32,
        /// What it should be.
        minor: u32,
    },
    /// The container's world.
    #[error(transparent)]
    Arm(#[from] ArmError),
    /// The container's root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The container's loader cache.
    #[error(transparent)]
    LoaderCache(#[from] CacheError),
}

/// For `map_err`: a step with a file.
pub(crate) fn file(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> DeviceError {
    let path = path.into();
    move |source| DeviceError::File { action, path, source }
}

//! What can go wrong while something is put into a container's world, and where.
//!
//! Decides the words only.

use std::io;
use std::path::PathBuf;

/// Something could not be placed. Targets are paths in the container.
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    /// The container's init is not there any more.
    #[error("the container's init, process {pid}, ended before it was started")]
    Gone {
        /// Its number on the node.
        pid: u32,
    },
    /// The container runs in the node's own mount namespace, where placing would change the node.
    #[error(
        "the container's init, process {pid}, shares the mount namespace of its shim: \
         give the container one of its own"
    )]
    NotIsolated {
        /// Its number on the node.
        pid: u32,
    },
    /// The way into the container's world.
    #[error("cannot {action} of the container's init, process {pid}: {source}")]
    Enter {
        /// What was being done.
        action: &'static str,
        /// Its number on the node.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// What was to be placed.
    #[error("cannot {action} {source_path}: {source}", source_path = path.display())]
    Source {
        /// What was being done.
        action: &'static str,
        /// The prepared file or directory on the node.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What was to be placed is not what we prepared.
    #[error("{path} {how}: remove it, so that it is prepared again", path = path.display())]
    Foreign {
        /// The prepared file or directory on the node.
        path: PathBuf,
        /// What is wrong with it.
        how: &'static str,
    },
    /// None of the places exists.
    #[error("the container has none of {}: change the image", targets.join(", "))]
    NoTarget {
        /// Where it was looked for.
        targets: Vec<String>,
    },
    /// A place that is not what it should be.
    #[error("{target} in the container is {how}")]
    Unexpected {
        /// Which place.
        target: String,
        /// What is wrong with it.
        how: &'static str,
    },
    /// A place on a mount that the node, or others, would see changing.
    #[error(
        "{target} in the container is on a mount that propagates to the node: \
         use a private or slave rootfs propagation"
    )]
    Shared {
        /// Which place.
        target: String,
    },
    /// A step in the container's namespace that the kernel refused.
    #[error("cannot {action} {target} in the container: {source}")]
    Target {
        /// What was being done.
        action: &'static str,
        /// Which place.
        target: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A kernel without the mount API.
    #[error("this kernel cannot {action}: Berth needs Linux 5.12 or later")]
    OldKernel {
        /// What it does not know.
        action: &'static str,
    },
    /// The thread that does it.
    #[error("cannot {action} the thread that enters the container: {source}")]
    Thread {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

//! What can go wrong in a container's root: which path in it, and what was being done.
//!
//! Decides the words only.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// Something in a container's root filesystem could not be used. Paths are those inside the root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The root itself.
    #[error("cannot open the container's root {path}: {source}", path = path.display())]
    Open {
        /// Where the node has it.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A step that the kernel refused.
    #[error("cannot {action} {path} in the container's root: {source}")]
    Failed {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something else stands there than can be used.
    #[error("{path} in the container's root is {found}, not {wanted}: change the image")]
    Unexpected {
        /// Where.
        path: String,
        /// What stands there.
        found: &'static str,
        /// What would do.
        wanted: &'static str,
    },
    /// More than anybody sensible has there.
    #[error("{path} in the container's root has more than {limit} {unit}: change the image")]
    TooLarge {
        /// Which file or directory.
        path: String,
        /// How much is taken.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// A path that names nothing that could be written.
    #[error("{path:?} is not the path of a file in a root, for example /etc/ld.so.cache")]
    BadPath {
        /// As it was given.
        path: String,
    },
}

impl RootError {
    /// Whether the root is on a filesystem that nobody may write.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Failed { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem)
    }

    /// For `map_err`: this action on this path failed.
    pub(super) fn failed<'a>(
        action: &'static str,
        path: &'a str,
    ) -> impl Fn(Errno) -> Self + Copy + use<'a> {
        move |errno| Self::Failed { action, path: path.to_owned(), source: errno.into() }
    }
}

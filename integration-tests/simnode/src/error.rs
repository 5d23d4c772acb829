//! What can go wrong while a simulated node is made, read or changed.

use std::io;
use std::path::{Path, PathBuf};

use crate::code::Code;

/// A failure of the simulated node itself: never one that it simulates.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The file system said no.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was being done, as a verb.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// There is no node in this folder.
    #[error("{} holds no simulated node; make one with `simnode up`", dir.display())]
    NoNode {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder already holds one, or something else.
    #[error("{} is not empty; `simnode down` removes a node that is there", dir.display())]
    Occupied {
        /// The folder.
        dir: PathBuf,
    },
    /// Something is still mounted below the node.
    #[error("{mount} is still mounted below {}; unmount it first", dir.display())]
    Mounted {
        /// The node's folder.
        dir: PathBuf,
        /// The mount point.
        mount: String,
    },
    /// The state file is no state.
    #[error("{} is no state of a simulated node: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// What belongs into the node has not been built.
    #[error(
        "{what} was not found{searched}; build it with \
         `cargo build -p berth-simnode-nvml`, or name it in {variable}"
    )]
    NotBuilt {
        /// The file's name.
        what: &'static str,
        /// Where it was looked for.
        searched: String,
        /// The variable that can name it.
        variable: &'static str,
    },
    /// No profile of that name.
    #[error("no profile {name:?}; there are {known}")]
    UnknownProfile {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// No GPU of that index or UUID.
    #[error("no GPU {gpu:?} in this node, which has {count}")]
    UnknownGpu {
        /// What was asked for.
        gpu: String,
        /// How many there are.
        count: usize,
    },
    /// The driver says no.
    #[error("{what}: {code}")]
    Refused {
        /// What was to be done.
        what: String,
        /// The driver's answer.
        code: Code,
    },
    /// The change makes no sense on this node.
    #[error("{what}: {why}")]
    Impossible {
        /// What was to be changed.
        what: String,
        /// Why it cannot be.
        why: &'static str,
    },
}

/// Names the file and the action in an I/O error.
pub(crate) trait At<T> {
    /// The same result, with `action` and `path` in its error.
    fn at(self, action: &'static str, path: &Path) -> Result<T, NodeError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, NodeError> {
        self.map_err(|source| NodeError::File { action, path: path.to_owned(), source })
    }
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, NodeError> {
        self.map_err(io::Error::from).at(action, path)
    }
}

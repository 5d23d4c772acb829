//! What can go wrong with the ledger, in words that name the file, what is wrong and the way out.
//!
//! Decides the words only.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The ledger cannot be used, or was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// No boot has such an id.
    #[error("{boot_id:?} is not a boot id as /proc/sys/kernel/random/boot_id has it")]
    BadBootId {
        /// As it was given.
        boot_id: String,
    },
    /// A step that the kernel refused.
    #[error("cannot {action} {path}: {source}; is {folder} mounted, writable and not full?", path = path.display(), folder = folder.display())]
    Failed {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Where ledgers are kept.
        folder: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The folder of the ledger is not Berth's alone.
    #[error("{path} {damage}; no GPU is granted until it is a folder of root's with mode 0700", path = path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// A lock file is not one.
    #[error("the lock {path} {damage}; no GPU is granted until it is removed", path = path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The record itself cannot be believed.
    #[error(
        "the ledger {path} {damage}; no GPU is granted until {}",
        damage.way_out(), path = path.display()
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Somebody else holds a lock for too long.
    #[error(
        "the lock {path} was still held by another process after {waited:?}: `fuser -v {path}` names it; try again when it has ended",
        path = path.display()
    )]
    Busy {
        /// The lock's file.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// A file was replaced by somebody who did not hold the lock.
    #[error(
        "{path} was changed by another while this process held the node's lock; nothing was written: try again, \
         and let nothing but Berth write there",
        path = path.display()
    )]
    Swapped {
        /// The file.
        path: PathBuf,
    },
    /// More than a node can have.
    #[error(
        "the ledger {path} would have {amount} {unit}, more than {limit}: nothing was written; run `berth reconcile` and see `berth ps`",
        path = path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How much it would be.
        amount: usize,
        /// How much is taken.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// A record that JSON cannot hold.
    #[error("the ledger {path} cannot be written: {source}; are all paths and names UTF-8?", path = path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Which value.
        source: serde_json::Error,
    },
}

/// What is wrong with a file or a folder, as the end of a sentence that names it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Something else stands there.
    #[error("is {found}, not {wanted}")]
    Kind {
        /// What stands there.
        found: &'static str,
        /// What should.
        wanted: &'static str,
    },
    /// Another user's.
    #[error("belongs to user {uid}, not to {ours}")]
    Owner {
        /// Whose it is.
        uid: u32,
        /// Whose it should be.
        ours: u32,
    },
    /// Others may read or write it.
    #[error("has mode {mode:04o}, which lets others in")]
    Mode {
        /// Permission bits.
        mode: u32,
    },
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// More in it than is ever written.
    #[error("has {bytes} bytes, more than are ever written")]
    Size {
        /// How many.
        bytes: u64,
    },
    /// Cut off, or not written by Berth.
    #[error("cannot be read as one ({0})")]
    Syntax(serde_json::Error),
    /// Counted to the end.
    #[error("has a generation that cannot be counted on")]
    Generation,
    /// Written by another version.
    #[error("has format {format}, and this version of Berth knows {known}")]
    Format {
        /// What it says.
        format: u64,
        /// What is known.
        known: u64,
    },
}

impl Damage {
    /// What is to be done about it, as the end of a sentence.
    fn way_out(&self) -> &'static str {
        match self {
            Self::Format { .. } => {
                "Berth is upgraded to the version that wrote it, or the node is drained and restarted"
            }
            _ => {
                "it is repaired: `berth ledger repair --dry-run` says what can be saved, `berth ledger repair` does it"
            }
        }
    }
}

impl LedgerError {
    /// A step on a file of the ledger's folder.
    pub(crate) fn failed(action: &'static str, path: &Path, source: io::Error) -> Self {
        let folder = path.parent().unwrap_or(path).to_owned();
        Self::Failed { action, path: path.to_owned(), folder, source }
    }
}

//! Repair: a ledger that cannot be believed is put aside whole, and another takes its place in one step.
//!
//! ```text
//! node lock ─► look ─► (the caller decides what is to stand) ─► written beside ─► the two exchanged ─► the damaged one keeps the other name
//! ```
//!
//! Decides what kind of damage there is and that nobody ever finds no ledger, which would be taken for an empty one. Must not decide what
//! stands in the new one.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use plan::GrantId;

use crate::book::Ledger;
use crate::error::{Damage, LedgerError};
use crate::file::{self, FORMAT, MOST_BYTES};
use crate::lock::Held;
use crate::record::{Grant, Snapshot};
use crate::salvage::{self, Salvage};
use crate::trusted::{self, Trouble};
use crate::verify;

/// What is in the ledger's place.
#[derive(Debug)]
pub enum Condition {
    /// A ledger that reads.
    Sound(Snapshot),
    /// Nothing: nothing was ever granted in this boot, or somebody took it away.
    Missing,
    /// Another version's. It is not to be touched by this one.
    Foreign {
        /// Its format.
        format: u64,
        /// This version's.
        known: u64,
    },
    /// Something that is not to be believed as a whole.
    Damaged {
        /// What is wrong with it.
        damage: Damage,
        /// What can still be read.
        salvage: Salvage,
    },
}

/// A ledger that is looked at under the node's lock, whatever is in its place. Dropped, the lock is free.
#[derive(Debug)]
pub struct Mending<'a> {
    ledger: &'a Ledger,
    lock: Held,
    /// What was found.
    pub condition: Condition,
}

impl Ledger {
    /// Waits for the node's lock, and looks at what is in the ledger's place.
    ///
    /// # Errors
    /// [`LedgerError::Busy`] after the deadline; when the kernel refuses a look.
    pub fn mend(&self, deadline: Duration) -> Result<Mending<'_>, LedgerError> {
        let lock = Held::wait(&self.lock_path(), deadline)?;
        let condition = look(&self.path())?;
        Ok(Mending { ledger: self, lock, condition })
    }

    /// The grants that a living process has marked, whether or not they are in the ledger.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn in_progress(&self) -> Result<Vec<GrantId>, LedgerError> {
        let mut held = Vec::new();
        for id in self.marked()? {
            if self.is_in_progress(&id)? {
                held.push(id);
            }
        }
        Ok(held)
    }
}

impl Mending<'_> {
    /// Puts these grants into the ledger's place, and what was there aside; where that is now, if there was anything.
    ///
    /// # Errors
    /// [`LedgerError`]; what was in the ledger's place is there still.
    pub fn replace(self, grants: Vec<Arc<Grant>>) -> Result<Option<PathBuf>, LedgerError> {
        let path = self.ledger.path();
        if !self.lock.has_its_name()? {
            return Err(LedgerError::Swapped { path: self.lock.path().to_owned() });
        }
        let generation = match &self.condition {
            Condition::Damaged { salvage, .. } => salvage.generation,
            Condition::Sound(snapshot) => snapshot.generation,
            _ => 0,
        };
        let snapshot = Snapshot { generation: generation.checked_add(1).unwrap_or(1), grants };
        if let Condition::Missing = self.condition {
            file::replace(&path, &snapshot, None)?;
            return Ok(None);
        }
        let aside = free_name(&path);
        file::replace(&aside, &snapshot, None)?;
        let exchanged = renameat2(AT_FDCWD, &aside, AT_FDCWD, &path, RenameFlags::RENAME_EXCHANGE);
        exchanged.map_err(|errno| {
            let _ = fs::remove_file(&aside);
            LedgerError::failed("exchange", &path, errno.into())
        })?;
        Ok(Some(aside))
    }
}

impl Drop for Mending<'_> {
    fn drop(&mut self) {
        self.lock.release();
    }
}

/// Whether these grants contradict each other; in words.
pub fn contradictions(grants: &[Arc<Grant>]) -> Vec<String> {
    verify::findings(grants, &[]).iter().map(ToString::to_string).collect()
}

/// `ledger.damaged-1.json` beside the ledger, or the next number that is free.
fn free_name(path: &Path) -> PathBuf {
    let name = |number: u32| path.with_file_name(format!("ledger.damaged-{number}.json"));
    let mut number = 1;
    while name(number).symlink_metadata().is_ok() {
        number += 1;
    }
    name(number)
}

fn look(path: &Path) -> Result<Condition, LedgerError> {
    let damage = match file::read(path) {
        Ok((_, None)) => return Ok(Condition::Missing),
        // It reads, and can never be changed again.
        Ok((snapshot, Some(_))) if snapshot.generation == u64::MAX => {
            let salvage = Salvage { grants: snapshot.grants, ..Salvage::default() };
            return Ok(Condition::Damaged { damage: Damage::Generation, salvage });
        }
        Ok((snapshot, Some(_))) => return Ok(Condition::Sound(snapshot)),
        Err(LedgerError::Unusable { damage: Damage::Format { format, known }, .. }) => {
            return Ok(Condition::Foreign { format, known });
        }
        Err(LedgerError::Unusable { damage, .. }) => damage,
        Err(other) => return Err(other),
    };
    let bytes = believable(path)?;
    if let Some(format) = salvage::format(&bytes).filter(|format| *format != FORMAT) {
        return Ok(Condition::Foreign { format, known: FORMAT });
    }
    Ok(Condition::Damaged { damage, salvage: salvage::salvage(&bytes) })
}

/// The bytes of a file that nobody but our own user can have written; none of anything else.
fn believable(path: &Path) -> Result<Vec<u8>, LedgerError> {
    let failed = |source| LedgerError::failed("read", path, source);
    let opened = match trusted::open(path) {
        Ok(opened) => opened,
        // Others could look into it, and not write.
        Err(Trouble::Damage(Damage::Mode { mode })) if mode & 0o022 == 0 => {
            let file = fs::File::open(path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            Some((file, metadata))
        }
        Err(_) => None,
    };
    let Some((file, metadata)) = opened else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    if metadata.size() <= MOST_BYTES as u64 {
        file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;

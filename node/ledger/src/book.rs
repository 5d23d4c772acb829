//! The ledger of one boot: where it is, how it is read, and how it is changed.
//!
//! ```text
//! snapshot ─► read                                   (anyone, at any time)
//! lock ─► read ─► decide ─► commit ─► … ─► drop      (one at a time on a node)
//! ```
//!
//! Decides that a change is made by whoever holds the node's lock, to what was read under that lock, and not otherwise. Must not know what
//! the change means.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plan::{GpuUuid, GrantId};

use crate::error::{Damage, LedgerError};
use crate::file::{self, Seen};
use crate::liveness;
use crate::lock::{self, GpuLock, Held, InProgress};
use crate::record::{Grant, Snapshot};
use crate::trusted::{self, Trouble};
use crate::verify::{self, Finding};

const RECORD: &str = "ledger.json";
const NODE_LOCK: &str = "node.lock";
const ADMITTING: &str = "admitting";

/// How long the mark of a grant may be in somebody else's hands while it is made: nobody but a sweep takes another's.
const MARK: Duration = Duration::from_secs(1);

/// A handle on the ledger of one boot; holds nothing open.
#[derive(Debug, Clone)]
pub struct Ledger {
    run: PathBuf,
    folder: PathBuf,
}

/// What a process knows of the ledger from when it last held the lock. Good for as long as the file is the same.
#[derive(Debug)]
pub struct Known {
    snapshot: Snapshot,
    seen: Option<Seen>,
}

/// The ledger while this process alone may change it. Dropped, the node's lock is free.
#[derive(Debug)]
pub struct Locked<'a> {
    ledger: &'a Ledger,
    lock: Held,
    snapshot: Snapshot,
    seen: Option<Seen>,
}

impl Ledger {
    /// The ledger in `<run>/<boot_id>`. Makes the folder, and removes nothing: what other boots left is void and never read.
    ///
    /// # Errors
    /// [`LedgerError`] for what is no boot id, and when the folder cannot be made or others can get into it.
    pub fn open(run: &Path, boot_id: &str) -> Result<Self, LedgerError> {
        if !is_boot_id(boot_id) {
            return Err(LedgerError::BadBootId { boot_id: boot_id.to_owned() });
        }
        let folder = run.join(boot_id);
        let failed = |path: &Path, trouble| match trouble {
            Trouble::Damage(damage) => LedgerError::Folder { path: path.to_owned(), damage },
            Trouble::Io(source) => LedgerError::failed("make the folder", path, source),
        };
        trusted::make_parent(run).map_err(|trouble| failed(run, trouble))?;
        trusted::make_folder(&folder).map_err(|trouble| failed(&folder, trouble))?;
        Ok(Self { run: run.to_owned(), folder })
    }

    /// The file with the grants, which need not exist.
    pub fn path(&self) -> PathBuf {
        self.folder.join(RECORD)
    }

    /// All grants as of now. Takes no lock: the file is only ever replaced as a whole.
    ///
    /// # Errors
    /// [`LedgerError`] when it cannot be believed; it is never taken for empty then.
    pub fn snapshot(&self) -> Result<Snapshot, LedgerError> {
        Ok(self.look()?.snapshot)
    }

    /// What is in the file now, for [`Ledger::lock_knowing`]: reading it before the lock is had keeps nobody waiting.
    ///
    /// # Errors
    /// As [`Ledger::snapshot`].
    pub fn look(&self) -> Result<Known, LedgerError> {
        let (snapshot, seen) = file::read(&self.path())?;
        Ok(Known { snapshot, seen })
    }

    /// As [`Ledger::look`], and reads only if anybody has changed the file since `known`.
    ///
    /// # Errors
    /// As there.
    pub fn look_again(&self, known: Option<Known>) -> Result<Known, LedgerError> {
        match known {
            Some(known) if file::is_same(&self.path(), known.seen.as_ref())? => Ok(known),
            _ => self.look(),
        }
    }

    /// Bytes of the file; 0 when there is none.
    pub fn size(&self) -> u64 {
        fs::symlink_metadata(self.path()).map_or(0, |metadata| metadata.len())
    }

    /// Waits for the node's lock, then reads. Not for slow work: every admission and release of the node waits meanwhile.
    ///
    /// # Errors
    /// [`LedgerError::Busy`] after the deadline; as [`Ledger::snapshot`].
    pub fn lock(&self, deadline: Duration) -> Result<Locked<'_>, LedgerError> {
        self.lock_knowing(deadline, None)
    }

    /// As [`Ledger::lock`], and reads only if anybody has changed the file since `known`: reading is most of what an admission takes.
    ///
    /// # Errors
    /// As there.
    pub fn lock_knowing(
        &self,
        deadline: Duration,
        known: Option<Known>,
    ) -> Result<Locked<'_>, LedgerError> {
        let lock = Held::wait(&self.lock_path(), deadline)?;
        let Known { snapshot, seen } = self.look_again(known)?;
        Ok(Locked { ledger: self, lock, snapshot, seen })
    }

    /// Waits for the lock of one GPU, under which slow work on it is done. Whoever wants both takes this before the node's.
    ///
    /// # Errors
    /// [`LedgerError::Busy`] after the deadline; when the lock file cannot be made or is another's.
    pub fn gpu_lock(&self, gpu: &GpuUuid, deadline: Duration) -> Result<GpuLock, LedgerError> {
        GpuLock::wait(&self.gpu_lock_path(gpu), deadline)
    }

    /// The file of that lock, for a child that takes it.
    pub fn gpu_lock_path(&self, gpu: &GpuUuid) -> PathBuf {
        self.folder.join(format!("{gpu}.gpu"))
    }

    /// Whether somebody works on the GPU.
    ///
    /// # Errors
    /// When the lock file cannot be opened or is another's.
    pub fn is_worked_on(&self, gpu: &GpuUuid) -> Result<bool, LedgerError> {
        lock::is_held(&self.gpu_lock_path(gpu))
    }

    /// Marks a grant whose container is being made. The mark goes when the returned value does, or this process.
    ///
    /// # Errors
    /// [`LedgerError::Busy`] when another process has it marked; when the file cannot be made.
    pub fn begin(&self, id: &GrantId) -> Result<InProgress, LedgerError> {
        InProgress::begin(&self.mark(id), MARK)
    }

    /// As [`Ledger::begin`], without waiting: `None` when another process has it marked.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn try_begin(&self, id: &GrantId) -> Result<Option<InProgress>, LedgerError> {
        InProgress::try_begin(&self.mark(id))
    }

    /// Takes over the mark of a grant that another process has handed over with [`InProgress::hand_over`]; `None` when it is none.
    ///
    /// # Errors
    /// When what was given cannot be locked.
    pub fn take_over(
        &self,
        id: &GrantId,
        given: OwnedFd,
    ) -> Result<Option<InProgress>, LedgerError> {
        InProgress::take_over(given, &self.mark(id))
    }

    /// Whether a living process has the grant marked.
    ///
    /// # Errors
    /// When the lock file cannot be opened or is another's.
    pub fn is_in_progress(&self, id: &GrantId) -> Result<bool, LedgerError> {
        lock::is_held(&self.mark(id))
    }

    /// Removes the marks that killed processes left; how many. Without meaning, they would stay until the next boot.
    ///
    /// # Errors
    /// When the folder cannot be read or a file cannot be removed.
    pub fn sweep(&self) -> Result<usize, LedgerError> {
        let mut swept = 0;
        for id in self.marked()? {
            swept += usize::from(lock::sweep(&self.mark(&id))?);
        }
        Ok(swept)
    }

    /// Grants that have a mark, held or left behind.
    pub(crate) fn marked(&self) -> Result<Vec<GrantId>, LedgerError> {
        let failed = |source| LedgerError::failed("list", &self.folder, source);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()?.parse::<GrantId>().ok());
            ids.extend(id.filter(|id| path == self.mark(id)));
        }
        Ok(ids)
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.folder.join(NODE_LOCK)
    }

    /// What no sequence of right changes leads to; empty when the record is sound.
    ///
    /// # Errors
    /// As [`Ledger::snapshot`].
    pub fn verify(&self) -> Result<Vec<Finding>, LedgerError> {
        let before = self.snapshot()?;
        let mut unmarked = Vec::new();
        for grant in verify::reserved(&before.grants) {
            let lives = liveness::owner_lives(grant, self.is_in_progress(&grant.id)?);
            if !lives
                .map_err(|source| LedgerError::failed("find the owners in", &self.path(), source))?
            {
                unmarked.push(grant.id.clone());
            }
        }
        // An admission may have ended in between: it gives its mark back after it has written that it has ended.
        let grants = self.snapshot()?.grants;
        unmarked.retain(|id| verify::reserved(&grants).any(|grant| grant.id == *id));
        Ok(verify::findings(&grants, &unmarked))
    }

    /// Removes the folders of other boots, unread: what they say is void. On a node whose `/run` is a disk they would pile up.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn sweep_boots(&self) -> Result<usize, LedgerError> {
        let void = self.void_boots();
        for folder in &void {
            fs::remove_dir_all(folder)
                .map_err(|source| LedgerError::failed("remove", folder, source))?;
        }
        Ok(void.len())
    }

    /// Folders of other boots.
    fn void_boots(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.run) else { return Vec::new() };
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter(|entry| entry.file_name().to_str().is_some_and(is_boot_id))
            .map(|entry| entry.path())
            .filter(|path| *path != self.folder)
            .collect();
        found.sort();
        found
    }

    fn mark(&self, id: &GrantId) -> PathBuf {
        self.folder.join(format!("{id}.{ADMITTING}"))
    }
}

impl Known {
    /// All grants, as they were then.
    pub fn grants(&self) -> &[Arc<Grant>] {
        &self.snapshot.grants
    }
}

impl Locked<'_> {
    /// Gives the lock back and keeps what is known.
    pub fn leave(mut self) -> Known {
        Known { snapshot: std::mem::take(&mut self.snapshot), seen: self.seen.take() }
    }

    /// All grants, as they were read under the lock or last committed.
    pub fn grants(&self) -> &[Arc<Grant>] {
        &self.snapshot.grants
    }

    /// Counts the changes.
    pub fn generation(&self) -> u64 {
        self.snapshot.generation
    }

    /// Replaces all grants, and counts one change. Whoever reads sees the old ones or the new ones.
    ///
    /// # Errors
    /// [`LedgerError`]; the file is as it was then. [`LedgerError::Swapped`] when somebody replaced the file, or the lock's, meanwhile.
    pub fn commit(&mut self, grants: Vec<Arc<Grant>>) -> Result<(), LedgerError> {
        self.change(|all| *all = grants)
    }

    /// As [`Locked::commit`], by a change in place, and with what that returns. It is not made at all where it could not be written.
    ///
    /// # Errors
    /// As there.
    pub fn change<T>(
        &mut self,
        change: impl FnOnce(&mut Vec<Arc<Grant>>) -> T,
    ) -> Result<T, LedgerError> {
        let path = self.ledger.path();
        if !self.lock.has_its_name()? {
            return Err(LedgerError::Swapped { path: self.lock.path().to_owned() });
        }
        if !file::is_same(&path, self.seen.as_ref())? {
            return Err(LedgerError::Swapped { path });
        }
        let generation = self.snapshot.generation.checked_add(1).ok_or_else(|| {
            LedgerError::Unusable { path: path.clone(), damage: Damage::Generation }
        })?;
        let changed = change(&mut self.snapshot.grants);
        self.snapshot.generation = generation;
        match file::replace(&path, &self.snapshot, self.seen.as_ref()) {
            Ok(seen) => self.seen = Some(seen),
            Err(error) => {
                // As it is on disk. Should that not be readable either, nothing can be committed to it any more.
                (self.snapshot, self.seen) = file::read(&path).unwrap_or_default();
                return Err(error);
            }
        }
        Ok(changed)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.lock.release();
    }
}

/// A UUID, as the kernel writes it.
fn is_boot_id(text: &str) -> bool {
    let groups = text.split('-').map(str::len);
    groups.eq([8, 4, 4, 4, 12])
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

#[cfg(test)]
mod tests;

//! Locks: flock(2) on files of the ledger's folder. The kernel releases them when their holder dies, however it dies.
//!
//! Decides how long to wait and what is a lock file. A lock is only had if its file still has its name: whoever removes a lock file does so while
//! holding it. Must not know what is done under a lock.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::FlockArg;

use crate::error::LedgerError;
use crate::trusted::{self, Trouble};

/// How long to sleep before the second try; doubled up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_micros(50);
/// A lock is held for a millisecond or so, by one of a few.
const LONGEST: Duration = Duration::from_millis(2);

/// How long a mark is in the way of whoever only looks whether it is held.
const LOOKED_AT: Duration = Duration::from_millis(20);

/// A lock that is held. Closed when dropped: copies of the descriptor in children keep it.
#[derive(Debug)]
pub(crate) struct Held {
    file: File,
    path: PathBuf,
}

/// The lock of one GPU. A child that inherits its descriptor holds it, too, and goes on doing so when this is dropped.
#[derive(Debug)]
pub struct GpuLock(Held);

/// The mark of a grant whose container is being made. Dropped, the mark is taken away.
#[derive(Debug)]
pub struct InProgress(Option<Held>);

impl Held {
    /// Waits for the lock until the deadline. There is no flock with one, and neither a signal nor a thread that waits in our place is
    /// fit for a library: so it tries, and sleeps in between.
    pub(crate) fn wait(path: &Path, deadline: Duration) -> Result<Self, LedgerError> {
        let start = Instant::now();
        let mut pause = SHORTEST;
        loop {
            if let Some(held) = Self::attempt(path)? {
                return Ok(held);
            }
            let waited = start.elapsed();
            if waited >= deadline {
                return Err(LedgerError::Busy { path: path.to_owned(), waited: deadline });
            }
            thread::sleep(pause.min(deadline.saturating_sub(waited)));
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// `None` when another has it, or when its file lost its name just now.
    fn attempt(path: &Path) -> Result<Option<Self>, LedgerError> {
        let (file, _) = trusted::open_or_make(path).map_err(|trouble| refused(path, trouble))?;
        Self::take(file, path)
    }

    fn take(file: File, path: &Path) -> Result<Option<Self>, LedgerError> {
        if !flock(&file, FlockArg::LockExclusiveNonblock).map_err(|e| failed(path, e))? {
            return Ok(None);
        }
        let held = Self { file, path: path.to_owned() };
        Ok(held.has_its_name()?.then_some(held))
    }

    /// Whether the file that is locked is the one that others would try to lock.
    pub(crate) fn has_its_name(&self) -> Result<bool, LedgerError> {
        let ours = self.file.metadata().map_err(|source| failed(&self.path, source))?;
        match fs::symlink_metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(failed(&self.path, source)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Unlocks even if a child that is just being started has a copy of the descriptor.
    pub(crate) fn release(&self) {
        // Fails for no descriptor that was locked; and closing it follows.
        let _ = flock(&self.file, FlockArg::Unlock);
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl GpuLock {
    pub(crate) fn wait(path: &Path, deadline: Duration) -> Result<Self, LedgerError> {
        Held::wait(path, deadline).map(Self)
    }
}

impl AsFd for GpuLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

impl InProgress {
    pub(crate) fn begin(path: &Path, deadline: Duration) -> Result<Self, LedgerError> {
        Held::wait(path, deadline).map(|held| Self(Some(held)))
    }

    /// `None` when another has it marked, and not only looks whether somebody has.
    pub(crate) fn try_begin(path: &Path) -> Result<Option<Self>, LedgerError> {
        match Held::wait(path, LOOKED_AT) {
            Ok(held) => Ok(Some(Self(Some(held)))),
            Err(LedgerError::Busy { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What to give a child, which then has the mark until it ends, or takes it over and drops it. `None` never.
    pub fn hand_over(mut self) -> Option<OwnedFd> {
        // Neither unlocked nor removed.
        self.0.take().map(|held| held.file.into())
    }

    /// Takes over what another has handed over. Whoever is given something else has no mark.
    pub(crate) fn take_over(given: OwnedFd, path: &Path) -> Result<Option<Self>, LedgerError> {
        let held = Held { file: File::from(given), path: path.to_owned() };
        let is_locked = flock(&held.file, FlockArg::LockExclusiveNonblock);
        let is_locked = is_locked.map_err(|error| failed(path, error))?;
        Ok((is_locked && held.has_its_name()?).then_some(Self(Some(held))))
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            // What cannot be removed is swept up later; unlocked, it means nothing.
            let _ = held.remove();
            held.release();
        }
    }
}

/// Whether somebody holds the lock. Asks with a shared lock, so that any number may ask at once.
pub(crate) fn is_held(path: &Path) -> Result<bool, LedgerError> {
    match trusted::open(path).map_err(|trouble| refused(path, trouble))? {
        None => Ok(false),
        Some((file, _)) => {
            let free = flock(&file, FlockArg::LockSharedNonblock);
            let free = free.map_err(|source| failed(path, source))?;
            // Not left to the closing: a child that is just being started may have a copy of the descriptor.
            let _ = flock(&file, FlockArg::Unlock);
            Ok(!free)
        }
    }
}

/// Removes a lock file that nobody holds; whether it did.
pub(crate) fn sweep(path: &Path) -> Result<bool, LedgerError> {
    let Some(held) = Held::attempt(path)? else { return Ok(false) };
    held.remove().map_err(|source| LedgerError::failed("remove", path, source))?;
    Ok(true)
}

/// Whether the lock was had; `false` when another's stands against it.
#[expect(
    deprecated,
    reason = "nix's Flock unlocks when dropped, and with it a child's inherited lock"
)]
fn flock(file: &File, how: FlockArg) -> io::Result<bool> {
    loop {
        match nix::fcntl::flock(file.as_raw_fd(), how) {
            Ok(()) => return Ok(true),
            Err(Errno::EWOULDBLOCK) => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn failed(path: &Path, source: io::Error) -> LedgerError {
    LedgerError::failed("lock", path, source)
}

fn refused(path: &Path, trouble: Trouble) -> LedgerError {
    match trouble {
        Trouble::Io(source) => failed(path, source),
        Trouble::Damage(damage) => LedgerError::Lock { path: path.to_owned(), damage },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_on_a_file_that_lost_its_name_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.lock");
        let opened = || trusted::open_or_make(&path).expect("a file").0;
        let removed = opened();
        fs::remove_file(&path).expect("removed by its last holder");
        assert!(Held::take(removed, &path).expect("tried").is_none(), "its name is gone");
        let replaced = opened();
        fs::remove_file(&path).expect("removed");
        let newer = opened();
        assert!(Held::take(replaced, &path).expect("tried").is_none(), "another has its name");
        assert!(Held::take(newer, &path).expect("tried").is_some());
    }
}

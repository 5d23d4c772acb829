//! Out-of-memory kills of one container.
//!
//! v1 counts notifications on an eventfd that is registered for `memory.oom_control`; v2 compares the
//! `oom_kill` counter of `memory.events`, whose file reports a priority event on every change (so no
//! inotify instance is spent, of which a user has 128). Decides what counts as an event. Must not
//! know what is done about one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::files::parse;
use crate::ready::watch;

/// A watch on one container's memory cgroup. Dropping it ends the watch.
#[derive(Debug)]
pub enum OomWatch {
    /// eventfd(2) registered through `cgroup.event_control`.
    V1 {
        /// Counts notifications.
        events: AsyncFd<OwnedFd>,
        /// The directory; the kernel also notifies when it goes away.
        dir: PathBuf,
    },
    /// `memory.events` itself.
    V2 {
        /// The open file.
        events: AsyncFd<File>,
        /// Kills seen so far.
        seen: AtomicU64,
    },
}

impl OomWatch {
    /// Watches a v1 memory cgroup.
    pub(super) fn v1(dir: &Path) -> io::Result<Self> {
        let events = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let events = OwnedFd::from(events);
        let control = File::open(dir.join("memory.oom_control"))?;
        let order = format!("{} {}", events.as_raw_fd(), control.as_raw_fd());
        OpenOptions::new()
            .write(true)
            .open(dir.join("cgroup.event_control"))?
            .write_all(order.as_bytes())?;
        Ok(Self::V1 { events: watch(events, Interest::READABLE)?, dir: dir.into() })
    }

    /// Watches a v2 cgroup.
    pub(super) fn v2(dir: &Path) -> io::Result<Self> {
        let mut file = File::open(dir.join("memory.events"))?;
        let seen = AtomicU64::new(kills(&mut file)?);
        Ok(Self::V2 { events: watch(file, Interest::PRIORITY)?, seen })
    }

    /// Waits for the next out-of-memory event; `None` when the cgroup is gone.
    pub async fn next(&self) -> Option<()> {
        loop {
            match self {
                Self::V1 { events, .. } => events.readable().await.ok()?.clear_ready(),
                Self::V2 { events, .. } => {
                    events.ready(Interest::PRIORITY).await.ok()?.clear_ready();
                }
            }
            match self.pending() {
                Ok(true) => return Some(()),
                Ok(false) => {}
                Err(_) => return None,
            }
        }
    }

    /// Whether an event has happened since the last that was taken; takes it.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub fn pending(&self) -> io::Result<bool> {
        match self {
            Self::V1 { events, dir } => {
                let mut count = [0; 8];
                match nix::unistd::read(events.get_ref(), &mut count) {
                    // Removal notifies too: only a directory that is still there had an event.
                    Ok(_) => fs::metadata(dir.join("memory.oom_control")).map(|_| true),
                    Err(nix::errno::Errno::EAGAIN) => Ok(false),
                    Err(errno) => Err(errno.into()),
                }
            }
            Self::V2 { events, seen } => {
                let now = kills(&mut events.get_ref())?;
                Ok(seen.swap(now, Ordering::Relaxed) < now)
            }
        }
    }
}

/// The `oom_kill` counter.
fn kills(mut file: impl Read + Seek) -> io::Result<u64> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    let counter = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(counter.map_or(0, parse))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rising_counter_is_an_event() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("memory.events");
        let write = |kills: u64| {
            fs::write(&path, format!("oom 9\noom_kill {kills}\noom_group_kill 5\n"))
                .expect("writable");
        };
        write(2);
        let mut file = File::open(&path).expect("readable");
        assert_eq!(kills(&mut file).expect("readable"), 2);
        write(3);
        assert_eq!(kills(&mut file).expect("readable"), 3);
    }
}

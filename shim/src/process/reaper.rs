//! The one reaper of the shim.
//!
//! Every child and every orphan that the subreaper inherits ends here. The problem it solves: a
//! container's init or an exec is learned of by number (a PID file) after the OCI runtime that
//! started it has gone, and may have exited by then.
//!
//! ```text
//! expect() ──► runtime runs ──► pid file ──► claim(pid)
//!    └─ from here on, exits of unknown children are kept until nobody expects one
//! ```
//!
//! Decides which exit belongs to whom; a number that is alive again is never taken for the dead one.
//! Must not know containers.

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::{Notify, oneshot};

use super::Handle;

/// How and when a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 + signal number.
    pub status: u32,
    /// When it was reaped.
    pub at: SystemTime,
}

/// A child that was started through the reaper.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id, which is also its process group if the command asked for one.
    pub pid: i32,
    /// Its exit, once.
    pub exit: oneshot::Receiver<Exit>,
}

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<i32, oneshot::Sender<Exit>>,
    /// Exits of children that nobody claimed yet; kept only while somebody expects one.
    unclaimed: HashMap<i32, Exit>,
    expecting: usize,
}

/// The reaper. Cheap to share.
#[derive(Debug, Clone, Default)]
pub struct Reaper {
    table: Arc<Mutex<Table>>,
    /// Rung when the last child that somebody started or claimed has ended.
    childless: Arc<Notify>,
}

/// While it lives, exits of unknown children are remembered.
#[derive(Debug)]
pub struct Expectation {
    reaper: Reaper,
}

impl Reaper {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while holding the table; if it ever did, its maps are still maps.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts `command` and returns its exit to come.
    ///
    /// # Errors
    /// What spawning said.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Spawned> {
        // The table stays locked, so that `reap` cannot see the exit before the entry.
        let mut table = self.table();
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(|_| io::ErrorKind::InvalidData)?;
        let (sender, exit) = oneshot::channel();
        table.waiting.insert(pid, sender);
        table.unclaimed.remove(&pid);
        Ok(Spawned { pid, exit })
    }

    /// Announces that a process will be learned of by number.
    pub fn expect(&self) -> Expectation {
        self.table().expecting += 1;
        Expectation { reaper: self.clone() }
    }

    /// Collects every child that has ended. To be called after SIGCHLD.
    pub fn reap(&self) {
        let mut table = self.table();
        loop {
            let Some((pid, status)) = next_dead_child() else { return };
            let exit = Exit { status, at: SystemTime::now() };
            match table.waiting.remove(&pid) {
                // A receiver that is gone has given up on the process.
                Some(sender) => drop(sender.send(exit)),
                None if table.expecting > 0 => drop(table.unclaimed.insert(pid, exit)),
                None => {}
            }
            if table.waiting.is_empty() {
                self.childless.notify_waiters();
            }
        }
    }

    /// Waits until every child that was started or claimed here has ended.
    pub async fn childless(&self) {
        loop {
            let mut rung = std::pin::pin!(self.childless.notified());
            rung.as_mut().enable();
            if self.table().waiting.is_empty() {
                return;
            }
            rung.await;
        }
    }

    /// Kills every child that was started or claimed here and has not ended: for the end of the shim, after
    /// which nobody could.
    pub fn kill_the_rest(&self) {
        for pid in self.table().waiting.keys() {
            // Unreaped while it is in the table, which stays locked: the number is its own.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
    }
}

/// Reaps one child that has ended: its PID and its status as a shell would count it.
///
/// Not through nix, whose `Signal` has no real-time signals: it reaps a child that one of those
/// killed and then returns an error without the PID.
fn next_dead_child() -> Option<(i32, u32)> {
    let mut status = 0;
    loop {
        // SAFETY: (why needed) see above. (why sound) the kernel writes one int through a valid pointer.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        match pid {
            0 => return None,
            -1 if Errno::last() == Errno::EINTR => continue,
            -1 => return None,
            _ => {}
        }
        let status = if libc::WIFSIGNALED(status) {
            128 + libc::WTERMSIG(status)
        } else {
            libc::WEXITSTATUS(status)
        };
        return Some((pid, status.cast_unsigned()));
    }
}

impl Expectation {
    /// Claims the process `pid`: a handle while it is there, and its exit to come. A process that has
    /// already been reaped has no handle and its exit is there at once.
    ///
    /// # Errors
    /// ECHILD when `pid` is no child and none with that number was reaped: a stranger, or nobody. EMFILE for
    /// descriptors: a process that runs and cannot be watched, of which nobody would ever hear; it is killed.
    pub fn claim(&self, pid: i32) -> io::Result<(Option<Handle>, oneshot::Receiver<Exit>)> {
        let mut table = self.reaper.table();
        let (sender, exit) = oneshot::channel();
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(Pid::from_raw(pid)), flags) {
            // It exists, unreaped: what was remembered under this number was another process.
            // EINVAL is nix again, for a zombie that a real-time signal killed.
            Ok(_) | Err(Errno::EINVAL) => {
                table.unclaimed.remove(&pid);
                let handle = Handle::open(pid).inspect_err(|_| {
                    // Nobody can reap it while the table is locked: the number is its own.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                })?;
                table.waiting.insert(pid, sender);
                Ok((Some(handle), exit))
            }
            Err(Errno::ECHILD) => {
                let early = table.unclaimed.remove(&pid).ok_or(Errno::ECHILD)?;
                // The receiver is in this very function.
                let _ = sender.send(early);
                Ok((None, exit))
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        let mut table = self.reaper.table();
        table.expecting -= 1;
        if table.expecting == 0 {
            table.unclaimed.clear();
        }
    }
}

#[cfg(test)]
#[allow(clippy::zombie_processes, reason = "reaping them is what is tested")]
mod tests {
    use super::super::CHILDREN;
    use super::*;
    use std::os::unix::process::CommandExt;

    fn reap_until(reaper: &Reaper, exit: &mut oneshot::Receiver<Exit>) -> Exit {
        loop {
            reaper.reap();
            if let Ok(exit) = exit.try_recv() {
                return exit;
            }
            // Blocks until some child changes state, and leaves it to be reaped.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            let _ = waitid(Id::All, flags);
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        command
    }

    #[test]
    fn exit_codes_and_signals_are_told_apart() {
        let _one_at_a_time = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let reaper = Reaper::default();
        for (script, status) in [("exit 7", 7), ("kill -9 $$", 137), ("kill -34 $$", 162)] {
            let mut child = reaper.spawn(&mut shell(script)).expect("sh exists");
            assert_eq!(reap_until(&reaper, &mut child.exit).status, status, "{script}");
        }
    }

    #[test]
    fn a_process_that_exits_before_its_pid_is_known_is_not_lost() {
        let _one_at_a_time = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let reaper = Reaper::default();
        let expectation = reaper.expect();
        // Started behind the reaper's back, as an OCI runtime starts a container's init.
        let stranger = shell("exit 3").spawn().expect("sh exists");
        let pid = i32::try_from(stranger.id()).expect("a pid");
        let _ = waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        reaper.reap();
        let (handle, mut exit) = expectation.claim(pid).expect("it was remembered");
        assert!(handle.is_none());
        assert_eq!(exit.try_recv().expect("at once").status, 3);
        drop(expectation);
        assert!(reaper.table().unclaimed.is_empty());
    }

    #[test]
    fn a_living_process_is_claimed_with_a_handle() {
        let _one_at_a_time = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let reaper = Reaper::default();
        let expectation = reaper.expect();
        let stranger = shell("sleep 60").spawn().expect("sh exists");
        let pid = i32::try_from(stranger.id()).expect("a pid");
        // A stale memory of the same number must not win.
        let stale = Exit { status: 99, at: SystemTime::UNIX_EPOCH };
        reaper.table().unclaimed.insert(pid, stale);
        let (handle, mut exit) = expectation.claim(pid).expect("alive");
        handle.expect("alive").signal(15).expect("alive");
        assert_eq!(reap_until(&reaper, &mut exit).status, 143);
    }

    #[test]
    fn the_rest_is_killed_at_the_end() {
        let _one_at_a_time = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let reaper = Reaper::default();
        let mut child = reaper.spawn(&mut shell("trap '' TERM; sleep 60")).expect("sh exists");
        reaper.kill_the_rest();
        assert_eq!(reap_until(&reaper, &mut child.exit).status, 137);
        // Nobody is left to be waited for.
        let event_loop = tokio::runtime::Builder::new_current_thread().build().expect("a loop");
        event_loop.block_on(reaper.childless());
    }

    #[test]
    fn a_stranger_cannot_be_claimed() {
        let _one_at_a_time = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let error = Reaper::default().expect().claim(1).expect_err("init is nobody's child");
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
    }
}

//! How long the suites wait, and the only ways they wait. A deadline says "stuck", never "slow":
//! it is far above what any step takes. Must not know what is waited for.

use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// After this long a step is stuck.
pub const STUCK: Duration = Duration::from_secs(90);

/// Awaits `step`, or says which one is stuck.
pub async fn within<T>(what: &str, step: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(STUCK, step).await.map_err(|_| anyhow!("stuck: {what} after {STUCK:?}"))
}

/// For facts that the kernel announces to nobody (an entry gone from a directory, a changed line in
/// /proc): looks until `seen` gives a value.
pub async fn eventually<T>(what: &str, mut seen: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = seen()? {
            return Ok(value);
        }
        if start.elapsed() > STUCK {
            bail!("stuck: {what} after {STUCK:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A process held by its pidfd: it can be waited for and signalled without mistaking a reused pid for it.
#[derive(Debug)]
pub struct Process {
    /// The pid, for messages.
    pub pid: u32,
    fd: OwnedFd,
}

impl Process {
    /// Takes hold of a process; None when no such process is left.
    pub fn open(pid: u32) -> Option<Process> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        if fd < 0 {
            return None;
        }
        // SAFETY: the kernel just returned this descriptor, nobody else owns it.
        let fd = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd as i32) };
        Some(Process { pid, fd })
    }

    /// Sends a signal; true when the process was still there to get it.
    pub fn signal(&self, signal: i32) -> bool {
        use std::os::fd::AsRawFd;
        // SAFETY: the descriptor is a live pidfd; a null siginfo asks for the default one.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), signal, 0usize, 0)
        };
        sent == 0
    }

    /// How many descriptors it may have; with `to`, from now on.
    pub fn descriptor_limit(&self, to: Option<u64>) -> Result<u64> {
        let pid = self.pid as libc::pid_t;
        let mut was = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        let none = std::ptr::null();
        // SAFETY: a null pointer changes nothing; the other is to a structure of our own.
        let read = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, none, &raw mut was) };
        let set = to.map_or(0, |soft| {
            let wanted = libc::rlimit { rlim_cur: soft, ..was };
            let unread = std::ptr::null_mut();
            // SAFETY: the kernel reads one structure of our own and writes none.
            unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const wanted, unread) }
        });
        if read != 0 || set != 0 {
            bail!("the limits of process {pid}: {}", std::io::Error::last_os_error());
        }
        Ok(was.rlim_cur)
    }

    /// Blocks until the process has exited or `patience` is over; true when it has exited.
    pub fn exited_within(&self, patience: Duration) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        matches!(poll(&mut fds, patience), Ok(ready) if ready > 0)
    }

    /// Awaits the exit.
    pub async fn exited(self) -> Result<()> {
        let pid = self.pid;
        let exited = tokio::task::spawn_blocking(move || self.exited_within(STUCK)).await?;
        if exited { Ok(()) } else { bail!("stuck: process {pid} has not exited after {STUCK:?}") }
    }
}

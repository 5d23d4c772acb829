//! A pidfd: a process that can be signalled and never mistaken for another with the same number.
//!
//! Decides nothing. Must only be made for an unreaped child, which [`super::Reaper`] guarantees.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A process held by file descriptor (pidfd_open(2), Linux 5.3).
#[derive(Debug)]
pub struct Handle {
    fd: OwnedFd,
}

impl Handle {
    /// Opens a handle for `pid`.
    ///
    /// # Errors
    /// ESRCH when there is no such process; EMFILE when descriptors ran out.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: (why needed) neither std nor nix wraps pidfd_open. (why sound) two integers go in,
        // no memory is touched, and a non-negative result is a new descriptor that nobody else owns.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: (why sound) `fd` was just returned by the kernel and has no other owner.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Sends a signal by number, real-time signals included (pidfd_send_signal(2)).
    ///
    /// # Errors
    /// ESRCH when the process is gone; EINVAL when there is no such signal.
    pub fn signal(&self, signal: u32) -> io::Result<()> {
        // SAFETY: (why needed) nix's Signal type has no real-time signals. (why sound) a null siginfo
        // asks the kernel for the same one as kill(2); the descriptor is owned and open.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Readable once the process has ended.
impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::CHILDREN;
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::sync::PoisonError;

    #[test]
    fn a_signal_reaches_the_process_and_a_reaped_one_is_never_hit() {
        let _one_at_a_time = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep exists");
        let handle = Handle::open(i32::try_from(child.id()).expect("a pid")).expect("alive");
        assert_eq!(
            handle.signal(1000).expect_err("no such signal").raw_os_error(),
            Some(libc::EINVAL)
        );
        handle.signal(9).expect("alive");
        assert_eq!(child.wait().expect("our child").signal(), Some(9));
        let error = handle.signal(9).expect_err("gone");
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}

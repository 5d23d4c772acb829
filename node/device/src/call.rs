//! System calls that no crate wraps as they are needed here.
//!
//! Decides nothing.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A descriptor of a child that stays the child's when its number is given to another (pidfd_open(2), Linux 5.3).
///
/// # Errors
/// ESRCH when the process has been reaped.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: (why needed) neither std nor nix wraps pidfd_open. (why sound) two integers go in, no memory is touched, and a
    // non-negative result is a new descriptor that nobody else owns.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: (why sound) `fd` was just returned by the kernel and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Locks an open file against other processes, or says that another holds it. The lock belongs to the open file: it ends when every
/// descriptor of it, those that children inherited included, is closed.
///
/// # Errors
/// What flock(2) said.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: (why needed) nix's `Flock` unlocks when it is dropped, also for the child that shares the lock; std's `try_lock` is newer
    // than our compiler may be. (why sound) two integers go in; the descriptor is open for the length of the call.
    let locked = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if locked == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        error => Err(error),
    }
}

//! Descriptors on the event loop.
//!
//! Decides nothing; the one place that vouches for what tokio cannot see.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Types that own one descriptor, and whose number therefore stays the same while they live.
pub trait OwnsFd: AsRawFd {}
impl OwnsFd for OwnedFd {}
impl OwnsFd for std::fs::File {}

/// Registers a descriptor with the event loop.
///
/// # Errors
/// EPERM for what is always ready (regular files); what else the kernel said.
pub fn watch<T: OwnsFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: (why needed) tokio must be told that the number stays valid and the same until the
    // registration ends. (why sound) `T` owns the descriptor, and the registration owns the `T`.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Makes reads and writes return instead of waiting.
///
/// # Errors
/// What the kernel said.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

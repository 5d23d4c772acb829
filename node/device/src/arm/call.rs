//! The system calls of the mount API that no crate wraps, and nothing else.
//!
//! Decides nothing: descriptors in, descriptors or errors out. Every descriptor made here is closed on exec.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// No path: the descriptor itself is meant.
const ITSELF: *const libc::c_char = c"".as_ptr();

/// A detached copy of the mount tree at `source`, in no namespace yet (open_tree(2), Linux 5.2).
pub(super) fn clone_tree(source: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | libc::AT_EMPTY_PATH as u32
        | libc::AT_RECURSIVE as u32;
    // SAFETY: needed because neither libc nor nix has open_tree. The descriptor is borrowed for the call, the
    // path is a static C string, and the kernel keeps neither.
    let made = unsafe { libc::syscall(libc::SYS_open_tree, source.as_raw_fd(), ITSELF, flags) };
    owned(made)
}

/// Sets attributes of the whole detached tree, and makes it private (mount_setattr(2), Linux 5.12).
pub(super) fn set_attributes(tree: BorrowedFd<'_>, attributes: u64) -> Result<()> {
    set(tree, attributes, libc::AT_RECURSIVE)
}

/// Makes one mount private: what is mounted on it appears nowhere else. `place` is its root.
pub(super) fn make_private(place: BorrowedFd<'_>) -> Result<()> {
    set(place, 0, 0)
}

fn set(mount: BorrowedFd<'_>, attributes: u64, flags: libc::c_int) -> Result<()> {
    let wanted = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: needed because neither libc nor nix has mount_setattr. `wanted` lives through the call, its size
    // is given, the path is a static C string, and the kernel keeps nothing of it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            ITSELF,
            flags | libc::AT_EMPTY_PATH,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Puts a detached tree on `target`, in the calling thread's mount namespace (move_mount(2), Linux 5.2).
pub(super) fn put_tree(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: needed because neither libc nor nix has move_mount. Both descriptors are borrowed for the call,
    // both paths are static C strings, and the kernel keeps none of them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            ITSELF,
            target.as_raw_fd(),
            ITSELF,
            flags,
        )
    };
    Errno::result(result).map(drop)
}

/// A descriptor of a process (pidfd_open(2), Linux 5.3).
pub(super) fn process(pid: u32) -> Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: needed because neither libc nor nix has pidfd_open. It takes two integers and touches no memory.
    let made = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(made)
}

/// Whether the process of this descriptor has ended, waited for or not.
pub(super) fn has_ended(process: BorrowedFd<'_>) -> Result<bool> {
    let mut polled = [PollFd::new(process, PollFlags::POLLIN)];
    loop {
        match poll(&mut polled, PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            result => return result.map(|ready| ready > 0),
        }
    }
}

fn owned(made: libc::c_long) -> Result<OwnedFd> {
    let made = Errno::result(made)?;
    // SAFETY: needed to own what a raw call returned. The kernel has just made this descriptor for us, nobody
    // else knows it, and descriptors fit into an int.
    Ok(unsafe { OwnedFd::from_raw_fd(made as libc::c_int) })
}

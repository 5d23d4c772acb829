//! A container's terminal: how its master comes to us.
//!
//! The OCI runtime connects to a socket and sends the master's descriptor over it. The socket lies in
//! the bundle, which only root can enter, and not in the abstract namespace, where every process of
//! the host's network namespace could answer. Its path is given relative to the bundle, since a
//! bundle's own path may be longer than a socket address holds. Must not move data.

use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

/// How long a runtime that has succeeded may take to have sent the master.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A socket that waits for a terminal. Dropping it removes it.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
    name: String,
}

impl ConsoleSocket {
    /// Binds `name` in `bundle`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn bind(bundle: &Path, name: &str) -> io::Result<Self> {
        let dir = File::open(bundle)?;
        let short = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        let listener = UnixListener::bind(short)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: bundle.join(name), name: name.to_owned() })
    }

    /// The socket's name relative to the bundle.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the master that a successful runtime has sent.
    ///
    /// # Errors
    /// `WouldBlock` when the runtime never connected; `InvalidData` when it sent no descriptor.
    pub fn receive(&self) -> io::Result<OwnedFd> {
        // The runtime has ended: what it did not connect and send by now will not come.
        let (stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
        let mut name = [0; 4096];
        let mut iov = [IoSliceMut::new(&mut name)];
        let mut space = nix::cmsg_space!(RawFd);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(sent) = control {
                // SAFETY: (why needed) recvmsg hands descriptors over as numbers. (why sound) the
                // kernel just made them for us and nobody else owns them; each is wrapped once.
                fds.extend(sent.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        fds.pop().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // Absent only if the bundle is gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// Sets a terminal's size in characters (TIOCSWINSZ, ioctl_tty(2)).
///
/// # Errors
/// What the kernel said.
pub fn resize(master: &impl AsRawFd, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: (why needed) nix has no wrapper. (why sound) the kernel reads one winsize through a
    // valid pointer; the descriptor is open.
    let done = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

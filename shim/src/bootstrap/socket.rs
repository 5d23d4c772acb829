//! The socket of a group's shim.
//!
//! Decides its path, and which of two shims that start at once gets it: the one that binds. A socket
//! that nobody listens on is left over from a dead shim and is replaced. Must not serve.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use sha2::{Digest, Sha256};

/// Where shims' sockets are unless containerd says otherwise.
const SOCKET_DIR: &str = "/run/containerd/s";
/// The longest path that a socket address holds, with its terminating zero (unix(7)).
const PATH_LIMIT: usize = 107;

/// How long a socket may exist before it listens: between two system calls of its maker.
const BIRTH_LOOKS: u32 = 4;
const BIRTH_PAUSE: Duration = Duration::from_millis(5);

/// No socket. Every variant names the path.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The directory leaves no room for the name.
    #[error(
        "shim socket path {path} is longer than {PATH_LIMIT} bytes; let containerd use a shorter socket directory",
        path = path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot {action} shim socket {path}: {source}", path = path.display())]
    Io {
        /// `bind`, `replace`, …
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A listening socket and its place in the filesystem.
#[derive(Debug)]
pub struct ShimSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl ShimSocket {
    /// The path for a group. The name is a hash, salted so that it is never that of another kind of
    /// shim: a group that is half ours must not be served by a shim that knows no GPUs.
    ///
    /// # Errors
    /// [`SocketError::TooLong`]
    pub fn path(
        dir: Option<&Path>,
        address: &str,
        namespace: &str,
        group: &str,
    ) -> Result<PathBuf, SocketError> {
        let hash = Sha256::digest(format!("berth\0{address}\0{namespace}\0{group}"));
        let mut name = String::with_capacity(64);
        for byte in hash {
            use std::fmt::Write;
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        let path = dir.unwrap_or(Path::new(SOCKET_DIR)).join(name);
        if path.as_os_str().len() > PATH_LIMIT {
            return Err(SocketError::TooLong { path });
        }
        Ok(path)
    }

    /// Listens at `path`; `None` when another shim already does.
    ///
    /// # Errors
    /// [`SocketError::Io`]
    pub fn bind(path: PathBuf) -> Result<Option<Self>, SocketError> {
        let error = |action| {
            let path = path.clone();
            move |source| SocketError::Io { action, path, source }
        };
        if let Some(dir) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(dir);
            made.map_err(error("make the directory of"))?;
        }
        let listener = match UnixListener::bind(&path) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => match replace_dead(&path) {
                Ok(Some(listener)) => listener,
                Ok(None) => return Ok(None),
                Err(source) => return Err(error("replace")(source)),
            },
            other => other.map_err(error("bind"))?,
        };
        Self::around(listener, path).map(Some)
    }

    /// Wraps a socket that already listens at `path`.
    ///
    /// # Errors
    /// [`SocketError::Io`]
    pub fn around(listener: UnixListener, path: PathBuf) -> Result<Self, SocketError> {
        let made = listener
            .set_nonblocking(true)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
            .and_then(|()| Ok(fs::metadata(&path)?.ino()));
        match made {
            Ok(inode) => Ok(Self { listener, path, inode }),
            Err(source) => Err(SocketError::Io { action: "set up", path, source }),
        }
    }

    /// The listener itself.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Takes the socket out of the filesystem, if it is still this one: a shim that has been replaced
    /// must not take its successor's.
    pub fn remove(&self) {
        if fs::metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Replaces a socket that nobody listens on; `None` when somebody does. One at a time on this host, for
/// of two that see the same dead socket the second would remove what the first has just bound.
fn replace_dead(path: &Path) -> io::Result<Option<UnixListener>> {
    if !is_dead(path) {
        return Ok(None);
    }
    let dir = File::open(path.parent().unwrap_or(Path::new("/")))?;
    let _one_at_a_time =
        Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
    for _ in 0..BIRTH_LOOKS {
        if !is_dead(path) {
            return Ok(None);
        }
        // It may have been bound a moment ago and not listen yet.
        std::thread::sleep(BIRTH_PAUSE);
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match UnixListener::bind(path) {
        // Somebody else was faster, and is alive.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        other => other.map(Some),
    }
}

/// Whether nobody listens at `path` any more. Never waits: a shim whose queue is full is alive.
pub fn is_dead(path: &Path) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let connected = socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .and_then(|fd| connect(fd.as_raw_fd(), &UnixAddr::new(path)?));
    matches!(connected, Err(Errno::ENOENT | Errno::ECONNREFUSED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_socket_is_found_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = ShimSocket::path(Some(dir.path()), "/c.sock", "ns", "g").expect("short enough");
        let first = ShimSocket::bind(path.clone()).expect("free").expect("ours");
        assert!(ShimSocket::bind(path.clone()).expect("taken").is_none());
        drop(first);
        assert!(is_dead(&path));
        let second = ShimSocket::bind(path.clone()).expect("left over").expect("replaced");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        second.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_replaced_shim_leaves_its_successors_socket() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("s");
        let old = ShimSocket::bind(path.clone()).expect("free").expect("ours");
        fs::rename(&path, dir.path().join("moved")).expect("movable");
        let _new = ShimSocket::bind(path.clone()).expect("free").expect("ours");
        old.remove();
        assert!(path.exists());
    }

    #[test]
    fn paths_differ_by_every_part_and_have_a_limit() {
        let path = |a, n, g| ShimSocket::path(None, a, n, g).expect("short enough");
        let all = [
            path("a", "n", "g"),
            path("b", "n", "g"),
            path("a", "m", "g"),
            path("a", "n", "h"),
            path("a", "ng", ""),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        let deep = PathBuf::from(format!("/{}", "d".repeat(60)));
        assert!(matches!(
            ShimSocket::path(Some(&deep), "a", "n", "g"),
            Err(SocketError::TooLong { .. })
        ));
    }
}

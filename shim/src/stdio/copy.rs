//! Moving bytes from one descriptor to another without blocking and, between pipes, without touching
//! them (splice(2)).
//!
//! Decides which side to wait for. Must not know what the descriptors are for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ready::{set_nonblocking, watch};

/// The most that one splice moves: a default pipe's capacity.
const SPLICE_CHUNK: usize = 64 * 1024;
/// Buffer for descriptors that cannot be spliced.
const BUFFER: usize = 8 * 1024;

/// Registers a descriptor with the event loop, made non-blocking.
///
/// # Errors
/// What the kernel said; EPERM for a regular file, which is always ready.
pub fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    set_nonblocking(&fd)?;
    watch(fd, interest)
}

/// Moves everything from `source` to `sink` until the source ends.
///
/// # Errors
/// EPIPE when the sink's reader is gone; whatever else the kernel said.
pub async fn splice_all(source: &AsyncFd<OwnedFd>, sink: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = source.readable().await?;
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
        match splice(source, None, sink, None, SPLICE_CHUNK, flags) {
            Ok(0) => return Ok(()),
            // Others want their turn, too: a busy container must not own the loop.
            Ok(_) => tokio::task::yield_now().await,
            Err(Errno::EINTR) => {}
            // EAGAIN does not say which side it was.
            Err(Errno::EAGAIN) if is(source.as_fd(), PollFlags::POLLIN) => {
                wait_writable(sink).await?
            }
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Copies from `source` to a sink that cannot be spliced to, or from one that cannot be spliced from,
/// until the source ends. EIO is how a terminal says so.
///
/// # Errors
/// EPIPE when the sink's reader is gone; whatever else the kernel said.
pub async fn copy_all(source: &AsyncFd<OwnedFd>, sink: &Sink<'_>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut ready = source.readable().await?;
        match read(source, &mut buffer) {
            Ok(0) | Err(Errno::EIO) => return Ok(()),
            Ok(count) => sink.write_all(&buffer[..count]).await?,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Where [`copy_all`] writes.
pub enum Sink<'a> {
    /// A descriptor that may have to be waited for.
    Waiting(&'a AsyncFd<OwnedFd>),
    /// A regular file.
    Ready(BorrowedFd<'a>),
    /// Nothing: what is read is forgotten.
    Nowhere,
}

impl Sink<'_> {
    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self {
                Self::Waiting(fd) => write(fd, bytes),
                Self::Ready(fd) => write(fd, bytes),
                Self::Nowhere => return Ok(()),
            };
            match (written, self) {
                (Ok(count), _) => bytes = &bytes[count..],
                (Err(Errno::EINTR), _) => {}
                (Err(Errno::EAGAIN), Self::Waiting(fd)) => wait_writable(fd).await?,
                (Err(errno), _) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// Waits until `sink` takes more.
async fn wait_writable(sink: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut ready = sink.writable().await?;
    if !is(sink.as_fd(), PollFlags::POLLOUT) {
        // What the loop remembers is old; the next call waits for news.
        ready.clear_ready();
    }
    Ok(())
}

/// Whether the descriptor is ready for `wanted` right now.
fn is(fd: BorrowedFd<'_>, wanted: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, wanted)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write, pipe};

    fn on_a_loop<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    /// Writes 1 MiB in odd pieces through two pipes with a slow reader: nothing may be lost.
    #[test]
    fn splicing_keeps_order_under_backpressure() {
        let (in_reader, mut in_writer) = pipe().expect("a pipe");
        let (mut out_reader, out_writer) = pipe().expect("a pipe");
        let sent: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
        let wanted = sent.clone();
        let feeder = std::thread::spawn(move || {
            for piece in sent.chunks(4097) {
                in_writer.write_all(piece).expect("the copier reads");
            }
        });
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            out_reader.read_to_end(&mut got).expect("readable");
            got
        });
        on_a_loop(async {
            let source = register(in_reader.into(), Interest::READABLE).expect("a pipe");
            let sink = register(out_writer.into(), Interest::WRITABLE).expect("a pipe");
            splice_all(&source, &sink).await.expect("copied");
        });
        feeder.join().expect("fed");
        assert!(reader.join().expect("read") == wanted, "bytes were lost or reordered");
    }

    #[test]
    fn a_reader_that_leaves_ends_the_copy() {
        let (in_reader, mut in_writer) = pipe().expect("a pipe");
        let (out_reader, out_writer) = pipe().expect("a pipe");
        drop(out_reader);
        in_writer.write_all(b"x").expect("room");
        let error = on_a_loop(async {
            let source = register(in_reader.into(), Interest::READABLE).expect("a pipe");
            let sink = register(out_writer.into(), Interest::WRITABLE).expect("a pipe");
            splice_all(&source, &sink).await.expect_err("nobody reads")
        });
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

//! One stream of one process, moved by a task of its own.
//!
//! Decides when a stream is drained (the container's side has ended and every byte has been handed
//! on) and when a fifo may be closed (once its reader has taken all of it, so that bytes which wait
//! for a restarting containerd are not lost with the last descriptor). Must not decide when to stop
//! waiting for either.

use std::fs::File;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::warn;

use super::copy::{Sink, copy_all, register, splice_all};
use super::fifo::Target;

/// The longest pause between two looks at a fifo that nobody reads.
const LINGER_STEP: Duration = Duration::from_millis(250);
/// What is said once when output cannot be handed on.
const DISCARDED: &str = "cannot hand on a container's output; it is discarded from now on";
/// Stack of a thread that writes a log file.
const THREAD_STACK: usize = 64 * 1024;

/// A moving stream. Dropping it stops the task.
#[derive(Debug)]
pub struct Pump {
    task: Option<AbortHandle>,
    drained: oneshot::Receiver<()>,
}

impl Pump {
    /// From the container's pipe to its target.
    ///
    /// # Errors
    /// When the descriptors cannot be registered or a thread cannot be started.
    pub fn from_pipe(pipe: PipeReader, target: Target) -> io::Result<Self> {
        match target {
            Target::Pipe(fifo) => {
                let source = register(pipe.into(), Interest::READABLE)?;
                let fifo = register(fifo, Interest::WRITABLE)?;
                Ok(Self::spawn(async move |drained| {
                    let copied = splice_all(&source, &fifo).await;
                    discard_after(copied, &source).await;
                    drop((source, drained));
                    linger(&fifo).await;
                }))
            }
            Target::File(file) => Self::from_pipe_to_file(pipe, file),
        }
    }

    /// From a terminal's master to its target.
    ///
    /// # Errors
    /// When the target cannot be registered.
    pub fn from_terminal(master: Arc<AsyncFd<OwnedFd>>, target: Target) -> io::Result<Self> {
        match target {
            Target::Pipe(fifo) => {
                let fifo = register(fifo, Interest::WRITABLE)?;
                Ok(Self::spawn(async move |drained| {
                    let copied = copy_all(&master, &Sink::Waiting(&fifo)).await;
                    discard_after(copied, &master).await;
                    drop((master, drained));
                    linger(&fifo).await;
                }))
            }
            Target::File(file) => Ok(Self::spawn(async move |drained| {
                let copied = copy_all(&master, &Sink::Ready(file.as_fd())).await;
                discard_after(copied, &master).await;
                drop(drained);
            })),
        }
    }

    /// From an input fifo to the container's pipe, which ends with the fifo.
    ///
    /// # Errors
    /// When the descriptors cannot be registered.
    pub fn into_pipe(fifo: OwnedFd, pipe: OwnedFd) -> io::Result<Self> {
        let source = register(fifo, Interest::READABLE)?;
        let sink = register(pipe, Interest::WRITABLE)?;
        Ok(Self::spawn(async move |drained| {
            // The container may close its input whenever it likes.
            let _ = splice_all(&source, &sink).await;
            drop(drained);
        }))
    }

    /// From an input fifo to a terminal's master.
    ///
    /// # Errors
    /// When the fifo cannot be registered.
    pub fn into_terminal(fifo: OwnedFd, master: Arc<AsyncFd<OwnedFd>>) -> io::Result<Self> {
        let source = register(fifo, Interest::READABLE)?;
        Ok(Self::spawn(async move |drained| {
            let _ = copy_all(&source, &Sink::Waiting(&master)).await;
            drop(drained);
        }))
    }

    /// Waits until every byte has been handed on.
    pub async fn drained(&mut self) {
        // Either way it is over: nothing is ever sent, the sender goes.
        let _ = (&mut self.drained).await;
    }

    fn spawn<F>(work: impl FnOnce(oneshot::Sender<()>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, drained) = oneshot::channel();
        let task = tokio::spawn(work(sender)).abort_handle();
        Self { task: Some(task), drained }
    }

    /// A file may be slow or hang (a network share): it gets a thread, so that nothing else waits.
    /// The thread ends with the container's last writer.
    fn from_pipe_to_file(mut pipe: PipeReader, mut file: File) -> io::Result<Self> {
        let (sender, drained) = oneshot::channel::<()>();
        let copy = move || {
            if let Err(error) = io::copy(&mut pipe, &mut file) {
                warn!(%error, "{DISCARDED}");
                let _ = io::copy(&mut pipe, &mut io::sink());
            }
            drop(sender);
        };
        std::thread::Builder::new().name("stdio".into()).stack_size(THREAD_STACK).spawn(copy)?;
        Ok(Self { task: None, drained })
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Goes on reading what cannot be handed on: a container must not be stopped or ended by a full disk that
/// is not its own, or by a logger that has died.
async fn discard_after(copied: io::Result<()>, source: &AsyncFd<OwnedFd>) {
    if let Err(error) = copied {
        warn!(%error, "{DISCARDED}");
        // Fails at once if it was the source that failed.
        let _ = copy_all(source, &Sink::Nowhere).await;
    }
}

/// Keeps the fifo until its reader has taken everything. A pipe that holds bytes loses them with its
/// last descriptor, and a reader that is about to come back would find nothing.
async fn linger(fifo: &AsyncFd<OwnedFd>) {
    let mut pause = Duration::from_millis(1);
    while unread(fifo.get_ref()) > 0 {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LINGER_STEP);
    }
}

/// Bytes in a pipe (FIONREAD, pipe(7)).
fn unread(fd: &OwnedFd) -> i32 {
    let mut count = 0;
    // SAFETY: (why needed) nix has no wrapper for FIONREAD. (why sound) the kernel writes one int
    // through a valid pointer; the descriptor is open.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) } < 0 {
        0
    } else {
        count
    }
}

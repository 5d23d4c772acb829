//! `binary://` loggers: a program that gets the container's output as descriptors 3 and 4 and says
//! that it is ready by closing 5 (containerd's pluggable logging).
//!
//! Decides how a logger is started, awaited and ended. Must not read what it logs.

use std::io::{self, PipeReader, PipeWriter, pipe};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::Interest;
use tracing::warn;

use super::copy::register;
use super::uri::Program;
use super::{Client, StdioError};
use crate::process::Spawned;

/// How long a logger may take to say that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to end by itself once its input has ended.
const END_GRACE: Duration = Duration::from_secs(1);
/// How long it may take to end once told to; with containerd's own shim it is the same.
pub const TERM_GRACE: Duration = Duration::from_secs(12);

/// A running logger.
#[derive(Debug)]
pub struct Logger {
    /// `None` once it has been taken care of.
    process: Option<Spawned>,
}

impl Logger {
    /// Starts `program` and waits until it is ready. Returns it and the ends to write to.
    ///
    /// # Errors
    /// [`StdioError::Logger`] when it does not start or does not get ready; it is gone then.
    pub async fn start(
        program: Program,
        client: Client<'_>,
    ) -> Result<(Self, PipeWriter, PipeWriter), StdioError> {
        let failed = |problem: String| StdioError::Logger { binary: program.path.clone(), problem };
        let pipes = || io::Result::Ok((pipe()?, pipe()?, pipe()?));
        let ((out_r, out_w), (err_r, err_w), (ready_r, ready_w)) =
            pipes().map_err(|e| failed(format!("has no pipes: {e}")))?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.args)
            .env_clear()
            .env("CONTAINER_ID", client.id)
            .env("CONTAINER_NAMESPACE", client.namespace)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let inherited = hand_over(&mut command, &out_r, &err_r, &ready_w);
        let inherited = inherited.map_err(|e| failed(format!("cannot be given its pipes: {e}")))?;
        let process = client.reaper.spawn(&mut command);
        drop((inherited, out_r, err_r, ready_w));
        let process = process.map_err(|e| failed(format!("cannot be started: {e}")))?;
        let logger = Self { process: Some(process) };
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let limit = client.patience.map_or(READY_TIMEOUT, |until| left(until).min(READY_TIMEOUT));
        match tokio::time::timeout(limit, ready(ready_r)).await {
            Ok(Ok(())) => Ok((logger, out_w, err_w)),
            Ok(Err(error)) => Err(failed(format!("cannot be awaited: {error}"))),
            Err(_) => Err(failed(format!("was not ready within {limit:?}"))),
        }
    }

    /// Ends the logger after its input has ended: waits, asks, and in the background insists.
    pub async fn end(mut self) {
        if let Some(mut process) = self.process.take()
            && tokio::time::timeout(END_GRACE, &mut process.exit).await.is_err()
        {
            insist(process);
        }
    }
}

/// A logger whose container came to nothing has nothing to write, and the shim may be gone in a moment.
impl Drop for Logger {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            end(&process);
        }
    }
}

/// Asks a logger to end, and in the background kills it if it does not. The shim's own end waits for that.
fn insist(mut process: Spawned) {
    // Unreaped while `exit` is pending, so the number is still its own; ESRCH cannot hurt.
    if process.exit.is_empty() {
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGTERM);
    }
    tokio::spawn(async move {
        if tokio::time::timeout(TERM_GRACE, &mut process.exit).await.is_err() {
            warn!(pid = process.pid, "logging binary does not end and is killed");
            end(&process);
        }
    });
}

/// Kills a logger with its helpers: it was made the leader of a group of its own.
fn end(process: &Spawned) {
    if process.exit.is_empty() {
        let _ = killpg(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
}

/// Arranges that the child gets the three descriptors as 3, 4 and 5. Returns copies above those
/// numbers that must live until it has been started.
fn hand_over(
    command: &mut Command,
    out: &PipeReader,
    err: &PipeReader,
    ready: &PipeWriter,
) -> io::Result<[OwnedFd; 3]> {
    const FIRST: i32 = 3;
    const ABOVE: i32 = 10;
    let copy = |fd: std::os::fd::BorrowedFd<'_>| -> io::Result<OwnedFd> {
        let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ABOVE))?;
        // SAFETY: (why needed) nix returns the copy as a number. (why sound) it is new and only ours.
        Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(copy) })
    };
    let copies = [copy(out.as_fd())?, copy(err.as_fd())?, copy(ready.as_fd())?];
    let numbers = [copies[0].as_raw_fd(), copies[1].as_raw_fd(), copies[2].as_raw_fd()];
    // SAFETY: (why needed) std can only hand on descriptors 0 to 2. (why sound) between fork and exec
    // only dup2(2) is called, which is async-signal-safe; the sources are above every target.
    unsafe {
        command.pre_exec(move || {
            for (target, source) in (FIRST..).zip(numbers) {
                if libc::dup2(source, target) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    Ok(copies)
}

/// Waits for a byte or the end.
async fn ready(pipe: PipeReader) -> io::Result<()> {
    let pipe = register(pipe.into(), Interest::READABLE)?;
    loop {
        let mut readable = pipe.readable().await?;
        match nix::unistd::read(&pipe, &mut [0]) {
            Err(nix::errno::Errno::EAGAIN) => readable.clear_ready(),
            Err(nix::errno::Errno::EINTR) => {}
            other => return other.map(drop).map_err(Into::into),
        }
    }
}

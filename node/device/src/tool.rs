//! The `berth` program as a child: what may be slow or hang is done there, one at a time for the node, and not for longer than it may.
//!
//! ```text
//! lock (bounded) ─► is it there by now? ─► child ─► its pipe and its pidfd, until the deadline ─► SIGKILL to its group
//! ```
//!
//! The child holds the lock as its standard input (an empty file), so that the lock outlives a caller that is killed, and a child that
//! hangs in the driver keeps others from hanging there, too. The caller may live in a process that reaps every child it has (the shim
//! does), so an exit status may be lost: what counts is what the child left behind. Decides what became of the child. Must not know what
//! it does.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::call;
use crate::error::{DeviceError, file};

/// Where the child looks for programs; NVML may start nvidia-modprobe.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of what the child says is kept: its last words.
const SAID: usize = 4096;

/// How often a held lock is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// How long a killed child may take to die before it is left to whoever reaps it.
const DYING: Duration = Duration::from_millis(500);

/// The `berth` program, which may load NVML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// Where it is: a path, or a name that is looked up beside the program that this is, then in `PATH`. So the shim and the tool that it
    /// runs are of one version wherever both are installed.
    pub program: PathBuf,
    /// `BERTH_CONFIG` for it: the configuration that this process uses, if that is not the default one.
    pub config: Option<PathBuf>,
    /// Longest time for one run.
    pub deadline: Duration,
}

/// What the child is to do.
#[derive(Debug, Clone, Copy)]
pub struct Errand<'a> {
    /// In words, after "to".
    pub task: &'static str,
    /// The program's arguments.
    pub args: &'a [&'a str],
    /// Held while it is done; the child has it as its standard input.
    pub lock: &'a Path,
}

impl Tool {
    /// Runs the child unless `done` has an answer by the time that the lock is held; then `done` must have one.
    ///
    /// # Errors
    /// When the lock is not to be had or the child cannot be started, does not end, or fails, with its last words; those of `done`.
    pub fn fetch<T>(
        &self,
        errand: &Errand<'_>,
        mut done: impl FnMut() -> Result<Option<T>, DeviceError>,
    ) -> Result<T, DeviceError> {
        let lock = self.lock(errand)?;
        if let Some(answer) = done()? {
            return Ok(answer);
        }
        let said = self.run(errand, &lock)?;
        done()?.ok_or_else(|| DeviceError::ToolFailed {
            program: self.program.clone(),
            task: errand.task,
            said: said.unwrap_or_else(|| "it left no answer and said nothing".to_owned()),
        })
    }

    /// Starts a child that is left to itself, with `held` as its standard input: whatever lock that is, the child has it until it ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn leave(
        &self,
        task: &'static str,
        args: &[&str],
        held: OwnedFd,
    ) -> Result<(), DeviceError> {
        let missing =
            |source| DeviceError::ToolMissing { program: self.program.clone(), task, source };
        let start = || {
            let mut command = self.command(args)?;
            command.stdin(Stdio::from(held)).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().map(drop)
        };
        start().map_err(missing)
    }

    fn command(&self, args: &[&str]) -> io::Result<Command> {
        let program = self.found()?;
        // A child that fails to become the program is waited for inside std, which panics where another has reaped it: find out before.
        nix::unistd::access(&program, nix::unistd::AccessFlags::X_OK)?;
        let mut command = Command::new(program);
        command.args(args).env_clear().env("PATH", PATH).current_dir("/").process_group(0);
        if let Some(config) = &self.config {
            command.env("BERTH_CONFIG", config);
        }
        Ok(command)
    }

    fn found(&self) -> io::Result<PathBuf> {
        if self.program.components().count() != 1 || self.program.is_absolute() {
            return Ok(self.program.clone());
        }
        let own = std::env::current_exe()?;
        found_in(own.parent().into_iter().chain(PATH.split(':').map(Path::new)), &self.program)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn lock(&self, errand: &Errand<'_>) -> Result<File, DeviceError> {
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(true).mode(0o600);
        let opened = open.custom_flags(libc::O_NOFOLLOW).open(errand.lock);
        let lock = opened.map_err(file("open the lock", errand.lock))?;
        let end = Instant::now() + self.deadline;
        while !call::try_lock(&lock).map_err(file("lock", errand.lock))? {
            if Instant::now() >= end {
                let (task, path) = (errand.task, errand.lock.into());
                return Err(DeviceError::ToolBusy { task, lock: path, deadline: self.deadline });
            }
            std::thread::sleep(RETRY);
        }
        Ok(lock)
    }

    /// Runs the child to its end and returns what it said.
    fn run(&self, errand: &Errand<'_>, lock: &File) -> Result<Option<String>, DeviceError> {
        let missing = |source| DeviceError::ToolMissing {
            program: self.program.clone(),
            task: errand.task,
            source,
        };
        let (child, pipe) = self.spawn(errand, lock).map_err(missing)?;
        let mut watched =
            Watched { pid: child.id(), pidfd: None, pipe, open: true, said: Vec::new() };
        // Absent only if another has reaped it already; then the end of its pipe tells.
        watched.pidfd = call::pidfd_open(child.id()).ok();
        let ended = watched.until(Instant::now() + self.deadline).map_err(missing)?;
        if !ended {
            watched.kill();
            return Err(DeviceError::ToolSlow {
                program: self.program.clone(),
                task: errand.task,
                deadline: self.deadline,
                said: watched.words().map(|words| format!(": {words}")).unwrap_or_default(),
            });
        }
        match watched.failure() {
            Some(how) => Err(DeviceError::ToolFailed {
                program: self.program.clone(),
                task: errand.task,
                said: watched.words().unwrap_or(how),
            }),
            None => Ok(watched.words()),
        }
    }

    fn spawn(&self, errand: &Errand<'_>, lock: &File) -> io::Result<(Child, PipeReader)> {
        let mut command = self.command(errand.args)?;
        let (reader, writer) = io::pipe()?;
        command.stdin(Stdio::from(lock.try_clone()?));
        command.stdout(writer.try_clone()?).stderr(writer);
        // Only here do our copies of the pipe's other end close.
        Ok((command.spawn()?, reader))
    }
}

/// The first file of this name in these folders.
fn found_in<'a>(mut folders: impl Iterator<Item = &'a Path>, name: &Path) -> Option<PathBuf> {
    folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()))
}

/// A child that is watched through what cannot be taken away: its pipe and its pidfd.
struct Watched {
    pid: u32,
    pidfd: Option<OwnedFd>,
    pipe: PipeReader,
    open: bool,
    said: Vec<u8>,
}

impl Watched {
    /// Waits for its end, listening. False when the time was over first.
    fn until(&mut self, end: Instant) -> io::Result<bool> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if !self.open && self.pidfd.is_none() {
                // Nothing is left that could tell more.
                return Ok(true);
            }
            let Ready { pipe, ended } = self.ready(left)?;
            if ended && !pipe {
                // It has ended and all is heard: what it may have started does not count.
                return Ok(true);
            } else if left.is_zero() {
                return Ok(false);
            } else if pipe {
                self.listen()?;
            }
        }
    }

    fn ready(&self, wait: Duration) -> io::Result<Ready> {
        // Rounded up, lest the last millisecond be spun away.
        let millis = wait.as_micros().div_ceil(1000).min(60_000);
        let timeout =
            PollTimeout::try_from(i32::try_from(millis).unwrap_or(0)).unwrap_or(PollTimeout::ZERO);
        let pipe = self.open.then(|| self.pipe.as_fd());
        let watched: Vec<BorrowedFd<'_>> =
            pipe.into_iter().chain(self.pidfd.as_ref().map(AsFd::as_fd)).collect();
        let mut fds: Vec<PollFd<'_>> =
            watched.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
        let pipe = self.open && ready.next().unwrap_or(false);
        Ok(Ready { pipe, ended: ready.next().unwrap_or(false) })
    }

    fn listen(&mut self) -> io::Result<()> {
        let mut chunk = [0; SAID];
        match self.pipe.read(&mut chunk) {
            Ok(0) => self.open = false,
            Ok(read) => {
                self.said.extend_from_slice(&chunk[..read]);
                let surplus = self.said.len().saturating_sub(SAID);
                self.said.drain(..surplus);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Its last words, on one line.
    fn words(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.said);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let words = words.strip_prefix("berth: ").unwrap_or(&words);
        (!words.is_empty()).then(|| words.to_owned())
    }

    /// Kills its group while it is certain to be its own: as long as the leader lives, its number is nobody else's.
    fn kill(&mut self) {
        let alive =
            |watched: &Self| matches!(watched.ready(Duration::ZERO), Ok(ready) if !ready.ended);
        if self.pidfd.is_some()
            && alive(self)
            && let Ok(pid) = i32::try_from(self.pid)
        {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        self.open = false;
        let _ = self.ready(DYING);
        let _ = self.failure();
    }

    /// Reaps it, and says how it failed if that can still be known.
    fn failure(&self) -> Option<String> {
        let pidfd = self.pidfd.as_ref()?;
        match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::Exited(_, 0)) => None,
            Ok(WaitStatus::Exited(_, code)) => Some(format!("it exited with {code}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(format!("{signal} killed it")),
            // Not dead yet, or reaped by another.
            _ => None,
        }
    }
}

struct Ready {
    pipe: bool,
    ended: bool,
}

#[cfg(test)]
mod tests;

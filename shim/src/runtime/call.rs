//! One call of an OCI runtime: a child with a deadline.
//!
//! Decides how the child lives: in a process group of its own, so that a deadline ends whatever it
//! started and has not yet handed over; killed with the shim, so that a dead shim leaves no half-done
//! create running; with the shim's environment less what would change its meaning. Its last words come
//! from a log file of its own where its stderr is the container's, else from its stderr. Must not know
//! verbs.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::ChildStdio;
use super::error::{RuntimeError, last_words};
use super::memory::MemoryPolicy;
use crate::process::{Reaper, Spawned};

/// How long a killed child may take to be gone before it is left to the reaper.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// The most of a runtime's log that is read for its last words: its end, since the last error is what counts.
const LOG_LIMIT: u64 = 64 * 1024;

/// A call that is ready to be made.
#[derive(Debug)]
pub struct Call {
    id: String,
    verb: &'static str,
    command: Command,
    deadline: Duration,
    words: Words,
}

/// Where the child's last words are found.
#[derive(Debug)]
enum Words {
    /// In memory rather than through a pipe, which would hold up a runtime with much to say until its deadline.
    Stderr(File),
    File(PathBuf),
}

impl Call {
    /// A call whose stdio is its own: nothing in, nothing out, words on stderr.
    pub fn quiet(
        command: Command,
        verb: &'static str,
        id: &str,
        deadline: Duration,
    ) -> io::Result<Self> {
        let words = File::from(memfd_create(c"words", MFdFlags::MFD_CLOEXEC)?);
        let mut command = isolated(command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words.try_clone()?);
        Ok(Self { id: id.to_owned(), verb, command, deadline, words: Words::Stderr(words) })
    }

    /// A call that hands its stdio on to a container and writes its words to the file `log`.
    pub fn launching(
        command: Command,
        verb: &'static str,
        id: &str,
        deadline: Duration,
        stdio: ChildStdio,
        log: PathBuf,
    ) -> Self {
        let mut command = isolated(command);
        command.stdin(stdio.stdin).stdout(stdio.stdout).stderr(stdio.stderr);
        Self { id: id.to_owned(), verb, command, deadline, words: Words::File(log) }
    }

    /// Replaces the child's standard input.
    pub fn stdin(mut self, stdin: impl Into<OwnedFd>) -> Self {
        self.command.stdin(Stdio::from(stdin.into()));
        self
    }

    /// Gives the child, and so whatever it launches, a memory policy.
    pub fn memory(mut self, policy: Option<&MemoryPolicy>) -> Self {
        if let Some(policy) = policy {
            policy.before_exec(&mut self.command);
        }
        self
    }

    /// Runs the child to its end or its deadline.
    ///
    /// # Errors
    /// [`RuntimeError`]; the child is gone in every case, or killed and about to be.
    pub async fn run(mut self, reaper: &Reaper) -> Result<(), RuntimeError> {
        let binary = self.command.get_program().to_string_lossy().into_owned();
        let spawned = reaper.spawn(&mut self.command);
        // The command holds the parent's copies of the container's stdio: they must go now, or the
        // container's pipes never end.
        drop(self.command);
        let mut child = spawned.map_err(|source| RuntimeError::Spawn {
            id: self.id.clone(),
            binary: binary.clone(),
            verb: self.verb,
            source,
        })?;
        let Ok(ended) = tokio::time::timeout(self.deadline, &mut child.exit).await else {
            end_group(child).await;
            self.words.discard();
            return Err(RuntimeError::Deadline {
                id: self.id,
                binary,
                verb: self.verb,
                after: self.deadline,
            });
        };
        // The sender lives in the reaper's table until it has sent.
        let status = ended.map_or(255, |exit| exit.status);
        let words = self.words.read(status != 0);
        if status == 0 {
            return Ok(());
        }
        Err(RuntimeError::Failed { id: self.id, binary, status, message: last_words(&words) })
    }
}

impl Words {
    fn read(self, wanted: bool) -> String {
        match self {
            Self::Stderr(file) => {
                if wanted {
                    end_of(file)
                } else {
                    String::new()
                }
            }
            Self::File(path) => {
                let words = File::open(&path).ok().filter(|_| wanted).map(end_of);
                empty(&path);
                words.unwrap_or_default()
            }
        }
    }

    fn discard(self) {
        self.read(false);
    }
}

async fn end_group(child: Spawned) {
    // The child was made the leader of its own group; ESRCH means that it has just ended.
    let _ = killpg(Pid::from_raw(child.pid), Signal::SIGKILL);
    let _ = tokio::time::timeout(KILL_GRACE, child.exit).await;
}

fn isolated(mut command: Command) -> Command {
    let parent = nix::unistd::getpid();
    // runc treats NOTIFY_SOCKET as an order to proxy systemd's readiness into the container.
    command.process_group(0).env_remove("NOTIFY_SOCKET");
    // SAFETY: (why needed) only the child can ask to be killed with its parent. (why sound) between
    // fork and exec two system calls are made, both async-signal-safe; nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the request took effect.
            if nix::unistd::getppid() == parent {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        });
    }
    command
}

/// The last of what is in a file, all of it if that is short.
fn end_of(mut file: File) -> String {
    let mut bytes = Vec::new();
    let sought =
        file.seek(SeekFrom::End(-LOG_LIMIT.cast_signed())).or_else(|_| file.rewind().map(|()| 0));
    // What cannot be read are words that are missing.
    let _ = sought.and_then(|_| file.take(LOG_LIMIT).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Empties a log that the runtime had something to write to, so that it never grows. It is not removed:
/// the next launch would only have to make it again.
fn empty(path: &Path) {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > 0) {
        let _ = File::options().write(true).truncate(true).open(path);
    }
}

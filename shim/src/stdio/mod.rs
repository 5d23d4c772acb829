//! A process's stdio: between the fifos, files or logger that containerd names and the pipes or
//! terminal that the container gets.
//!
//! ```text
//! prepare() ──► Pending ──(runtime runs)──► start() ──► Streams ──► finish()
//!     opens every name        child ends         pumps run            drains, closes
//! ```
//!
//! Decides what each name means, and that a fifo's two ends are both held, so that output outlives its
//! reader and input ends only when it is closed on purpose. Must not know what runs in the container.

mod console;
mod copy;
mod fifo;
mod logger;
mod pump;
mod streams;
mod uri;

use std::io::{self, PipeReader, PipeWriter, Read, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use nix::unistd::{Gid, Uid, fchown};

use crate::process::Reaper;
use crate::ready::set_nonblocking;
use crate::runtime::ChildStdio;

use console::ConsoleSocket;
use fifo::{Source, Target};
use logger::Logger;
pub use logger::TERM_GRACE as LOGGER_GRACE;
pub use streams::Streams;
use uri::Scheme;

/// The most of a failed runtime's output that is repeated.
const WORDS_LIMIT: u64 = 4096;

/// What containerd asked for: names, each possibly empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StdioSpec {
    /// A fifo, or empty.
    pub stdin: String,
    /// A fifo, a file, or a `binary://` or `file://` URI; or empty.
    pub stdout: String,
    /// As stdout; its scheme does not count where stdout is a URI. Unused with a terminal.
    pub stderr: String,
    /// One pseudo-terminal instead of three streams.
    pub terminal: bool,
}

/// For whom stdio is prepared.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// containerd namespace, told to a logger.
    pub namespace: &'a str,
    /// Container or exec id, told to a logger.
    pub id: &'a str,
    /// The bundle, where a terminal's socket is put.
    pub bundle: &'a Path,
    /// Name of that socket, unique in the bundle.
    pub socket: &'a str,
    /// Owner of the pipes: the container's root user.
    pub owner: (u32, u32),
    /// Starts and collects loggers.
    pub reaper: &'a Reaper,
    /// Until when the caller waits, where it says: a logger has no longer to get ready.
    pub patience: Option<Instant>,
}

/// Stdio that cannot be had. Every variant names what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// A fifo or file that cannot be opened.
    #[error("cannot open {name:?} for the container's {stream}: {source}")]
    Open {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'static str,
        /// The path.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A URI of an unknown scheme.
    #[error("unknown STDIO scheme in {0:?}; use a fifo, file:///path or binary:///path?arg")]
    UnknownScheme(String),
    /// A logger that did not start or did not become ready.
    #[error("logging binary {binary:?} {problem}")]
    Logger {
        /// Its path.
        binary: PathBuf,
        /// What it did not do.
        problem: String,
    },
    /// Pipes, sockets or threads ran out.
    #[error("cannot set up the container's {what}: {source}")]
    Setup {
        /// What could not be made.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The runtime ended without handing over the terminal.
    #[error("the OCI runtime did not hand over the container's terminal: {0}")]
    NoTerminal(io::Error),
}

/// Stdio that is open on our side and not yet connected.
#[derive(Debug)]
pub struct Pending {
    child: Option<ChildStdio>,
    console: Option<ConsoleSocket>,
    input: Option<Input>,
    outputs: Vec<Output>,
    logger: Option<Logger>,
}

/// A fifo that feeds the container.
#[derive(Debug)]
struct Input {
    reader: OwnedFd,
    /// Holds the fifo's other end until containerd closes it on purpose.
    holder: OwnedFd,
    /// Our end of the container's pipe; `None` with a terminal.
    pipe: Option<PipeWriter>,
}

/// Where output goes, and our end of the pipe that it comes from (`None` with a terminal).
#[derive(Debug)]
struct Output {
    pipe: Option<PipeReader>,
    target: Target,
}

/// Opens everything that `spec` names and makes the container's ends.
///
/// # Errors
/// [`StdioError`]; whatever had been opened is closed.
pub async fn prepare(spec: &StdioSpec, client: Client<'_>) -> Result<Pending, StdioError> {
    let mut pending =
        Pending { child: None, console: None, input: None, outputs: Vec::new(), logger: None };
    let null = || ChildStdio { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() };
    let setup = |what| move |source| StdioError::Setup { what, source };
    let mut child = null();
    if spec.terminal {
        pending.console = Some(
            ConsoleSocket::bind(client.bundle, client.socket).map_err(setup("console socket"))?,
        );
    }
    if !spec.stdin.is_empty() {
        let source = Source::open(&spec.stdin).map_err(|source| StdioError::Open {
            stream: "stdin",
            name: spec.stdin.clone(),
            source,
        })?;
        match source {
            Source::File(file) => child.stdin = file.into(),
            Source::Fifo(reader, holder) => {
                let mut input = Input { reader, holder, pipe: None };
                if !spec.terminal {
                    let (ours, theirs) = pipe().map_err(setup("stdin pipe"))?;
                    give(&ours, client.owner).map_err(setup("stdin pipe"))?;
                    child.stdin = ours.into();
                    input.pipe = Some(theirs);
                }
                pending.input = Some(input);
            }
        }
    }
    match Scheme::of(&spec.stdout) {
        Scheme::Unknown => return Err(StdioError::UnknownScheme(spec.stdout.clone())),
        Scheme::Binary(program) => {
            let (logger, out, err) = Logger::start(program, client).await?;
            pending.logger = Some(logger);
            if spec.terminal {
                drop(err);
                pending.outputs.push(Output { pipe: None, target: Target::pipe(out) });
            } else {
                give(&out, client.owner).map_err(setup("logger's pipe"))?;
                give(&err, client.owner).map_err(setup("logger's pipe"))?;
                (child.stdout, child.stderr) = (out.into(), err.into());
            }
        }
        Scheme::File(path) => {
            let file = Target::log_file(&path).map_err(|source| StdioError::Open {
                stream: "stdout",
                name: spec.stdout.clone(),
                source,
            })?;
            let copy = file.try_clone().map_err(setup("log file"))?;
            pending.add_output(&mut child.stdout, file, spec.terminal, client.owner)?;
            if !spec.terminal {
                pending.add_output(&mut child.stderr, copy, false, client.owner)?;
            }
        }
        Scheme::Name => {
            let streams = [
                ("stdout", &spec.stdout, &mut child.stdout),
                ("stderr", &spec.stderr, &mut child.stderr),
            ];
            for (stream, name, slot) in streams {
                if name.is_empty() || (spec.terminal && stream == "stderr") {
                    continue;
                }
                let target = Target::open(name).map_err(|source| StdioError::Open {
                    stream,
                    name: name.clone(),
                    source,
                })?;
                pending.add_output(slot, target, spec.terminal, client.owner)?;
            }
        }
    }
    // With a terminal the runtime opens the container's ends itself.
    pending.child = Some(if spec.terminal { null() } else { child });
    Ok(pending)
}

impl Pending {
    /// The container's ends, once.
    pub fn take_child(&mut self) -> ChildStdio {
        self.child.take().unwrap_or_else(|| ChildStdio {
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        })
    }

    /// What has come out so far, unread by anybody: the last words of a runtime that failed before the
    /// container ran, where its stderr was already the container's.
    pub fn said(&self) -> String {
        let mut words = Vec::new();
        let pipes = self.outputs.iter().filter_map(|output| output.pipe.as_ref());
        for pipe in pipes {
            if set_nonblocking(pipe).is_ok() {
                // WouldBlock ends it: whoever still holds the other end cannot keep us.
                let _ = pipe.take(WORDS_LIMIT).read_to_end(&mut words);
            }
        }
        String::from_utf8_lossy(&words).trim().to_owned()
    }

    /// The name of the terminal's socket in the bundle, if a terminal was asked for.
    pub fn console_socket(&self) -> Option<&str> {
        self.console.as_ref().map(ConsoleSocket::name)
    }

    /// Connects both sides, after the runtime has succeeded.
    ///
    /// # Errors
    /// [`StdioError::NoTerminal`] when a terminal was asked for and none came.
    pub fn start(self) -> Result<Streams, StdioError> {
        Streams::start(self)
    }

    fn add_output(
        &mut self,
        slot: &mut Stdio,
        target: Target,
        terminal: bool,
        owner: (u32, u32),
    ) -> Result<(), StdioError> {
        let setup = |source| StdioError::Setup { what: "output pipe", source };
        let mut output = Output { pipe: None, target };
        if !terminal {
            let (ours, theirs) = pipe().map_err(setup)?;
            give(&theirs, owner).map_err(setup)?;
            *slot = theirs.into();
            output.pipe = Some(ours);
        }
        self.outputs.push(output);
        Ok(())
    }
}

/// Makes the pipe belong to the container's root, so that a process in a user namespace may reopen
/// it through `/dev/stdout`.
fn give(end: impl AsFd, (uid, gid): (u32, u32)) -> io::Result<()> {
    if (uid, gid) != (0, 0) {
        fchown(end, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

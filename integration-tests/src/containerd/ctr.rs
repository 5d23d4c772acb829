//! The `ctr` of a private containerd, run as a command.
//!
//! Decides only what every call has in common: the socket, the namespace, and that what goes wrong
//! shows what was said.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};

use crate::deadline::STUCK;

/// `ctr` in one namespace.
#[derive(Clone)]
pub struct Ctr {
    program: PathBuf,
    socket: PathBuf,
    namespace: String,
}

/// What a finished `ctr` said.
#[derive(Debug)]
pub struct Said {
    /// How it ended. Where it ran a container in the foreground: with that one's exit code.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// The exit code; -1 if a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

impl Ctr {
    /// The `ctr` at `program`, talking to `socket`.
    pub fn new(program: PathBuf, socket: PathBuf, namespace: &str) -> Self {
        Self { program, socket, namespace: namespace.to_owned() }
    }

    /// The namespace it works in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The command with `args`, its standard input closed, for callers that run it themselves. If
    /// it is stuck it is ended, and exits with code 124.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["--foreground", "--kill-after=5"])
            .arg(STUCK.as_secs().to_string())
            .arg(&self.program)
            .arg("--address")
            .arg(&self.socket)
            .arg("--namespace")
            .arg(&self.namespace)
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Said> {
        said(&mut self.command(args))
    }

    /// Runs it and wants success; gives its standard output.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn ok<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String> {
        let said = self.run(args)?;
        let words: Vec<_> = args.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        ensure!(said.status.success(), "ctr {}: {said:?}", words.join(" "));
        Ok(said.out)
    }

    /// The state of the task `id` as `ctr tasks ls` shows it (`RUNNING`, `STOPPED`, …); none if
    /// there is no such task.
    ///
    /// # Errors
    /// When the listing fails.
    pub fn task_state(&self, id: &str) -> Result<Option<String>> {
        let listing = self.ok(&["tasks", "ls"])?;
        let row = listing.lines().find(|line| line.split_whitespace().next() == Some(id));
        Ok(row.and_then(|line| line.split_whitespace().nth(2)).map(str::to_owned))
    }

    /// The pid of the task `id`.
    ///
    /// # Errors
    /// When there is no such task.
    pub fn task_pid(&self, id: &str) -> Result<i32> {
        let listing = self.ok(&["tasks", "ls"])?;
        let row = listing.lines().find(|line| line.split_whitespace().next() == Some(id));
        row.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .with_context(|| format!("no task {id} in:\n{listing}"))
    }

    /// The socket it talks to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Runs a command to its end and gives what it said.
///
/// # Errors
/// When it cannot be run at all.
pub fn said(command: &mut Command) -> Result<Said> {
    let output = command.output().context("run ctr")?;
    Ok(Said {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

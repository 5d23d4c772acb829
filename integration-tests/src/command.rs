//! Runs a program to its end without blocking the trial, and kills it when it is stuck. Must not know
//! what it is.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::deadline::{Process, STUCK};

/// What a program left.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout; with [`Joined::Yes`] its stderr too, as written.
    pub stdout: Vec<u8>,
    /// Its stderr, unless joined.
    pub stderr: Vec<u8>,
}

impl Finished {
    /// stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Whether stderr goes into the same pipe as stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// One pipe, as containerd reads `start`.
    Yes,
    /// Two pipes.
    No,
}

/// Runs `command` with `input` as its stdin. The output is read to its end: a daemon that keeps the pipe
/// open makes this fail, as it would make containerd wait.
pub async fn run(mut command: Command, input: Vec<u8>, joined: Joined) -> Result<Finished> {
    let name = format!("{command:?}");
    command.stdin(Stdio::piped());
    let (mut stdout, writer) = std::io::pipe()?;
    let errors = match joined {
        Joined::Yes => {
            command.stderr(writer.try_clone()?);
            None
        }
        Joined::No => {
            let (errors, writer) = std::io::pipe()?;
            command.stderr(writer);
            Some(errors)
        }
    };
    command.stdout(writer);
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    // Our copies of the writing ends live in `command`; reading would never end with them open.
    drop(command);
    let held = Process::open(child.id());
    let work = tokio::task::spawn_blocking(move || -> Result<Finished> {
        feed(&mut child, &input);
        let reader = errors.map(|mut errors| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                errors.read_to_end(&mut bytes).ok();
                bytes
            })
        });
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes)?;
        let stderr = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
        Ok(Finished { status: child.wait()?, stdout: bytes, stderr })
    });
    match tokio::time::timeout(STUCK, work).await {
        Ok(finished) => finished?,
        Err(_) => {
            held.inspect(|process| {
                process.signal(libc::SIGKILL);
            });
            bail!("stuck after {STUCK:?}: {name}")
        }
    }
}

/// A program that ends without reading its input is not an error here.
fn feed(child: &mut Child, input: &[u8]) {
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).ok();
    }
}

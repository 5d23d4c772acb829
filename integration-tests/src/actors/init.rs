//! A stand-in for a container's first process: a process with a mount namespace of its own that does nothing.
//!
//! Decides when it is ready to be armed: not before it has left the mount namespace that it was started in.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::scratch::MARK;

/// What it says when its mount namespace is its own.
const READY: &[u8] = b"ready\n";

/// A stand-in. Dropping it kills it.
#[derive(Debug)]
pub struct Init(Child);

impl Init {
    /// Starts one, by the actor program, and waits until it can be armed. `scratch` is where it belongs to.
    ///
    /// # Errors
    /// When it cannot be started, or has no mount namespace of its own.
    pub fn start(actor: &Path, scratch: &Path) -> Result<Self> {
        let mut command = Command::new(actor);
        command.arg("init").env(MARK, scratch).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut init = Self(command.spawn().context("starting a stand-in")?);
        let mut said = Vec::new();
        let pipe = init.0.stdout.take().context("its output is a pipe")?;
        pipe.take(READY.len() as u64).read_to_end(&mut said)?;
        ensure!(said == READY, "a stand-in is not ready: {}", String::from_utf8_lossy(&said));
        Ok(init)
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) {
        // Both fail only for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the stand-in itself does, until it is killed.
///
/// # Errors
/// When it cannot have a mount namespace of its own.
pub fn stand_in() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("leaving the mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .context("keeping mounts private")?;
    let mut out = std::io::stdout();
    out.write_all(READY)?;
    out.flush()?;
    loop {
        nix::unistd::pause();
    }
}

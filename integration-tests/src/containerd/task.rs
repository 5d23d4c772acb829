//! A container that ctr made, removed when dropped however the trial went.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::ctr::{Ctr, Said, said};
use super::{Containerd, leftovers, unique};
use crate::deadline::Process;
use crate::images;
use crate::machine::ProcessRow;
use crate::wait;

/// The runtime by its type, as users write it.
pub const BERTH: &str = "io.containerd.berth.v2";

/// The runtime type of the shim that came with containerd.
pub const RUNC: &str = "io.containerd.runc.v2";

/// A container with a unique name.
pub struct Task<'a> {
    /// Its id.
    pub id: String,
    /// The `ctr` that made it.
    pub ctr: Ctr,
    /// Its image, or the folder that is its root where `--rootfs` is among its flags.
    image: String,
    containerd: &'a Containerd,
}

impl<'a> Task<'a> {
    /// A name for a container, and what will clean up after it. Nothing is made yet.
    pub fn named(containerd: &'a Containerd, what: &str) -> Self {
        Self { id: unique(what), ctr: containerd.ctr(), image: images::BUSYBOX.into(), containerd }
    }

    /// The same of another image, or, with `--rootfs` among its flags, with that folder as its root.
    #[must_use]
    pub fn of(mut self, image: &str) -> Self {
        image.clone_into(&mut self.image);
        self
    }

    /// Runs a container in the background with `flags`, executing `command`.
    ///
    /// # Errors
    /// When ctr fails.
    pub fn detached(
        containerd: &'a Containerd,
        what: &str,
        flags: &[&str],
        command: &[&str],
    ) -> Result<Self> {
        let task = Self::named(containerd, what);
        task.start(flags, command)?;
        Ok(task)
    }

    /// Runs it in the background with `flags`, executing `command`.
    ///
    /// # Errors
    /// When ctr fails.
    pub fn start(&self, flags: &[&str], command: &[&str]) -> Result<()> {
        let flags: Vec<&str> = [&["--detach"], flags].concat();
        // Not closed: to a container with its stdin a fifo that would be the end of its input.
        let (unread, _keep) = std::io::pipe()?;
        let said = said(self.command(BERTH, &flags, command).stdin(unread))?;
        anyhow::ensure!(said.code() == 0, "ctr run --detach: {}", said.err);
        self.containerd.note_socket(self.containerd.namespace(), &self.id);
        Ok(())
    }

    /// The `ctr run` that would make it.
    pub fn command(&self, runtime: &str, flags: &[&str], command: &[&str]) -> Command {
        let fifos = self.fifos().to_string_lossy().into_owned();
        let mut args = vec!["run", "--runtime", runtime, "--fifo-dir", &fifos];
        args.extend(flags);
        args.extend([self.image.as_str(), self.id.as_str()]);
        args.extend(command);
        self.ctr.command(&args)
    }

    /// Runs the container in the foreground to its end.
    ///
    /// # Errors
    /// When ctr cannot be run at all.
    pub fn foreground(&self, runtime: &str, flags: &[&str], command: &[&str]) -> Result<Said> {
        said(&mut self.command(runtime, flags, command))
    }

    /// Runs `command` in the container to its end.
    ///
    /// # Errors
    /// When ctr cannot be run at all.
    pub fn exec(&self, command: &[&str]) -> Result<Said> {
        said(&mut self.exec_command(command))
    }

    /// The `ctr task exec` that would run `command` in the container.
    pub fn exec_command(&self, command: &[&str]) -> Command {
        let exec = unique("exec");
        let fifos = self.fifos().to_string_lossy().into_owned();
        let args = ["task", "exec", "--exec-id", &exec, "--fifo-dir", &fifos, &self.id];
        self.ctr.command(&[&args, command].concat())
    }

    /// Puts `text` into the container's standard input, where its shim holds it and its first
    /// process reads it.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn type_in(&self, text: &str) -> Result<()> {
        let pid = self.ctr.task_pid(&self.id)?;
        std::fs::write(format!("/proc/{pid}/fd/0"), text).context("write to a container's input")
    }

    /// Kills the running container, deletes it, and makes sure that nothing of it is left.
    ///
    /// # Errors
    /// When it cannot be ended, or left something.
    pub fn end(self) -> Result<()> {
        self.kill("SIGKILL")?;
        self.stopped()?;
        let code = self.delete()?;
        anyhow::ensure!(code == 137, "exit code {code} after SIGKILL");
        self.removed()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When ctr fails.
    pub fn kill(&self, signal: &str) -> Result<()> {
        self.ctr.ok(&["task", "kill", "--signal", signal, &self.id]).map(drop)
    }

    /// Its first process.
    ///
    /// # Errors
    /// When it has none.
    pub fn process(&self) -> Result<Process> {
        let pid = u32::try_from(self.ctr.task_pid(&self.id)?)?;
        Process::open(pid).with_context(|| format!("process {pid} of {} is gone", self.id))
    }

    /// The shim that serves it.
    ///
    /// # Errors
    /// When none does.
    pub fn shim(&self) -> Result<ProcessRow> {
        leftovers::shim_of(self.containerd, u32::try_from(self.ctr.task_pid(&self.id)?)?)
    }

    /// Waits until containerd knows that it has stopped.
    ///
    /// # Errors
    /// When it does not.
    pub fn stopped(&self) -> Result<()> {
        self.reaches("STOPPED")
    }

    /// Waits until `ctr tasks ls` shows it in `state`.
    ///
    /// # Errors
    /// When it never does.
    pub fn reaches(&self, state: &str) -> Result<()> {
        let mut seen = None;
        let reached = wait::until(state, || {
            seen = self.ctr.task_state(&self.id).ok().flatten();
            (seen.as_deref() == Some(state)).then_some(())
        });
        reached.with_context(|| format!("{} was last {seen:?}", self.id))
    }

    /// Deletes the stopped task and gives the exit code of its container, which ctr tells in a
    /// warning unless it is 0.
    ///
    /// # Errors
    /// When ctr fails.
    pub fn delete(&self) -> Result<i32> {
        let said = self.ctr.run(&["task", "delete", &self.id])?;
        anyhow::ensure!(said.code() == 0, "ctr task delete: {said:?}");
        let Some((_, rest)) = said.err.split_once("exit with non-zero exit code ") else {
            return Ok(0);
        };
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().with_context(|| format!("no exit code in {said:?}"))
    }

    /// Removes the container, and makes sure that nothing of it is left.
    ///
    /// # Errors
    /// When it cannot be removed or left something.
    pub fn removed(self) -> Result<()> {
        if self.ctr.ok(&["containers", "ls", "--quiet"])?.lines().any(|id| id == self.id) {
            self.ctr.ok(&["containers", "delete", &self.id])?;
        }
        leftovers::none_of(self.containerd, self.containerd.namespace(), &self.id)
    }

    /// Where its streams' fifos are.
    fn fifos(&self) -> PathBuf {
        self.containerd.scratch.path("fifos")
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        // All of them fail where the trial went well; each makes the next possible where it did
        // not.
        for args in [
            &["task", "resume", self.id.as_str()][..],
            &["task", "delete", "--force", self.id.as_str()],
            &["containers", "delete", self.id.as_str()],
        ] {
            let known = self.ctr.ok(&["containers", "ls", "--quiet"]);
            if !known.is_ok_and(|ids| ids.lines().any(|id| id == self.id)) {
                return;
            }
            let _ = self.ctr.run(args);
        }
    }
}

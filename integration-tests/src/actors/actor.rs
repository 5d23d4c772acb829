//! An actor: a process that does with the engine what a shim does, step by step, and dies where it is told.
//!
//! Decides how it is told and how it answers: one word for each step on its command line, one line for each on its output. The program is
//! `src/bin/berth-actor.rs`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};

use super::{Place, Prepared};
use crate::scratch::MARK;

/// A running actor. Dropping it kills it.
#[derive(Debug)]
pub struct Actor {
    child: Child,
    answers: BufReader<ChildStdout>,
}

/// How an actor ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// A line for each step that was finished.
    pub answers: Vec<String>,
    /// What it complained of.
    pub complaints: String,
}

impl Ended {
    /// The signal that killed it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// What follows this word in an answer.
    pub fn answer(&self, word: &str) -> Option<&str> {
        self.answers.iter().find_map(|line| line.strip_prefix(word)).map(str::trim)
    }
}

impl Place {
    /// Lets an actor take these steps with a container: `admit`, `dress`, `arm PID`, `undo`, `release ID`, `reconcile`, `wait`.
    /// `crash_at` is the crash point where it is to die.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn actor(
        &self,
        container: &Prepared,
        sandbox_init: Option<u32>,
        steps: &[&str],
        crash_at: Option<&str>,
    ) -> Result<Actor> {
        let mut command = Command::new(&self.actor);
        command.arg("play").arg(&container.id).arg(&container.bundle);
        command.arg(sandbox_init.map_or("-".to_owned(), |pid| pid.to_string()));
        command.args(steps.iter().flat_map(|step| step.split(' ')));
        command.env("BERTH_CONFIG", &self.gpus.config).env(MARK, self.gpus.folder());
        if let Some(point) = crash_at {
            command.env("BERTH_CRASH_AT", point);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting an actor")?;
        let answers = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        Ok(Actor { child, answers })
    }
}

impl Actor {
    /// The next answer, without its end of line; empty when it has ended.
    ///
    /// # Errors
    /// When its output cannot be read.
    pub fn next_answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Lets it go on from a `wait`.
    ///
    /// # Errors
    /// When it has ended.
    pub fn go_on(&mut self) -> Result<()> {
        let input = self.child.stdin.as_mut().context("its input is a pipe")?;
        Ok(input.write_all(b"\n")?)
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill()?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When what it said cannot be read.
    pub fn end(mut self) -> Result<Ended> {
        let mut said = String::new();
        self.answers.read_to_string(&mut said)?;
        let mut complaints = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut complaints)?;
        }
        let status = self.child.wait()?;
        let answers = said.lines().map(str::to_owned).collect();
        Ok(Ended { status, answers, complaints })
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Both fail only for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! State, Pids, Stats, Wait, CloseIO, ResizePty: what reads or touches stdio only, and waits for no turn.

use std::collections::BTreeSet;
use std::path::PathBuf;

use containerd_shim_protos::protobuf::well_known_types::any::Any;

use super::error::TaskError;
use super::lifecycle::Status;
use super::shim::Shim;
use crate::process::Exit;
use crate::stdio::StdioSpec;

/// What containerd wants to know of a process.
#[derive(Debug)]
pub struct State {
    /// Bundle of its container.
    pub bundle: PathBuf,
    /// Its PID; 0 before it is made.
    pub pid: i32,
    /// Where it is in its life.
    pub status: Status,
    /// What was asked for.
    pub stdio: StdioSpec,
    /// How it ended, if it has.
    pub exit: Option<Exit>,
}

impl Shim {
    /// The state of the init (`exec` empty) or of an exec.
    ///
    /// # Errors
    /// [`TaskError`] for unknown ids.
    pub fn state(&self, id: &str, exec: &str) -> Result<State, TaskError> {
        let container = self.container(id)?;
        let process = container.process(exec)?;
        // A frozen container freezes its execs.
        let status = match (container.init.lifecycle().status(), process.lifecycle().status()) {
            (frozen @ (Status::Paused | Status::Pausing), Status::Created | Status::Running) => {
                frozen
            }
            (_, status) => status,
        };
        Ok(State {
            bundle: container.bundle.clone(),
            pid: process.pid(),
            status,
            stdio: process.stdio.clone(),
            exit: process.exit(),
        })
    }

    /// Every process in the container's cgroup, with its exec id if it has one. Of a container that has
    /// ended and is not deleted yet, its init: containerd takes a shim whose answer is empty for a leaked
    /// one when it restarts, deletes the container and loses its exit status.
    ///
    /// # Errors
    /// [`TaskError::Cgroup`] when it is gone.
    pub fn pids(&self, id: &str) -> Result<Vec<(u32, Option<String>)>, TaskError> {
        let container = self.container(id)?;
        if container.is_unrestored() {
            return Ok(Vec::new());
        }
        let failed = |source| TaskError::Cgroup { id: id.to_owned(), source };
        let cgroup =
            container.cgroup.get().ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let ended = container.init.exit().is_some();
        let mut pids = match cgroup.processes() {
            // systemd removes a scope with its last process.
            Err(error) if ended && error.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
            other => other.map_err(failed)?,
        };
        if pids.is_empty() && ended {
            pids.insert(container.init.pid().cast_unsigned());
        }
        let execs = container.execs();
        let exec_of = |pid: u32| {
            execs.values().find(|e| e.process.pid().cast_unsigned() == pid).map(|e| e.id.clone())
        };
        Ok(pids.into_iter().map(|pid| (pid, exec_of(pid))).collect())
    }

    /// What the container has used.
    ///
    /// # Errors
    /// [`TaskError`] for an unknown id or a container without a cgroup.
    pub fn stats(&self, id: &str) -> Result<Any, TaskError> {
        let container = self.container(id)?;
        container.cgroup.get().map(crate::cgroup::Cgroup::metrics).ok_or_else(|| {
            TaskError::Cgroup { id: id.to_owned(), source: std::io::ErrorKind::NotFound.into() }
        })
    }

    /// Waits for the end of the init (`exec` empty) or of an exec.
    ///
    /// # Errors
    /// [`TaskError`] for unknown ids.
    pub async fn wait(&self, id: &str, exec: &str) -> Result<Exit, TaskError> {
        let process = self.container(id)?.process(exec)?;
        Ok(process.wait().await)
    }

    /// Lets the process's input end once its last writer has gone.
    ///
    /// # Errors
    /// [`TaskError`] for unknown ids.
    pub fn close_input(&self, id: &str, exec: &str) -> Result<(), TaskError> {
        let process = self.container(id)?.process(exec)?;
        process.close_input();
        Ok(())
    }

    /// Sets the size of the process's terminal; without one, nothing.
    ///
    /// # Errors
    /// [`TaskError`] for unknown ids, or in the kernel's words.
    pub fn resize(&self, id: &str, exec: &str, width: u32, height: u32) -> Result<(), TaskError> {
        let process = self.container(id)?.process(exec)?;
        let clip = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
        process
            .resize(clip(width), clip(height))
            .map_err(|source| TaskError::Resize { name: process.name.clone(), source })
    }
}

//! Start: a created container's init, or an exec, is let go.
//!
//! Decides that the start is told before the end, however soon the end comes.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use containerd_shim_protos::events::task::{TaskExecStarted, TaskStart};
use nix::sys::signal::Signal;
use tokio::sync::oneshot;

use super::container::{Container, Exec};
use super::create::read_pid;
use super::delete::NEVER_RAN;
use super::error::TaskError;
use super::exit;
use super::lifecycle::Verb;
use super::shim::Shim;
use crate::process::{Exit, Handle};
use crate::runtime::Launch;
use crate::stdio::{Client, prepare};

impl Shim {
    /// Starts the init (`exec` empty) or an exec. Returns its PID.
    ///
    /// # Errors
    /// [`TaskError`]; a container that could not be started stays created, an exec ends.
    pub async fn start(
        self: Arc<Self>,
        id: &str,
        exec: &str,
        patience: Option<Instant>,
    ) -> Result<i32, TaskError> {
        let container = self.container(id)?;
        if exec.is_empty() {
            self.start_init(&container, patience).await
        } else {
            let exec = container.exec(exec)?;
            self.start_exec(&container, &exec, patience).await
        }
    }

    async fn start_init(
        self: &Arc<Self>,
        container: &Arc<Container>,
        patience: Option<Instant>,
    ) -> Result<i32, TaskError> {
        let turn = container.init.turn(Verb::Start).await?;
        if let Some(origin) = &container.origin {
            self.restore(container, origin, patience).await?;
        } else {
            let started = container.runtime.start(&container.id, patience).await;
            started.map_err(|source| TaskError::Runtime {
                what: "OCI runtime start failed",
                source,
            })?;
        }
        let pid = container.init.pid();
        self.events.publish(&TaskStart {
            container_id: container.id.clone(),
            pid: pid.cast_unsigned(),
            ..TaskStart::default()
        });
        turn.succeed();
        Ok(pid)
    }

    async fn start_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exec: &Arc<Exec>,
        patience: Option<Instant>,
    ) -> Result<i32, TaskError> {
        let turn = exec.process.turn(Verb::Start).await?;
        // Counted before the init is looked at: an init that ends now waits for this exec's end.
        let running = container.exec_runs();
        if !container.init.lifecycle().is_alive() {
            return Err(TaskError::InitNotRunning { id: container.id.clone() });
        }
        let Launched { pid, handle, exit } = match self.launch_exec(container, exec, patience).await
        {
            Ok(launched) => launched,
            Err(error) => {
                // Whoever waits for it must not wait for ever.
                drop(turn);
                exec.process.reap();
                exec.process
                    .tell_exit(Exit { status: NEVER_RAN, at: std::time::SystemTime::now() });
                return Err(error);
            }
        };
        exec.process.set_started(pid, handle);
        self.events.publish(&TaskExecStarted {
            container_id: container.id.clone(),
            exec_id: exec.id.clone(),
            pid: pid.cast_unsigned(),
            ..TaskExecStarted::default()
        });
        turn.succeed();
        let (shim, container, exec) = (Arc::clone(self), Arc::clone(container), Arc::clone(exec));
        tokio::spawn(exit::follow_exec(shim, container, exec, exit, running));
        Ok(pid)
    }

    /// Runs the runtime, claims what it has made, and connects stdio.
    async fn launch_exec(
        &self,
        container: &Container,
        exec: &Exec,
        patience: Option<Instant>,
    ) -> Result<Launched, TaskError> {
        let files = LaunchFiles::take(container);
        let client = Client {
            namespace: &self.namespace,
            id: &exec.id,
            bundle: &container.bundle,
            socket: &files.socket,
            owner: container.io_owner,
            reaper: &self.reaper,
            patience,
        };
        let mut stdio = prepare(&exec.process.stdio, client).await?;
        let spec = exec.take_spec();
        files.write_spec(&engine::merge_exec(&container.admission, &spec)?)?;
        files.forget_pid()?;
        // Announced before the runtime runs: what ends at once must not be missed.
        let expectation = self.reaper.expect();
        let child = stdio.take_child();
        let launch = Launch {
            bundle: &container.bundle,
            pid_file: &files.pid,
            log: &files.log,
            console_socket: stdio.console_socket(),
            stdio: child,
            memory: container.memory.as_ref(),
            patience,
        };
        let ran = container.runtime.exec(&container.id, launch, files.spec.clone()).await;
        ran.map_err(|source| {
            files.clear_unfinished();
            let source = source.or_words(|| stdio.said());
            TaskError::Runtime { what: "OCI runtime exec failed", source }
        })?;
        let pid = read_pid(&container.bundle.join(&files.pid))?;
        let name = || exec.process.name.clone();
        let (handle, exit) = expectation.claim(pid).map_err(|source| TaskError::Watch {
            name: name(),
            pid,
            source,
        })?;
        let streams = stdio.start().inspect_err(|_| {
            // It runs, and nobody would ever hear of it; ESRCH if it has just ended.
            let kill = (Signal::SIGKILL as i32).cast_unsigned();
            let _ = handle.as_ref().map(|handle| handle.signal(kill));
        })?;
        exec.process.set_streams(streams);
        Ok(Launched { pid, handle, exit })
    }
}

/// A process that the runtime has made and that is held.
struct Launched {
    pid: i32,
    handle: Option<Handle>,
    exit: oneshot::Receiver<Exit>,
}

/// The files of one launch, in the bundle. They are used again by later launches, since making and
/// removing three files is a measurable part of an exec; there are as many sets as there have been
/// launches at once, and they go with the bundle. Numbered rather than named after the exec, whose id may
/// be as long as a file name.
struct LaunchFiles<'a> {
    container: &'a Container,
    slot: u32,
    spec: PathBuf,
    pid: String,
    log: String,
    socket: String,
}

impl<'a> LaunchFiles<'a> {
    fn take(container: &'a Container) -> Self {
        let slot = container.take_slot();
        let name = format!("exec-{slot}");
        Self {
            container,
            slot,
            spec: container.bundle.join(format!("{name}.json")),
            pid: format!("{name}.pid"),
            log: format!("{name}.log.json"),
            socket: format!("{name}.sock"),
        }
    }

    fn write_spec(&self, spec: &[u8]) -> Result<(), TaskError> {
        // Not truncated first: filesystems take that for a replacement and flush it to disk.
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let written = options.open(&self.spec).and_then(|mut file| {
            file.write_all(spec)?;
            file.set_len(spec.len() as u64)
        });
        written.map_err(|source| TaskError::File {
            action: "write",
            path: self.spec.clone(),
            source,
        })
    }
}

impl LaunchFiles<'_> {
    /// What an earlier launch left under the same name must not answer for a runtime that writes nothing.
    fn forget_pid(&self) -> Result<(), TaskError> {
        let path = self.container.bundle.join(&self.pid);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(TaskError::File { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// A runtime that was killed while it wrote its PID file leaves the unfinished one, which it would refuse to overwrite at the next
    /// launch (runc opens `.<name>` with O_EXCL before it renames it).
    fn clear_unfinished(&self) {
        // Absent nearly always.
        let _ = std::fs::remove_file(self.container.bundle.join(format!(".{}", self.pid)));
    }
}

impl Drop for LaunchFiles<'_> {
    fn drop(&mut self) {
        self.container.give_slot_back(self.slot);
    }
}

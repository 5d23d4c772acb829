//! runc's command line, which crun shares (`make test-crun` runs the suites with it).
//!
//! Decides flags and their order. Must not interpret what comes back.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Call, CreateSwitches, CriuPlaces, DumpSwitches, Launch, OciRuntime, RuntimeError};
use crate::options::RuntimeOptions;
use crate::process::Reaper;

/// runc or a runtime with the same command line.
#[derive(Debug, Clone)]
pub struct Runc {
    options: RuntimeOptions,
    root: PathBuf,
    reaper: Reaper,
}

impl Runc {
    /// A runtime for the containers of one namespace.
    pub fn new(options: RuntimeOptions, namespace: &str, reaper: Reaper) -> Self {
        let root = options.root.join(namespace);
        Self { options, root, reaper }
    }

    /// Whether systemd makes its cgroups.
    pub fn uses_systemd(&self) -> bool {
        self.options.systemd_cgroup
    }

    /// Where the runtime keeps its state of a container.
    pub fn state_of(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// Whether the runtime has state of a container, whole or half made.
    pub fn has_state(&self, id: &str) -> bool {
        self.state_of(id).exists()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.options.binary);
        command.arg("--root").arg(&self.root).args(["--log-format", "json"]);
        if self.options.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command
    }

    fn launch_deadline(&self, patience: Option<Instant>) -> Duration {
        shortened(self.options.launch_deadline, patience)
    }

    fn control_deadline(&self, patience: Option<Instant>) -> Duration {
        shortened(self.options.control_deadline, patience)
    }

    /// A call that launches nothing and runs no hooks: the verb, its flags, the container, what follows.
    async fn control(
        &self,
        verb: &'static str,
        flags: &[&str],
        id: &str,
        rest: &[&str],
        patience: Option<Instant>,
    ) -> Result<(), RuntimeError> {
        let mut command = self.command();
        command.arg(verb).args(flags).arg(id).args(rest);
        self.quiet(command, verb, id, self.control_deadline(patience))?.run(&self.reaper).await
    }

    fn quiet(
        &self,
        command: Command,
        verb: &'static str,
        id: &str,
        deadline: Duration,
    ) -> Result<Call, RuntimeError> {
        Call::quiet(command, verb, id, deadline).map_err(|source| RuntimeError::Prepare {
            id: id.to_owned(),
            verb,
            what: "its output",
            source,
        })
    }

    /// A call that hands its stdio to a new process of the container.
    async fn launch(
        &self,
        verb: &'static str,
        id: &str,
        launch: Launch<'_>,
        flags: impl FnOnce(&mut Command),
    ) -> Result<(), RuntimeError> {
        let log = launch.bundle.join(launch.log);
        let mut command = self.command();
        command.current_dir(launch.bundle).arg("--log").arg(&log).arg(verb);
        command.arg("--pid-file").arg(launch.pid_file);
        if let Some(socket) = launch.console_socket {
            command.arg("--console-socket").arg(socket);
        }
        flags(&mut command);
        command.arg(id);
        let deadline = self.launch_deadline(launch.patience);
        let call = Call::launching(command, verb, id, deadline, launch.stdio, log);
        call.memory(launch.memory).run(&self.reaper).await
    }
}

#[async_trait]
impl OciRuntime for Runc {
    async fn create(
        &self,
        id: &str,
        launch: Launch<'_>,
        switches: CreateSwitches,
    ) -> Result<(), RuntimeError> {
        let bundle = launch.bundle.to_owned();
        self.launch("create", id, launch, |command| {
            command.arg("--bundle").arg(bundle);
            if switches.no_pivot {
                command.arg("--no-pivot");
            }
            if switches.no_new_keyring {
                command.arg("--no-new-keyring");
            }
        })
        .await
    }

    async fn start(&self, id: &str, patience: Option<Instant>) -> Result<(), RuntimeError> {
        // It runs hooks, and so may take as long as a create.
        let mut command = self.command();
        command.args(["start", id]);
        self.quiet(command, "start", id, self.launch_deadline(patience))?.run(&self.reaper).await
    }

    async fn exec(
        &self,
        id: &str,
        launch: Launch<'_>,
        process: PathBuf,
    ) -> Result<(), RuntimeError> {
        self.launch("exec", id, launch, |command| {
            command.arg("--process").arg(process).arg("--detach");
        })
        .await
    }

    async fn kill(
        &self,
        id: &str,
        signal: u32,
        all: bool,
        patience: Option<Instant>,
    ) -> Result<(), RuntimeError> {
        let flags: &[&str] = if all { &["--all"] } else { &[] };
        self.control("kill", flags, id, &[&signal.to_string()], patience).await
    }

    async fn delete(
        &self,
        id: &str,
        force: bool,
        patience: Option<Instant>,
    ) -> Result<(), RuntimeError> {
        let flags: &[&str] = if force { &["--force"] } else { &[] };
        self.control("delete", flags, id, &[], patience).await
    }

    async fn pause(&self, id: &str, patience: Option<Instant>) -> Result<(), RuntimeError> {
        self.control("pause", &[], id, &[], patience).await
    }

    async fn resume(&self, id: &str, patience: Option<Instant>) -> Result<(), RuntimeError> {
        self.control("resume", &[], id, &[], patience).await
    }

    async fn update(
        &self,
        id: &str,
        resources: &[u8],
        patience: Option<Instant>,
    ) -> Result<(), RuntimeError> {
        let prepare = |source: std::io::Error| RuntimeError::Prepare {
            id: id.to_owned(),
            verb: "update",
            what: "its input",
            source,
        };
        // In memory rather than through a pipe, which could fill before anybody reads it.
        let input =
            memfd_create(c"resources", MFdFlags::MFD_CLOEXEC).map_err(|e| prepare(e.into()))?;
        let mut input = File::from(input);
        input.write_all(resources).and_then(|()| input.rewind()).map_err(prepare)?;
        let mut command = self.command();
        command.args(["update", "--resources", "-", id]);
        let call = self.quiet(command, "update", id, self.control_deadline(patience))?;
        call.stdin(input).run(&self.reaper).await
    }

    async fn checkpoint(
        &self,
        id: &str,
        places: CriuPlaces<'_>,
        switches: &DumpSwitches,
        patience: Option<Instant>,
    ) -> Result<(), RuntimeError> {
        let mut command = self.command();
        command.arg("checkpoint");
        put(&mut command, places);
        let flags = [
            ("--leave-running", switches.leave_running),
            ("--tcp-established", switches.open_tcp),
            ("--ext-unix-sk", switches.external_unix_sockets),
            ("--shell-job", switches.terminal),
            ("--file-locks", switches.file_locks),
        ];
        command.args(flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag));
        if !switches.cgroups_mode.is_empty() {
            command.args(["--manage-cgroups-mode", &switches.cgroups_mode]);
        }
        for namespace in &switches.empty_namespaces {
            command.args(["--empty-ns", namespace]);
        }
        command.arg(id);
        // All of the container's memory is written: it may take as long as a create.
        let deadline = self.launch_deadline(patience);
        self.quiet(command, "checkpoint", id, deadline)?.run(&self.reaper).await
    }

    async fn restore(
        &self,
        id: &str,
        launch: Launch<'_>,
        places: CriuPlaces<'_>,
        switches: CreateSwitches,
    ) -> Result<(), RuntimeError> {
        let bundle = launch.bundle.to_owned();
        self.launch("restore", id, launch, |command| {
            command.arg("--bundle").arg(bundle).arg("--detach");
            put(command, places);
            // Not `--no-subreaper`, which crun does not know: detached, nothing is left for runc to reap.
            if switches.no_pivot {
                command.arg("--no-pivot");
            }
        })
        .await
    }
}

/// Tells a runtime where criu and its files are. Not by `--criu`, which runc ignores since 1.2 and crun never knew; all look in `PATH`.
fn put(command: &mut Command, places: CriuPlaces<'_>) {
    command.arg("--image-path").arg(places.image).arg("--work-path").arg(places.work);
    if let Some(programs) = places.programs {
        command.env("PATH", with_first(programs));
    }
}

/// `PATH` with a folder in front.
fn with_first(folder: &Path) -> OsString {
    let mut path = folder.as_os_str().to_owned();
    if let Some(rest) = std::env::var_os("PATH").filter(|rest| !rest.is_empty()) {
        path.push(":");
        path.push(rest);
    }
    path
}

/// What is configured, or what is left of the caller's time if that is less.
fn shortened(configured: Duration, patience: Option<Instant>) -> Duration {
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    patience.map_or(configured, |until| left(until).min(configured))
}

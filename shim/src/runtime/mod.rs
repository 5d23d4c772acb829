//! The OCI runtime behind one small trait.
//!
//! Decides what the rest of the shim may ask of it. Must not know containerd.

mod call;
mod error;
mod memory;
mod outliving;
mod runc;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use async_trait::async_trait;

pub use call::Call;
pub use error::RuntimeError;
pub use memory::MemoryPolicy;
pub use outliving::no_launch_is_left;
pub use runc::Runc;

/// The container's side of its stdio, handed to the OCI runtime, which passes it on.
#[derive(Debug)]
pub struct ChildStdio {
    /// File descriptor 0.
    pub stdin: Stdio,
    /// File descriptor 1.
    pub stdout: Stdio,
    /// File descriptor 2.
    pub stderr: Stdio,
}

/// What create and exec have in common.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The bundle, which is also the working directory of the call.
    pub bundle: &'a Path,
    /// Where the runtime writes the new process's PID, relative to the bundle.
    pub pid_file: &'a str,
    /// Where it writes its log, relative to the bundle; used by nobody else meanwhile, empty afterwards.
    pub log: &'a str,
    /// Where it connects to with the terminal's master, relative to the bundle.
    pub console_socket: Option<&'a str>,
    /// The process's stdio.
    pub stdio: ChildStdio,
    /// Where its memory comes from, if that is not left alone.
    pub memory: Option<&'a MemoryPolicy>,
    /// Until when the caller waits, where it says; the configured deadline counts, too.
    pub patience: Option<Instant>,
}

/// Switches of create, and of restore as far as it has them.
#[derive(Debug, Clone, Copy, Default)]
pub struct CreateSwitches {
    /// `--no-pivot`
    pub no_pivot: bool,
    /// `--no-new-keyring`
    pub no_new_keyring: bool,
}

/// What criu is told of one checkpoint, as the runtime's command line has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DumpSwitches {
    /// The container is left running; else it ends with its checkpoint.
    pub leave_running: bool,
    /// `--tcp-established`
    pub open_tcp: bool,
    /// `--ext-unix-sk`
    pub external_unix_sockets: bool,
    /// `--shell-job`
    pub terminal: bool,
    /// `--file-locks`
    pub file_locks: bool,
    /// `--empty-ns`, once for each.
    pub empty_namespaces: Vec<String>,
    /// `--manage-cgroups-mode`; empty for the runtime's own choice.
    pub cgroups_mode: String,
}

/// Where criu finds and leaves its files.
#[derive(Debug, Clone, Copy)]
pub struct CriuPlaces<'a> {
    /// The checkpoint's image, a folder.
    pub image: &'a Path,
    /// Where it works and writes its log, a folder.
    pub work: &'a Path,
    /// A folder to look for criu in before `PATH`.
    pub programs: Option<&'a Path>,
}

/// An OCI runtime, as its command line describes it. Each call has a deadline of its own, which `patience`,
/// the caller's, may shorten; one that misses it is killed and reported.
#[async_trait]
pub trait OciRuntime: Send + Sync {
    /// `create`: everything is made, nothing of the container runs yet.
    async fn create(
        &self,
        id: &str,
        launch: Launch<'_>,
        switches: CreateSwitches,
    ) -> Result<(), RuntimeError>;
    /// `start`: the created container's first process is let go.
    async fn start(&self, id: &str, patience: Option<Instant>) -> Result<(), RuntimeError>;
    /// `exec`: one more process, from the process spec in `process` (a path).
    async fn exec(
        &self,
        id: &str,
        launch: Launch<'_>,
        process: PathBuf,
    ) -> Result<(), RuntimeError>;
    /// `kill`: a signal by number, to the init or to `all`.
    async fn kill(
        &self,
        id: &str,
        signal: u32,
        all: bool,
        patience: Option<Instant>,
    ) -> Result<(), RuntimeError>;
    /// `delete`: cgroups and state go; `force` kills first.
    async fn delete(
        &self,
        id: &str,
        force: bool,
        patience: Option<Instant>,
    ) -> Result<(), RuntimeError>;
    /// `pause`
    async fn pause(&self, id: &str, patience: Option<Instant>) -> Result<(), RuntimeError>;
    /// `resume`
    async fn resume(&self, id: &str, patience: Option<Instant>) -> Result<(), RuntimeError>;
    /// `update`, with the runtime spec's `linux.resources` as JSON.
    async fn update(
        &self,
        id: &str,
        resources: &[u8],
        patience: Option<Instant>,
    ) -> Result<(), RuntimeError>;
    /// `checkpoint`: the container's processes as files.
    async fn checkpoint(
        &self,
        id: &str,
        places: CriuPlaces<'_>,
        switches: &DumpSwitches,
        patience: Option<Instant>,
    ) -> Result<(), RuntimeError>;
    /// `restore`: a container made and running at once, from such files.
    async fn restore(
        &self,
        id: &str,
        launch: Launch<'_>,
        places: CriuPlaces<'_>,
        switches: CreateSwitches,
    ) -> Result<(), RuntimeError>;
}

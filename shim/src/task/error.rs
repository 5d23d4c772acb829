//! What a request may be answered with instead of success.
//!
//! Decides the words, each naming the object. Must not know status codes.

use std::io;
use std::path::PathBuf;

use oci_specs::BundleError;

use super::lifecycle::Illegal;
use crate::criu::NoCriu;
use crate::mount::MountError;
use crate::options::OptionsError;
use crate::runtime::RuntimeError;
use crate::stdio::StdioError;

impl From<engine::Denied> for TaskError {
    fn from(denied: engine::Denied) -> Self {
        match denied {
            engine::Denied::Refused(refusal) => Self::Refused(refusal),
            engine::Denied::Broken(fault) => Self::Fault(fault),
        }
    }
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// No such container in this shim.
    #[error("container {id:?} not created")]
    NoSuchContainer {
        /// Container id.
        id: String,
    },
    /// No such exec in the container.
    #[error("process does not exist {exec:?} in container {id:?}")]
    NoSuchProcess {
        /// Container id.
        id: String,
        /// Exec id.
        exec: String,
    },
    /// The container is there already, or being made.
    #[error("container {id:?} already exists")]
    ContainerExists {
        /// Container id.
        id: String,
    },
    /// The exec is there already.
    #[error("exec id {exec:?} already exists in container {id:?}")]
    ExecExists {
        /// Container id.
        id: String,
        /// Exec id.
        exec: String,
    },
    /// The shim has agreed to end.
    #[error("cannot create container {id:?}: the shim is shutting down; start a new one")]
    Stopping {
        /// Container id.
        id: String,
    },
    /// An id that would be a path.
    #[error("{id:?} is not a valid identifier: it must be a plain name")]
    BadIdentifier {
        /// The id.
        id: String,
    },
    /// The verb makes no sense now.
    #[error("{illegal}: {name}")]
    Illegal {
        /// Container, or container and exec.
        name: String,
        /// What and why not.
        illegal: Illegal,
    },
    /// A new process in a container whose init is not running.
    #[error("container {id:?} init process is not running")]
    InitNotRunning {
        /// Container id.
        id: String,
    },
    /// An exec in a container that is frozen.
    #[error("cannot exec in a paused state: container {id:?}")]
    Paused {
        /// Container id.
        id: String,
    },
    /// A signal to a process that has not been started.
    #[error("process not created: {name}")]
    NotStarted {
        /// Container and exec.
        name: String,
    },
    /// A signal to a process that has ended.
    #[error("process already finished: {name}")]
    Finished {
        /// Container, or container and exec.
        name: String,
    },
    /// A signal that could not be sent.
    #[error("cannot send signal {signal} to {name}: {source}")]
    Signal {
        /// Container, or container and exec.
        name: String,
        /// Its number.
        signal: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no bundle.
    #[error("cannot create container {id:?}: there is no bundle {path}", path = path.display())]
    NoSuchBundle {
        /// Container id.
        id: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The options cannot be used.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The root filesystem cannot be mounted or unmounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The stdio cannot be had.
    #[error(transparent)]
    Stdio(#[from] StdioError),
    /// The OCI runtime failed.
    #[error("{what}: {source}")]
    Runtime {
        /// In the words of containerd's own shim.
        what: &'static str,
        /// In the runtime's words.
        source: RuntimeError,
    },
    /// A file in the bundle could not be used.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File {
        /// `write`, `read`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process that the runtime reported cannot be watched.
    #[error("cannot watch process {pid} of {name}: {source}")]
    Watch {
        /// Container, or container and exec.
        name: String,
        /// Its PID.
        pid: i32,
        /// What the kernel said.
        source: io::Error,
    },
    /// A message field that is not the JSON that it should be.
    #[error("{what} of {name} is malformed: {source}")]
    Malformed {
        /// `process spec` or `resources`.
        what: &'static str,
        /// Container, or container and exec.
        name: String,
        /// Line, column and reason.
        source: serde_json::Error,
    },
    /// The container's cgroup cannot be read.
    #[error("cannot read the cgroup of container {id:?}: {source}")]
    Cgroup {
        /// Container id.
        id: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A terminal cannot be resized.
    #[error("cannot resize the terminal of {name}: {source}")]
    Resize {
        /// Container, or container and exec.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// What is in a GPU is in no checkpoint.
    #[error(
        "berth: cannot checkpoint container {id:?}: it holds a GPU (grant {grant}), and what is in a GPU's memory cannot be saved with it; let the program save its own state"
    )]
    GpuNotSaved {
        /// Container id.
        id: String,
        /// By which it holds the GPU.
        grant: engine::GrantId,
    },
    /// What was in a GPU is in no checkpoint.
    #[error(
        "berth: cannot restore container {id:?} from a checkpoint: it is to have a GPU, and what was in a GPU's memory is in no checkpoint; create it without its request for a GPU, or without the checkpoint"
    )]
    GpuNotRestored {
        /// Container id.
        id: String,
    },
    /// There is no criu to checkpoint or restore with.
    #[error("cannot {verb} container {id:?}: {source}")]
    NoCriu {
        /// Container id.
        id: String,
        /// `checkpoint` or `restore`.
        verb: &'static str,
        /// Which, and what helps.
        source: NoCriu,
    },
    /// A checkpoint cannot be written to, or read from, what was named.
    #[error("cannot {verb} container {id:?}: {problem}")]
    BadImage {
        /// Container id.
        id: String,
        /// `checkpoint` or `restore`.
        verb: &'static str,
        /// The path, and what is wrong with it.
        problem: String,
    },
    /// There is no checkpoint to restore from.
    #[error("cannot restore container {id:?}: there is no checkpoint in {path}: {source}", path = path.display())]
    NoSuchImage {
        /// Container id.
        id: String,
        /// Where its first file should be.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The engine said no.
    #[error(transparent)]
    Refused(#[from] engine::Refusal),
    /// The engine broke.
    #[error(transparent)]
    Fault(#[from] engine::Fault),
    /// A task of our own ended without an answer.
    #[error("internal error while answering {0}; see the shim's log")]
    Lost(&'static str),
}

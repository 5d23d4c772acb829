//! Restore: a container that was created from a checkpoint begins to run, which is its start.
//!
//! ```text
//! Create:  image there? ─► no GPU? ─► criu there? ─► mounted, and nothing of it runs: no PID, no cgroup
//! Start:   stdio ─► runtime restore ─► claim init ─► cgroup ─► told
//! ```
//!
//! Decides that a restore that fails leaves the container as it was: created, to be deleted, or started again by a client that does
//! not take the end of a failed start's output for the end of all. Must not know what is in the image but its first file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use oci_specs::Bundle;
use tracing::warn;

use super::container::Container;
use super::create::{CONSOLE_SOCKET, CreateRequest, LOG_FILE, PID_FILE, read_pid};
use super::error::TaskError;
use super::shim::Shim;
use crate::criu::{Criu, Workplace};
use crate::options::RuntimeOptions;
use crate::process::Expectation;
use crate::remains;
use crate::runtime::{CreateSwitches, Launch, Runc};
use crate::stdio::{Client, Pending, prepare};

/// criu's log of a restore, and what is kept of it in the bundle where the restore fails.
const LOG: &str = "restore.log";
const KEPT_LOG: &str = "criu-restore.log";
/// The file that every image of criu's has.
const FIRST_FILE: &str = "inventory.img";

/// Where a container comes from that is created from a checkpoint.
#[derive(Debug)]
pub struct Origin {
    /// The image.
    pub image: PathBuf,
    /// How it is run, for what a failed restore leaves.
    pub runtime: Runc,
    /// `--no-pivot`
    pub no_pivot: bool,
    /// `linux.cgroupsPath`, for what a failed restore leaves.
    pub cgroups_path: String,
}

impl Origin {
    /// What `request` is to be restored from, if that can be.
    ///
    /// # Errors
    /// [`TaskError`] that names the container's request for a GPU, the image or criu.
    pub(super) fn of(
        request: &CreateRequest,
        options: &RuntimeOptions,
        bundle: &Bundle,
        runtime: &Runc,
        shim: &Shim,
    ) -> Result<Option<Self>, TaskError> {
        if request.checkpoint.is_empty() {
            return Ok(None);
        }
        if shim.requests_a_gpu(&request.id, bundle)? {
            return Err(TaskError::GpuNotRestored { id: request.id.clone() });
        }
        may_restore(&request.id, &request.checkpoint, &Criu::of(options))?;
        Ok(Some(Self {
            image: request.checkpoint.clone().into(),
            runtime: runtime.clone(),
            no_pivot: options.no_pivot_root,
            cgroups_path: bundle.spec().cgroups_path().to_owned(),
        }))
    }
}

/// Refuses what a restore could only fail at.
///
/// # Errors
/// [`TaskError`] that names the image or criu.
fn may_restore(id: &str, image: &str, criu: &Criu) -> Result<Option<PathBuf>, TaskError> {
    let first = Path::new(image).join(FIRST_FILE);
    fs::metadata(first).map_err(|source| TaskError::NoSuchImage {
        id: id.to_owned(),
        path: image.into(),
        source,
    })?;
    criu.find().map_err(|source| TaskError::NoCriu { id: id.to_owned(), verb: "restore", source })
}

impl Shim {
    /// Makes a created container run from its checkpoint.
    pub(super) async fn restore(
        self: &Arc<Self>,
        container: &Arc<Container>,
        origin: &Origin,
        patience: Option<Instant>,
    ) -> Result<(), TaskError> {
        let image = origin.image.to_string_lossy();
        // Again: both may have gone since the create.
        let program = may_restore(&container.id, &image, &container.criu)?;
        let client = Client {
            namespace: &self.namespace,
            id: &container.id,
            bundle: &container.bundle,
            socket: CONSOLE_SOCKET,
            owner: container.io_owner,
            reaper: &self.reaper,
            patience,
        };
        let mut stdio = prepare(&container.init.stdio, client).await?;
        let place = Workplace::make(&container.bundle, program.as_deref(), container.criu.work());
        let place = place.map_err(|source| {
            let path = container.bundle.clone();
            TaskError::File { action: "make a place for criu in", path, source }
        })?;
        forget_pid(&container.bundle);
        // Announced before the runtime runs: what ends at once must not be missed.
        let expectation = self.reaper.expect();
        let ran = run(container, origin, &place, &mut stdio, patience).await;
        let done = match ran {
            Ok(()) => self.adopt(container, stdio, expectation),
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.undo_restore(container, origin).await;
        }
        done
    }

    /// Takes what the runtime has restored for the container's init.
    fn adopt(
        self: &Arc<Self>,
        container: &Arc<Container>,
        stdio: Pending,
        expectation: Expectation,
    ) -> Result<(), TaskError> {
        let pid = read_pid(&container.bundle.join(PID_FILE))?;
        let name = || container.init.name.clone();
        let (handle, exit) = expectation.claim(pid).map_err(|source| TaskError::Watch {
            name: name(),
            pid,
            source,
        })?;
        container.init.set_streams(stdio.start()?);
        let cgroup = self.cgroup_of(&container.id, pid);
        container.init.set_started(pid, handle);
        self.follow(container, exit, cgroup);
        Ok(())
    }

    /// What cannot be undone is for containerd's `delete`, which has the record.
    async fn undo_restore(&self, container: &Container, origin: &Origin) {
        let id = &container.id;
        if let Err(error) = remains::clear(&origin.runtime, id, &origin.cgroups_path).await {
            warn!(id, %error, "left behind by a failed restore");
        }
        forget_pid(&container.bundle);
    }
}

async fn run(
    container: &Container,
    origin: &Origin,
    place: &Workplace,
    stdio: &mut Pending,
    patience: Option<Instant>,
) -> Result<(), TaskError> {
    let child = stdio.take_child();
    let launch = Launch {
        bundle: &container.bundle,
        pid_file: PID_FILE,
        log: LOG_FILE,
        console_socket: stdio.console_socket(),
        stdio: child,
        memory: None,
        patience,
    };
    let switches = CreateSwitches { no_pivot: origin.no_pivot, ..CreateSwitches::default() };
    let places = place.places(&origin.image);
    let restored = container.runtime.restore(&container.id, launch, places, switches).await;
    restored.map_err(|source| {
        let source = source.or_words(|| stdio.said());
        let said = place.words(LOG, &container.bundle, KEPT_LOG);
        TaskError::Runtime { what: "OCI runtime restore failed", source: source.because(said) }
    })
}

/// What an earlier attempt left must not answer for this one, nor stand in its way (runc writes `.<name>` first, with O_EXCL).
fn forget_pid(bundle: &Path) {
    for name in [PID_FILE.to_owned(), format!(".{PID_FILE}")] {
        // Absent nearly always.
        let _ = fs::remove_file(bundle.join(name));
    }
}

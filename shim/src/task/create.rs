//! Create: everything up to a container whose init waits for its start.
//!
//! ```text
//! reserve ─► read bundle ─► record ─► admit ─► mount ─► inspect ─► stdio ─► runtime create ∥ dress
//!                                                   ─► claim init ─► cgroup ─► arm ─► told
//! ```
//!
//! With a checkpoint it ends, told, before stdio: see `restore.rs`.
//!
//! Decides the order, and that a create which fails anywhere leaves nothing: what was made is undone in
//! reverse before the error goes out.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use engine::Admission;
use oci_specs::Bundle;
use tokio::sync::oneshot;
use tracing::warn;

use super::admission::rootfs_of;
use super::container::Container;
use super::error::TaskError;
use super::exit;
use super::process::Process;
use super::record::Record;
use super::restore::Origin;
use super::shim::Shim;
use crate::cgroup::Cgroup;
use crate::cli::is_identifier;
use crate::criu::Criu;
use crate::mount::{Mount, unmount_all};
use crate::off_loop::off_loop;
use crate::options::RuntimeOptions;
use crate::process::Exit;
use crate::remains;
use crate::runtime::{CreateSwitches, Launch, MemoryPolicy, OciRuntime, Runc};
use crate::stdio::{Client, Pending, StdioSpec, prepare};

/// Where the runtime writes the init's PID; containerd's own shim has it there, too.
pub const PID_FILE: &str = "init.pid";
/// Where it writes its log; as with containerd's own shim.
pub(super) const LOG_FILE: &str = "log.json";
/// Where a terminal's master comes in.
pub(super) const CONSOLE_SOCKET: &str = "init.sock";

/// What containerd asks for.
#[derive(Debug)]
pub struct CreateRequest {
    /// Container id.
    pub id: String,
    /// Bundle directory.
    pub bundle: PathBuf,
    /// Root filesystem; empty if it is in place already.
    pub rootfs: Vec<Mount>,
    /// The same as containerd sent it, for the event.
    pub rootfs_sent: Vec<containerd_shim_protos::types::mount::Mount>,
    /// Names of its stdio.
    pub stdio: StdioSpec,
    /// A checkpoint to restore from.
    pub checkpoint: String,
    /// Runtime options.
    pub options: Option<Any>,
    /// Until when containerd waits for the answer, if it says.
    pub patience: Option<Instant>,
}

/// What has been made so far, to be undone if the rest fails.
struct Undo<'a> {
    shim: &'a Shim,
    id: &'a str,
    bundle: &'a Path,
    cgroups_path: &'a str,
    admission: Admission,
    mounted: Option<PathBuf>,
    /// The runtime, once it has been asked to make something.
    runtime: Option<&'a Runc>,
}

impl Shim {
    /// Makes a container. Returns its init's PID, 0 for one that is to be restored from a checkpoint: nothing of it runs before its start.
    ///
    /// # Errors
    /// [`TaskError`]; nothing of the container is left.
    pub async fn create(self: Arc<Self>, request: CreateRequest) -> Result<i32, TaskError> {
        if !is_identifier(&request.id) {
            return Err(TaskError::BadIdentifier { id: request.id });
        }
        let reservation = self.reserve(&request.id)?;
        let options = RuntimeOptions::resolve(&self.config, request.options.as_ref())?;
        let runtime = Runc::new(options.clone(), &self.namespace, self.reaper.clone());
        // Somebody else's container, which undoing ours would destroy.
        if runtime.has_state(&request.id) {
            return Err(TaskError::ContainerExists { id: request.id });
        }
        let bundle = Bundle::load(&request.bundle).map_err(|error| {
            let (id, path) = (request.id.clone(), request.bundle.clone());
            if path.exists() { error.into() } else { TaskError::NoSuchBundle { id, path } }
        });
        let bundle = Arc::new(bundle?);
        let origin = Origin::of(&request, &options, &bundle, &runtime, &self)?;
        let record = Record::new(
            &request.id,
            &options,
            self.config.shim.bootstrap,
            &self.group,
            bundle.spec().cgroups_path(),
        );
        record.write(&request.bundle).map_err(|source| TaskError::File {
            action: "write",
            path: Record::path(&request.bundle),
            source,
        })?;
        let mut undo = Undo {
            shim: &self,
            id: &request.id,
            bundle: &request.bundle,
            cgroups_path: bundle.spec().cgroups_path(),
            admission: Admission::default(),
            mounted: None,
            runtime: None,
        };
        let made = self.make(&request, &options, &bundle, &runtime, &mut undo).await;
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                undo.undo().await;
                return Err(error);
            }
        };
        let rootfs = undo.mounted.take();
        let admission = std::mem::take(&mut undo.admission);
        let Made { process, memory, launched } = made;
        let pid = process.pid();
        let container = Arc::new(Container::new(
            request.id.clone(),
            request.bundle.clone(),
            process,
            Box::new(runtime),
            admission,
            memory,
            bundle.spec().has_private_pid_namespace(),
            options.io_owner,
            rootfs,
            Criu::of(&options),
            origin,
        ));
        self.tell_created(request, pid);
        if let Some((exit, cgroup)) = launched {
            self.follow(&container, exit, cgroup);
        }
        reservation.fill(container);
        Ok(pid)
    }

    async fn make<'a>(
        &self,
        request: &CreateRequest,
        options: &RuntimeOptions,
        bundle: &Arc<Bundle>,
        runtime: &'a Runc,
        undo: &mut Undo<'a>,
    ) -> Result<Made, TaskError> {
        let (prepared, done) = self.prepare(&request.id, bundle, &request.rootfs).await;
        undo.admission = prepared.admission;
        undo.mounted = prepared.mounted;
        let memory = prepared.memory;
        done?;
        let name = format!("container {:?}", request.id);
        let process = Process::new(name.clone(), request.stdio.clone());
        if !request.checkpoint.is_empty() {
            // Not by an annotation, which has been refused already.
            return match undo.admission.grant() {
                Some(_) => Err(TaskError::GpuNotRestored { id: request.id.clone() }),
                None => Ok(Made { process, memory, launched: None }),
            };
        }
        let client = Client {
            namespace: &self.namespace,
            id: &request.id,
            bundle: &request.bundle,
            socket: CONSOLE_SOCKET,
            owner: options.io_owner,
            reaper: &self.reaper,
            patience: request.patience,
        };
        let mut stdio = prepare(&request.stdio, client).await?;
        // Announced before the runtime runs: an init that is killed at once must not be missed.
        let expectation = self.reaper.expect();
        undo.runtime = Some(runtime);
        let create = run_create(request, options, runtime, &mut stdio, memory.as_ref());
        if prepared.undressed {
            let dress = undo.carry(|admission| self.dress(admission, rootfs_of(bundle)));
            // Both to their end, so that nothing is undone which is still being made.
            let (dressed, created) = tokio::join!(dress, create);
            created.and(dressed)?;
        } else {
            create.await?;
        }
        let pid = read_pid(&request.bundle.join(PID_FILE))?;
        let watched = expectation.claim(pid);
        let (handle, exit) = watched.map_err(|source| TaskError::Watch { name, pid, source })?;
        process.set_streams(stdio.start()?);
        let cgroup = self.cgroup_of(&request.id, pid);
        let own = cgroup.as_ref().and_then(Cgroup::place);
        undo.carry(|admission| self.arm(admission, pid, own)).await?;
        process.set_started(pid, handle);
        Ok(Made { process, memory, launched: Some((exit, cgroup)) })
    }

    /// The cgroup of a container's init.
    pub(super) fn cgroup_of(&self, id: &str, pid: i32) -> Option<Cgroup> {
        let found = self.hierarchies().and_then(|known| Cgroup::of_process(pid, known));
        found.inspect_err(|error| warn!(id, %error, "no cgroup: no stats, no OOM events")).ok()
    }

    /// Follows a container's init to its end, and its cgroup.
    pub(super) fn follow(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exit: oneshot::Receiver<Exit>,
        cgroup: Option<Cgroup>,
    ) {
        if let Some(cgroup) = cgroup {
            exit::watch_oom(self, container, &cgroup);
            // The first and only time.
            let _ = container.cgroup.set(cgroup);
        }
        tokio::spawn(exit::follow_init(Arc::clone(self), Arc::clone(container), exit));
    }

    fn tell_created(&self, request: CreateRequest, pid: i32) {
        let io = TaskIO {
            stdin: request.stdio.stdin,
            stdout: request.stdio.stdout,
            stderr: request.stdio.stderr,
            terminal: request.stdio.terminal,
            ..TaskIO::default()
        };
        self.events.publish(&TaskCreate {
            container_id: request.id,
            bundle: request.bundle.to_string_lossy().into_owned(),
            rootfs: request.rootfs_sent,
            io: MessageField::some(io),
            checkpoint: request.checkpoint,
            pid: pid.cast_unsigned(),
            ..TaskCreate::default()
        });
    }
}

async fn run_create(
    request: &CreateRequest,
    options: &RuntimeOptions,
    runtime: &Runc,
    stdio: &mut Pending,
    memory: Option<&MemoryPolicy>,
) -> Result<(), TaskError> {
    let child = stdio.take_child();
    let launch = Launch {
        bundle: &request.bundle,
        pid_file: PID_FILE,
        log: LOG_FILE,
        console_socket: stdio.console_socket(),
        stdio: child,
        memory,
        patience: request.patience,
    };
    let switches =
        CreateSwitches { no_pivot: options.no_pivot_root, no_new_keyring: options.no_new_keyring };
    let created = runtime.create(&request.id, launch, switches).await;
    created.map_err(|source| TaskError::Runtime {
        what: "OCI runtime create failed",
        source: source.or_words(|| stdio.said()),
    })
}

struct Made {
    process: Process,
    memory: Option<MemoryPolicy>,
    /// The end of its init and its cgroup; `None` for one that is to be restored from a checkpoint, of which nothing runs yet.
    launched: Option<(oneshot::Receiver<Exit>, Option<Cgroup>)>,
}

impl Undo<'_> {
    /// Passes the admission through a step that needs it whole, and keeps it whether the step succeeds or not.
    async fn carry<F>(&mut self, step: impl FnOnce(Admission) -> F) -> Result<(), TaskError>
    where
        F: Future<Output = Result<Admission, (Admission, TaskError)>>,
    {
        let (admission, done) = match step(std::mem::take(&mut self.admission)).await {
            Ok(admission) => (admission, Ok(())),
            Err((admission, error)) => (admission, Err(error)),
        };
        self.admission = admission;
        done
    }

    async fn undo(self) {
        let id = self.id;
        let mut clean = true;
        let mut left = |error: &dyn std::fmt::Display| {
            clean = false;
            warn!(id, %error, "left behind by a failed create");
        };
        if let Some(runtime) = self.runtime
            && let Err(error) = remains::clear(runtime, id, self.cgroups_path).await
        {
            left(&error);
        }
        if let Some(rootfs) = self.mounted
            && let Ok(Err(error)) = off_loop("unmount", move || unmount_all(&rootfs)).await
        {
            left(&error);
        }
        if let Err(error) = self.shim.take_back(self.admission).await {
            left(&error);
        }
        // What could not be undone is for containerd's `delete`, which needs the record.
        let record = clean.then(|| Record::path(self.bundle));
        let names = [PID_FILE, LOG_FILE].map(|name| self.bundle.join(name));
        for file in names.into_iter().chain(record) {
            // Absent if the create did not come that far.
            let _ = fs::remove_file(file);
        }
    }
}

/// The PID that the runtime wrote.
pub(super) fn read_pid(path: &Path) -> Result<i32, TaskError> {
    let error = |source| TaskError::File {
        action: "read the runtime's PID file",
        path: path.into(),
        source,
    };
    let text = fs::read_to_string(path).map_err(error)?;
    text.trim().parse().map_err(|_| error(std::io::ErrorKind::InvalidData.into()))
}

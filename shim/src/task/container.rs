//! One container: its init, its execs, and what they share.
//!
//! Decides nothing; holds what the verbs need. Must not talk to containerd.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use engine::Admission;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::error::TaskError;
use super::process::Process;
use super::restore::Origin;
use crate::cgroup::{Cgroup, OomWatch};
use crate::criu::Criu;
use crate::runtime::{MemoryPolicy, OciRuntime};

/// A container that exists.
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its first process.
    pub init: Arc<Process>,
    /// How it is run.
    pub runtime: Box<dyn OciRuntime>,
    /// What it was given.
    pub admission: Admission,
    /// Where the memory of its processes comes from, if that is not left alone.
    pub memory: Option<MemoryPolicy>,
    /// Whether the end of its init ends everything in it.
    pub private_pid_namespace: bool,
    /// Owner of its stdio pipes.
    pub io_owner: (u32, u32),
    /// Where its root filesystem is mounted, if the shim mounted it.
    pub rootfs: Option<PathBuf>,
    /// Its cgroup, once it is known.
    pub cgroup: OnceLock<Cgroup>,
    /// Its watch on out-of-memory kills, and the task that follows it.
    pub oom: OnceLock<(Arc<OomWatch>, AbortHandle)>,
    /// How criu is found for its checkpoints and its restore.
    pub criu: Criu,
    /// What it is restored from at its start; `None` for one that begins anew.
    pub origin: Option<Origin>,
    /// Execs that are being started or run.
    pub running_execs: watch::Sender<usize>,
    execs: Mutex<HashMap<String, Arc<Exec>>>,
    slots: Mutex<Slots>,
}

/// Numbers for the files of launches: one that is free is used again.
#[derive(Debug, Default)]
struct Slots {
    free: Vec<u32>,
    made: u32,
}

/// An exec of a container.
#[derive(Debug)]
pub struct Exec {
    /// Its id within the container.
    pub id: String,
    /// Its process.
    pub process: Arc<Process>,
    spec: Mutex<Vec<u8>>,
}

impl Exec {
    /// An exec that waits to be started, with its process spec as JSON.
    pub fn new(id: String, process: Process, spec: Vec<u8>) -> Self {
        Self { id, process: Arc::new(process), spec: Mutex::new(spec) }
    }

    /// The process spec, which is of no use after the start.
    pub fn take_spec(&self) -> Vec<u8> {
        std::mem::take(&mut *self.spec.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts an exec as running for as long as it lives.
pub struct RunningExec(Arc<Container>);

impl Container {
    /// A container around its parts.
    #[allow(clippy::too_many_arguments, reason = "called once, and every part is needed")]
    pub fn new(
        id: String,
        bundle: PathBuf,
        init: Process,
        runtime: Box<dyn OciRuntime>,
        admission: Admission,
        memory: Option<MemoryPolicy>,
        private_pid_namespace: bool,
        io_owner: (u32, u32),
        rootfs: Option<PathBuf>,
        criu: Criu,
        origin: Option<Origin>,
    ) -> Self {
        Self {
            id,
            bundle,
            init: Arc::new(init),
            runtime,
            admission,
            memory,
            private_pid_namespace,
            io_owner,
            rootfs,
            criu,
            origin,
            cgroup: OnceLock::new(),
            oom: OnceLock::new(),
            running_execs: watch::Sender::new(0),
            execs: Mutex::default(),
            slots: Mutex::default(),
        }
    }

    /// Whether it was created from a checkpoint and nothing of it runs yet: it has no process, no cgroup, and the runtime does not
    /// know it.
    pub fn is_unrestored(&self) -> bool {
        self.origin.is_some() && self.init.pid() == 0
    }

    /// The init, or the exec of that id.
    ///
    /// # Errors
    /// [`TaskError::NoSuchProcess`]
    pub fn process(&self, exec: &str) -> Result<Arc<Process>, TaskError> {
        if exec.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        self.exec(exec).map(|exec| Arc::clone(&exec.process))
    }

    /// The exec of that id.
    ///
    /// # Errors
    /// [`TaskError::NoSuchProcess`]
    pub fn exec(&self, exec: &str) -> Result<Arc<Exec>, TaskError> {
        self.execs()
            .get(exec)
            .cloned()
            .ok_or_else(|| TaskError::NoSuchProcess { id: self.id.clone(), exec: exec.to_owned() })
    }

    /// Its execs, locked; not to be held over anything that takes time.
    pub fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no other launch in this container has right now.
    pub fn take_slot(&self) -> u32 {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.free.pop().unwrap_or_else(|| {
            slots.made += 1;
            slots.made - 1
        })
    }

    /// Makes the number of a launch that is over free again.
    pub fn give_slot_back(&self, slot: u32) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).free.push(slot);
    }

    /// Counts one more running exec.
    pub fn exec_runs(self: &Arc<Self>) -> RunningExec {
        self.running_execs.send_modify(|count| *count += 1);
        RunningExec(Arc::clone(self))
    }
}

impl Drop for RunningExec {
    fn drop(&mut self) {
        self.0.running_execs.send_modify(|count| *count -= 1);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some((_, task)) = self.oom.get() {
            task.abort();
        }
    }
}

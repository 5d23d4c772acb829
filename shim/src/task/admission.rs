//! Admission: where the engine is asked, on a thread of its own, since its answer may have to wait for locks and files.
//!
//! Decides only whether there is anything to ask, and what is done on one thread: starting one costs a launch a tenth of a millisecond. A
//! container that says nothing of GPUs leaves the event loop only to have its root filesystem mounted. Must not know GPUs.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::{Admission, Ask, Node, Owner, Rootfs, Update};
use oci_specs::Bundle;

use super::container::Container;
use super::error::TaskError;
use super::shim::Shim;
use crate::layers::{layers, with_layer};
use crate::mount::{Mount, mount_all};
use crate::off_loop::off_loop;
use crate::runtime::MemoryPolicy;

impl Shim {
    /// Everything that a container has before the OCI runtime makes it. What there is of it comes back whether the whole succeeds or not.
    pub(super) async fn prepare(
        &self,
        id: &str,
        bundle: &Arc<Bundle>,
        rootfs: &[Mount],
    ) -> (Prepared, Result<(), TaskError>) {
        let ask = match Ask::read(self.owner(id), bundle.spec()) {
            Ok(ask) => ask,
            Err(error) => return (Prepared::default(), Err(error.into())),
        };
        if ask.is_none() && rootfs.is_empty() {
            return (Prepared::default(), Ok(()));
        }
        let (node, bundle, rootfs) = (Arc::clone(&self.node), Arc::clone(bundle), rootfs.to_vec());
        let sandbox = self.container(&self.group).ok().filter(|sandbox| sandbox.id != id);
        let sandbox_init = sandbox.map(|sandbox| sandbox.init.pid().cast_unsigned());
        let work = move || {
            let mut prepared = Prepared::default();
            let done = prepared.make(&node, ask.as_ref(), &bundle, &rootfs, sandbox_init);
            (prepared, done)
        };
        let (prepared, done) = match blocking("prepare", work).await {
            Ok(made) => made,
            Err(error) => (Prepared::default(), Err(error)),
        };
        if prepared.admission.grant().is_some() {
            self.claimed.store(true, Ordering::Relaxed);
        }
        (prepared, done)
    }

    /// Whether the container asks for a GPU in so many words.
    pub(super) fn requests_a_gpu(&self, id: &str, bundle: &Bundle) -> Result<bool, TaskError> {
        let ask = Ask::read(self.owner(id), bundle.spec())?;
        Ok(ask.is_some_and(|ask| !ask.requested().is_empty()))
    }

    /// Lets the engine decide what of an update goes on.
    pub(super) async fn merge_update(
        &self,
        container: &Arc<Container>,
        resources: Vec<u8>,
    ) -> Result<Update, TaskError> {
        let (node, namespace) = (Arc::clone(&self.node), self.namespace.clone());
        let container = Arc::clone(container);
        let merge = move || {
            let owner = Owner { namespace: &namespace, container: &container.id };
            node.merge_update(&container.admission, owner, resources)
        };
        Ok(blocking("merge", merge).await??)
    }

    /// Tells the engine that an update was made.
    pub(super) async fn updated(&self, id: &str, update: Update) -> Result<(), TaskError> {
        let (node, namespace, id) = (Arc::clone(&self.node), self.namespace.clone(), id.to_owned());
        let told = move || node.updated(update, Owner { namespace: &namespace, container: &id });
        Ok(blocking("updated", told).await??)
    }

    /// Lets the engine prepare a mounted root filesystem, beside the OCI runtime.
    pub(super) async fn dress(
        &self,
        mut admission: Admission,
        rootfs: PathBuf,
    ) -> Result<Admission, (Admission, TaskError)> {
        if admission.grant().is_none() {
            return Ok(admission);
        }
        let node = Arc::clone(&self.node);
        carry("dress", move || {
            let done = node.dress(&mut admission, &rootfs);
            (admission, done)
        })
        .await
    }

    /// Lets the engine complete a created container whose init is `pid`.
    pub(super) async fn arm(
        &self,
        mut admission: Admission,
        pid: i32,
        cgroup: Option<PathBuf>,
    ) -> Result<Admission, (Admission, TaskError)> {
        if admission.grant().is_none() {
            return Ok(admission);
        }
        let node = Arc::clone(&self.node);
        carry("arm", move || {
            let done = node.arm(&mut admission, pid.cast_unsigned(), cgroup);
            (admission, done)
        })
        .await
    }

    /// Takes an admission back.
    pub(super) async fn take_back(&self, admission: Admission) -> Result<(), TaskError> {
        if admission.grant().is_none() {
            return Ok(());
        }
        let node = Arc::clone(&self.node);
        Ok(blocking("undo", move || node.undo(admission)).await??)
    }

    /// Gives back what a container that is being deleted held; nothing if this pod has never held anything.
    pub(super) async fn release(&self, id: &str) -> Result<(), TaskError> {
        if !self.claimed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (node, namespace, id) = (Arc::clone(&self.node), self.namespace.clone(), id.to_owned());
        let owner = move || node.release(Owner { namespace: &namespace, container: &id });
        Ok(blocking("release", owner).await??)
    }

    /// Whose container it is, as the engine knows it.
    fn owner<'a>(&'a self, id: &'a str) -> Owner<'a> {
        Owner { namespace: &self.namespace, container: id }
    }
}

/// What was prepared for a container.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// What it was given; empty for one that asked for nothing.
    pub admission: Admission,
    /// How its processes' memory can be next to that.
    pub memory: Option<MemoryPolicy>,
    /// Where its root filesystem was mounted, if it was.
    pub mounted: Option<PathBuf>,
    /// Whether the root is still to be dressed, while the OCI runtime makes the container.
    pub undressed: bool,
}

impl Prepared {
    fn make(
        &mut self,
        node: &Node,
        ask: Option<&Ask>,
        bundle: &Bundle,
        rootfs: &[Mount],
        sandbox_init: Option<u32>,
    ) -> Result<(), TaskError> {
        if let Some(ask) = ask {
            let about = Rootfs { layers: layers(rootfs), own: !rootfs.is_empty() };
            self.admission = node.admit(ask, bundle, &about, sandbox_init)?;
        }
        if !rootfs.is_empty() {
            let layered = self.admission.layer().map(|layer| with_layer(rootfs, layer));
            let target = bundle.path().join("rootfs");
            mount_on(&target, layered.as_deref().unwrap_or(rootfs))?;
            self.mounted = Some(target);
        }
        if self.admission.grant().is_some() {
            self.undressed = node.inspect_root(&self.admission, &rootfs_of(bundle))?;
            if !self.undressed {
                node.dress(&mut self.admission, &rootfs_of(bundle))?;
            }
            self.memory = preferred(&mut self.admission);
        }
        Ok(())
    }
}

/// Mounts all of a root filesystem on `target`, which is made.
fn mount_on(target: &Path, mounts: &[Mount]) -> Result<(), TaskError> {
    match fs::DirBuilder::new().mode(0o711).create(target) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => {
            return Err(TaskError::File { action: "make", path: target.to_owned(), source });
        }
        _ => {}
    }
    Ok(mount_all(mounts, target)?)
}

/// The memory policy of what was given, tried on this thread, which ends with the admission. What cannot be had is noted, and gone without.
fn preferred(admission: &mut Admission) -> Option<MemoryPolicy> {
    let nodes = admission.preferred_memory();
    if nodes.is_empty() {
        return None;
    }
    MemoryPolicy::try_here(&nodes)
        .inspect_err(|error| admission.lacks("memory near its GPUs", &error.to_string()))
        .ok()
}

/// The root filesystem that the container's configuration names.
pub(super) fn rootfs_of(bundle: &Bundle) -> PathBuf {
    let named = bundle.spec().root.as_ref().map_or(Path::new("rootfs"), |root| &root.path);
    bundle.path().join(named)
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TaskError> {
    off_loop(what, work).await.map_err(|_| TaskError::Lost(what))
}

/// As [`blocking`], for work that fails with its admission in hand.
async fn carry(
    what: &'static str,
    work: impl FnOnce() -> (Admission, Result<(), engine::Fault>) + Send + 'static,
) -> Result<Admission, (Admission, TaskError)> {
    match blocking(what, work).await {
        Ok((admission, Ok(()))) => Ok(admission),
        Ok((admission, Err(fault))) => Err((admission, fault.into())),
        Err(error) => Err((Admission::default(), error)),
    }
}

//! Admission: where the engine is asked, on a thread of its own, since its answer may have to wait for locks and files.
//!
//! Decides only whether there is anything to ask: a container that says nothing of GPUs never leaves the event loop here. Must not know
//! GPUs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::{Admission, Ask, Denied, Owner, Rootfs, Update};
use oci_specs::Bundle;

use super::container::Container;
use super::error::TaskError;
use super::shim::Shim;
use crate::layers::layers;
use crate::mount::Mount;
use crate::off_loop::off_loop;
use crate::runtime::MemoryPolicy;

impl Shim {
    /// Asks for what the bundle says, and finds out how its processes' memory can be next to what it got. A container that asks for
    /// nothing gets an empty admission.
    pub(super) async fn admit(
        &self,
        id: &str,
        bundle: &Arc<Bundle>,
        rootfs: &[Mount],
    ) -> Result<(Admission, Option<MemoryPolicy>), TaskError> {
        let Some(ask) = Ask::read(self.owner(id), bundle.spec())? else {
            return Ok((Admission::default(), None));
        };
        let (node, bundle) = (Arc::clone(&self.node), Arc::clone(bundle));
        let rootfs = Rootfs { layers: layers(rootfs), own: !rootfs.is_empty() };
        let sandbox = self.container(&self.group).ok().filter(|sandbox| sandbox.id != id);
        let sandbox_init = sandbox.map(|sandbox| sandbox.init.pid().cast_unsigned());
        let admission = blocking("admit", move || {
            let mut admission = node.admit(&ask, &bundle, &rootfs, sandbox_init)?;
            let memory = preferred(&mut admission);
            Ok::<_, Denied>((admission, memory))
        });
        let (admission, memory) = admission.await??;
        if admission.grant().is_some() {
            self.claimed.store(true, Ordering::Relaxed);
        }
        Ok((admission, memory))
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

    /// Lets the engine prepare a mounted root filesystem.
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

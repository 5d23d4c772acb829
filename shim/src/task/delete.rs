//! Delete: an ended process, or a container with all that it had.
//!
//! Decides that a running process is never deleted: containerd asks for that when it takes a live
//! container for a leaked one, and the refusal is all that protects it.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use containerd_shim_protos::events::task::TaskDelete;
use containerd_shim_protos::protobuf::MessageField;
use tracing::warn;

use super::container::Container;
use super::error::TaskError;
use super::lifecycle::{Phase, Verb};
use super::process::Process;
use super::record::Record;
use super::shim::Shim;
use crate::mount::unmount_all;
use crate::off_loop::off_loop;
use crate::process::Exit;
use crate::runtime::RuntimeError;
use crate::time::timestamp;

/// How long output that somebody still holds back keeps a delete waiting: of a container, and of an exec,
/// whose output a process that it left behind may hold for ever (containerd's own shim: the same).
const INIT_DRAIN: Duration = Duration::from_secs(10);
const EXEC_DRAIN: Duration = Duration::from_secs(2);
/// The exit status of what never ran.
pub(super) const NEVER_RAN: u32 = 255;
/// How long the init of a container that was never started may take to be gone once killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What is left to say about a deleted process.
#[derive(Debug, Clone, Copy)]
pub struct Deleted {
    /// Its PID; 0 if it was never made.
    pub pid: i32,
    /// How it ended; `None` if it never ran.
    pub exit: Option<Exit>,
}

impl Shim {
    /// Deletes a container (`exec` empty) or an exec.
    ///
    /// # Errors
    /// [`TaskError`]; a container whose deletion failed can be deleted again.
    pub async fn delete(
        self: Arc<Self>,
        id: &str,
        exec: &str,
        patience: Option<Instant>,
    ) -> Result<Deleted, TaskError> {
        let container = self.container(id)?;
        if exec.is_empty() {
            self.delete_container(&container, patience).await
        } else {
            delete_exec(&container, exec).await
        }
    }

    async fn delete_container(
        &self,
        container: &Container,
        patience: Option<Instant>,
    ) -> Result<Deleted, TaskError> {
        let turn = container.init.turn(Verb::Delete).await?;
        // Before the streams: what was never started still holds them, and a refusal must not cut them.
        delete_from_runtime(container, patience)
            .await
            .map_err(|source| TaskError::Runtime { what: "failed to delete task", source })?;
        if container.init.lifecycle().phase() == Phase::Created
            && !container.is_unrestored()
            && tokio::time::timeout(END_TIMEOUT, container.init.wait()).await.is_err()
        {
            warn!(id = container.id, "the init of a deleted container has not ended");
        }
        // Its processes are gone, whoever still reads their output. What cannot be given back now is found by reconcile; a pod that cannot be
        // deleted would help nobody.
        if let Err(error) = self.release(&container.id).await {
            warn!(id = container.id, %error, "what it held is left for reconcile");
        }
        end_streams(&container.init, INIT_DRAIN).await;
        if let Some(rootfs) = container.rootfs.clone() {
            let path = rootfs.clone();
            off_loop("unmount", move || unmount_all(&rootfs))
                .await
                .map_err(|source| TaskError::File { action: "unmount", path, source })??;
        }
        // Nothing is left to clean: containerd's `delete`, which comes next, shall find nothing to do.
        let _ = fs::remove_file(Record::path(&container.bundle));
        let deleted = Deleted { pid: container.init.pid(), exit: container.init.exit() };
        self.forget(&container.id);
        if container.is_unrestored() {
            answer_waiters(&container.init);
        }
        for exec in container.execs().values() {
            answer_waiters(&exec.process);
        }
        self.tell_deleted(&container.id, deleted);
        turn.succeed();
        Ok(deleted)
    }

    fn tell_deleted(&self, id: &str, deleted: Deleted) {
        self.events.publish(&TaskDelete {
            container_id: id.to_owned(),
            pid: deleted.pid.cast_unsigned(),
            exit_status: deleted.exit.map_or(0, |exit| exit.status),
            exited_at: MessageField::some(timestamp(
                deleted.exit.map_or(SystemTime::UNIX_EPOCH, |exit| exit.at),
            )),
            ..TaskDelete::default()
        });
    }
}

async fn delete_from_runtime(
    container: &Container,
    patience: Option<Instant>,
) -> Result<(), RuntimeError> {
    let delete = || container.runtime.delete(&container.id, false, patience);
    match delete().await {
        // Deleted behind our back: there is less to do.
        Err(error) if error.is_no_such_container() => Ok(()),
        // Frozen by others than us, or by a thaw that failed: the runtime deletes nothing that is frozen.
        Err(error @ RuntimeError::Failed { .. })
            if container.init.lifecycle().phase() == Phase::Stopped =>
        {
            match container.runtime.resume(&container.id, patience).await {
                Ok(()) => delete().await,
                Err(_) => Err(error),
            }
        }
        other => other,
    }
}

async fn delete_exec(container: &Container, exec: &str) -> Result<Deleted, TaskError> {
    let exec = container.exec(exec)?;
    let turn = exec.process.turn(Verb::Delete).await?;
    end_streams(&exec.process, EXEC_DRAIN).await;
    container.execs().remove(&exec.id);
    answer_waiters(&exec.process);
    turn.succeed();
    Ok(Deleted { pid: exec.process.pid(), exit: exec.process.exit() })
}

/// Whoever waits for a process that was never started, and never will be, need not wait any longer.
fn answer_waiters(process: &Process) {
    if process.exit().is_none() {
        process.tell_exit(Exit { status: NEVER_RAN, at: SystemTime::now() });
    }
}

async fn end_streams(process: &Process, drain: Duration) {
    if let Some(streams) = process.take_streams() {
        streams.finish(drain).await;
    }
}

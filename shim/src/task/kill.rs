//! Kill: a signal to one process or to all.
//!
//! Decides between the pidfd, which reaches exactly the process that is meant and costs one system
//! call, and the OCI runtime, which is needed where one process is not enough or cannot be reached.

use std::time::Instant;

use super::container::Container;
use super::error::TaskError;
use super::lifecycle::Phase;
use super::process::Process;
use super::shim::Shim;
use crate::cgroup::Cgroup;
use crate::runtime::RuntimeError;

const SIGKILL: u32 = nix::libc::SIGKILL.cast_unsigned();

impl Shim {
    /// Sends a signal by number to the init (`exec` empty), to `all` of the container, or to an exec.
    ///
    /// # Errors
    /// [`TaskError`]
    pub async fn kill(
        &self,
        id: &str,
        exec: &str,
        signal: u32,
        all: bool,
        patience: Option<Instant>,
    ) -> Result<(), TaskError> {
        let container = self.container(id)?;
        let process = container.process(exec)?;
        if exec.is_empty() && (all || !reached_alone(&container)) {
            return by_runtime(&container, signal, all, patience).await;
        }
        by_handle(&process, signal)
    }
}

/// Whether a signal to the init alone is all that the runtime's `kill` would do: not where the init's
/// death leaves the others alive, and not where it is frozen so that SIGKILL waits for the thaw.
fn reached_alone(container: &Container) -> bool {
    container.private_pid_namespace && !is_frozen_v1(container)
}

fn by_handle(process: &Process, signal: u32) -> Result<(), TaskError> {
    let name = || process.name.clone();
    let life = process.lifecycle();
    if process.pid() == 0 {
        return Err(TaskError::NotStarted { name: name() });
    }
    if !life.is_alive() {
        return Err(TaskError::Finished { name: name() });
    }
    let handle = process.handle().ok_or_else(|| TaskError::Finished { name: name() })?;
    handle.signal(signal).map_err(|source| match source.raw_os_error() {
        Some(libc::ESRCH) => TaskError::Finished { name: name() },
        _ => TaskError::Signal { name: name(), signal, source },
    })
}

async fn by_runtime(
    container: &Container,
    signal: u32,
    all: bool,
    patience: Option<Instant>,
) -> Result<(), TaskError> {
    if container.is_unrestored() {
        // Not as the runtime says it ("does not exist"), after which containerd's clients would wait for an exit before they delete.
        return Err(TaskError::NotStarted { name: container.init.name.clone() });
    }
    // After the init's end its state is gone or stopped: the runtime would say so, this is sooner.
    if matches!(container.init.lifecycle().phase(), Phase::Deleted) {
        return Err(TaskError::Finished { name: container.init.name.clone() });
    }
    container
        .runtime
        .kill(&container.id, signal, all, patience)
        .await
        .map_err(|source| meaning(container, source))?;
    if signal == SIGKILL && is_frozen_v1(container) {
        thaw(container, patience).await?;
    }
    Ok(())
}

/// Lets a frozen container die of the signal that it was sent. runc has done that by itself, crun has not.
async fn thaw(container: &Container, patience: Option<Instant>) -> Result<(), TaskError> {
    let thawed = container.runtime.resume(&container.id, patience).await;
    // Another may have thawed it meanwhile, and it may be gone.
    thawed.or_else(|source| match is_frozen_v1(container) {
        true => Err(TaskError::Runtime { what: "OCI runtime resume failed", source }),
        false => Ok(()),
    })
}

fn is_frozen_v1(container: &Container) -> bool {
    container.cgroup.get().is_some_and(Cgroup::is_frozen_v1)
}

fn meaning(container: &Container, source: RuntimeError) -> TaskError {
    if source.is_not_running() {
        TaskError::Finished { name: container.init.name.clone() }
    } else if source.is_no_such_container() {
        TaskError::NoSuchContainer { id: container.id.clone() }
    } else {
        TaskError::Runtime { what: "OCI runtime kill failed", source }
    }
}

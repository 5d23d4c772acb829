//! Exits: what is done and told when a process ends.
//!
//! Decides the order in which containerd hears of things: a start before its exit, every exec's exit
//! before the init's, an out-of-memory kill before the exit that it caused.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use containerd_shim_protos::protobuf::MessageField;
use nix::sys::signal::Signal;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::container::{Container, Exec, RunningExec};
use super::lifecycle::Phase;
use super::process::Process;
use super::shim::Shim;
use crate::cgroup::Cgroup;
use crate::process::Exit;
use crate::time::timestamp;

/// How long the end of an init waits for execs that were killed with it.
const EXECS_TIMEOUT: Duration = Duration::from_secs(10);

/// Follows a container's init to its end.
pub(super) async fn follow_init(
    shim: Arc<Shim>,
    container: Arc<Container>,
    exit: oneshot::Receiver<Exit>,
) {
    // The sender lives in the reaper's table until it has sent.
    let Ok(exit) = exit.await else { return };
    let was_paused = container.init.lifecycle().phase() == Phase::Paused;
    container.init.reap();
    if was_paused
        && let Err(error) = container.runtime.resume(&container.id, None).await
        // Ended by its checkpoint, after which the runtime forgets it.
        && !error.is_no_such_container()
    {
        warn!(id = container.id, %error, "cannot thaw a container whose init has ended");
    }
    if !container.private_pid_namespace {
        end_the_rest(&container).await;
    }
    container.init.may_tell_exit().await;
    let mut execs = container.running_execs.subscribe();
    let none_runs = execs.wait_for(|count| *count == 0);
    if tokio::time::timeout(EXECS_TIMEOUT, none_runs).await.is_err() {
        warn!(
            id = container.id,
            "execs outlive the container's init; its exit is told all the same"
        );
    }
    if let Some((oom, _)) = container.oom.get()
        && oom.pending().is_ok_and(|happened| happened)
    {
        tell_oom(&shim, &container.id);
    }
    tell(&shim, &container, &container.init, &container.id, exit);
}

/// Follows an exec to its end.
pub(super) async fn follow_exec(
    shim: Arc<Shim>,
    container: Arc<Container>,
    exec: Arc<Exec>,
    exit: oneshot::Receiver<Exit>,
    running: RunningExec,
) {
    let Ok(exit) = exit.await else { return };
    exec.process.reap();
    exec.process.may_tell_exit().await;
    tell(&shim, &container, &exec.process, &exec.id, exit);
    drop(running);
}

/// Ends what is left of a container whose processes do not go with their init.
async fn end_the_rest(container: &Container) {
    let kill = (Signal::SIGKILL as i32).cast_unsigned();
    if let Err(error) = container.runtime.kill(&container.id, kill, true, None).await
        && !error.is_not_running()
        && !error.is_no_such_container()
    {
        warn!(id = container.id, %error, "cannot kill what the init left behind");
    }
}

fn tell(shim: &Shim, container: &Container, process: &Process, id: &str, exit: Exit) {
    shim.events.publish(&TaskExit {
        container_id: container.id.clone(),
        id: id.to_owned(),
        pid: process.pid().cast_unsigned(),
        exit_status: exit.status,
        exited_at: MessageField::some(timestamp(exit.at)),
        ..TaskExit::default()
    });
    process.tell_exit(exit);
}

fn tell_oom(shim: &Shim, id: &str) {
    info!(id, "out of memory");
    shim.events.publish(&TaskOOM { container_id: id.to_owned(), ..TaskOOM::default() });
}

/// Reports out-of-memory kills in the container from now on. A host without the memory controller has
/// none to report.
pub(super) fn watch_oom(shim: &Arc<Shim>, container: &Container, cgroup: &Cgroup) {
    let watch = match cgroup.watch_oom() {
        Ok(Some(watch)) => Arc::new(watch),
        Ok(None) => return,
        Err(error) => {
            warn!(id = container.id, %error, "cannot watch for out-of-memory kills");
            return;
        }
    };
    let (shim, id, watched) = (Arc::clone(shim), container.id.clone(), Arc::clone(&watch));
    let task = tokio::spawn(async move {
        while watched.next().await.is_some() {
            tell_oom(&shim, &id);
        }
    });
    // The first and only time.
    let _ = container.oom.set((watch, task.abort_handle()));
}

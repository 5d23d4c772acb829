//! What is left of a container whose OCI runtime was killed, hung or failed half-way.
//!
//! Decides the order: first the runtime is asked, then its cgroup is emptied, then it is asked again, and
//! what it still has on file is removed for it only where nothing of the container can live on. Must only be
//! called for a container that is to be gone.

use std::fs;

use crate::cgroup::sweep;
use crate::runtime::{OciRuntime, Runc, RuntimeError};

/// Clears what `runtime` and the kernel still know of the container `id`.
///
/// # Errors
/// The runtime's, when its state is left: without it nobody would find the processes that it is about.
pub async fn clear(runtime: &Runc, id: &str, cgroups_path: &str) -> Result<(), RuntimeError> {
    let mut result = Ok(());
    if runtime.has_state(id) {
        result = runtime.delete(id, true, None).await;
    }
    // A runtime that was killed early has a cgroup and no state, or none that it can read. systemd
    // removes its scopes by itself once they are empty.
    let swept = !runtime.uses_systemd() && sweep(cgroups_path, id).await;
    if result.is_err() || runtime.has_state(id) {
        // One that hung once would hang again, and there is not much time.
        if !matches!(result, Err(RuntimeError::Deadline { .. })) {
            result = runtime.delete(id, true, None).await;
        }
        if result.is_err() && swept && fs::remove_dir_all(runtime.state_of(id)).is_ok() {
            result = Ok(());
        }
    }
    result
}

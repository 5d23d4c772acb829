//! What one container left on the machine, found by its unique id; and which shim processes a
//! private containerd has.
//!
//! Only looks. What a whole containerd left is removed by its scratch.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::Containerd;
use crate::machine::{self, ProcessRow};
use crate::under_test::reference;
use crate::wait;

/// Where runc keeps the state of containers that the shims start, a folder per containerd
/// namespace.
const RUNC_ROOT: &str = "/run/containerd/runc";

/// All that is left of the container `id`: processes, mounts, cgroups, bundle, runc's state and a noted
/// socket, one line each.
pub fn of_container(containerd: &Containerd, namespace: &str, id: &str) -> Vec<String> {
    let mut left = Vec::new();
    for row in containerd.scratch.processes() {
        let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", row.pid)).unwrap_or_default();
        let named = row.command.split(' ').any(|word| word == id);
        if named || cgroup.contains(id) {
            left.push(format!("process {} ({}): {}", row.pid, row.state, row.command));
        }
    }
    let mounts = machine::mounts_below(containerd.scratch.root()).unwrap_or_default();
    let mounts = mounts.iter().map(|row| row.target.display().to_string());
    left.extend(
        mounts.filter(|target| target.contains(id)).map(|target| format!("mount {target}")),
    );
    left.extend(cgroups(containerd, id).iter().map(|path| format!("cgroup {}", path.display())));
    let state = runtime_state(namespace, id);
    for path in [containerd.bundles(namespace).join(id), state] {
        if path.exists() {
            left.push(path.display().to_string());
        }
    }
    // The reference leaves a killed shim's socket to the next `start`.
    let socket = containerd.socket_left(namespace, id).filter(|_| !reference());
    left.extend(socket.map(|path| format!("socket {}", path.display())));
    left
}

/// Waits until nothing is left of the container: a shim ends a moment after its last container is
/// deleted.
///
/// # Errors
/// When something stays, with the list.
pub fn none_of(containerd: &Containerd, namespace: &str, id: &str) -> Result<()> {
    let mut left = Vec::new();
    let gone = wait::until_within(Duration::from_secs(20), "leftovers", || {
        left = of_container(containerd, namespace, id);
        left.is_empty().then_some(())
    });
    gone.map_err(|_| anyhow!("left behind by {id}:\n  {}", left.join("\n  ")))
}

/// The container's cgroups, one per hierarchy.
pub fn cgroups(containerd: &Containerd, id: &str) -> Vec<PathBuf> {
    let mut found = machine::cgroups_named(containerd.scratch.cgroup()).unwrap_or_default();
    found.retain(|path| path.to_string_lossy().contains(id));
    found
}

/// The shim processes of a private containerd, daemons and those that are being started alike.
pub fn shims(containerd: &Containerd) -> Vec<ProcessRow> {
    let known: Vec<PathBuf> = [containerd.shim.clone(), containerd.installation.reference_shim()]
        .iter()
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    let mut found = containerd.scratch.processes();
    found.retain(|row| {
        fs::read_link(format!("/proc/{}/exe", row.pid)).is_ok_and(|exe| known.contains(&exe))
    });
    found
}

/// The shim that serves the process `pid`: its parent, since a shim is a subreaper.
///
/// # Errors
/// When the process or its shim is gone.
pub fn shim_of(containerd: &Containerd, pid: u32) -> Result<ProcessRow> {
    let parent = machine::process(pid).map_or(0, |row| row.parent);
    let shims = shims(containerd);
    shims.into_iter().find(|row| row.pid == parent).ok_or_else(|| anyhow!("no shim serves {pid}"))
}

/// Where the OCI runtime keeps its record of a container.
pub fn runtime_state(namespace: &str, id: &str) -> PathBuf {
    Path::new(RUNC_ROOT).join(namespace).join(id)
}

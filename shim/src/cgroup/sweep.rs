//! Removing what a dead shim's container left in its cgroup.
//!
//! Decides what may be touched: only a cgroup whose last component is the container's id, so that a path
//! shared with others is never emptied. Needed where the OCI runtime was killed before it wrote
//! down what it had made.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::collect_processes;
use super::hierarchy::roots;

/// How often and how long a killed cgroup is looked at until it is empty, and then until it can be removed.
const LOOKS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// Kills everything in the cgroup `path` of the container `id`, in every hierarchy, and removes it. Says whether
/// nothing of it is left: not where it could not be removed, nor where it is not the container's alone.
pub async fn sweep(path: &str, id: &str) -> bool {
    let relative: PathBuf =
        Path::new(path).components().filter(|c| matches!(c, Component::Normal(_))).collect();
    if !path.starts_with('/') || relative.file_name().is_none_or(|name| name != id) {
        return false;
    }
    let mut left: Vec<PathBuf> =
        roots().into_iter().map(|root| root.join(&relative)).filter(|dir| dir.is_dir()).collect();
    for dir in &left {
        // A frozen process cannot die on v1; the file is absent elsewhere.
        let _ = fs::write(dir.join("freezer.state"), "THAWED");
    }
    for _ in 0..LOOKS {
        let mut processes = std::collections::BTreeSet::new();
        for dir in &left {
            // A directory that has gone meanwhile holds nobody.
            let _ = collect_processes(dir, &mut processes);
        }
        if processes.is_empty() {
            break;
        }
        for pid in processes {
            // Listed a moment ago in a cgroup that is ours alone; ESRCH means that it has just ended.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        tokio::time::sleep(PAUSE).await;
    }
    // The kernel holds on to a cgroup for a moment after the last process has left its list.
    for _ in 0..LOOKS {
        left.retain(|dir| !remove(dir));
        if left.is_empty() {
            return true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    false
}

/// Removes a cgroup and those below it; one that is not empty stays. Says whether it is gone.
fn remove(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    match fs::remove_dir(dir) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

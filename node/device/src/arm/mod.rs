//! Putting prepared trees into a container's world, from outside, before its first instruction.
//!
//! ```text
//! our namespace        source ─► owned by us? ─► open_tree(CLONE) ─► ro, private     (detached, in no namespace)
//!                      pidfd ─► /proc/<pid>/{ns/mnt,root,mountinfo} ─► still alive?
//!  ─ setns ─
//! the container's      targets ─► first that exists ─► what it should be? ─► move_mount, by descriptors
//! ```
//!
//! Between the OCI runtime's create and start a container's init waits in its finished mount namespace. A
//! thread of ours, which ends afterwards, joins that namespace; no program runs in there, and nothing of
//! the image is opened for reading. Decides how a place is found and when it is refused. Must not know
//! what the trees contain or why they are wanted.

#![deny(unsafe_code)]

mod call;
mod error;
mod source;
mod target;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

pub use error::ArmError;

use source::Tree;
use target::World;

/// What a loaded driver has in a procfs.
const OWN_PROC: &str = "/proc/driver/nvidia";

/// What it means if something cannot be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The container must not run without it.
    Essential,
    /// The container runs without it, and somebody is told.
    BestEffort,
}

/// Something to put into the container's world. It is read-only there, without devices and set-user-id bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placing {
    /// The prepared file or directory on the node; it belongs to the caller's user alone.
    pub source: PathBuf,
    /// Where it may go, absolute in the container: the first that exists. A directory goes onto a directory, a
    /// file onto a file. A target below `/proc` must be on a procfs and is reached without symbolic links.
    pub targets: Vec<String>,
    /// What it means if it cannot be placed.
    pub need: Need,
    /// Whether programs and libraries in it may be run in the container.
    pub executable: bool,
}

impl Placing {
    /// The file `source` over the file `target`, essential.
    pub fn file(source: PathBuf, target: &str) -> Self {
        Self::essential(source, target)
    }

    /// What a container is to see in `/proc/driver`, essential: `tree` has the directory `nvidia`. That alone is
    /// covered where the kernel has it; elsewhere (no driver is loaded) all of `/proc/driver` is.
    pub fn proc_driver(tree: &Path) -> Vec<Self> {
        // Ours and the container's procfs are of one kernel.
        vec![Self::over_proc_driver(tree, Path::new(OWN_PROC).is_dir())]
    }

    fn over_proc_driver(tree: &Path, kernel_has_it: bool) -> Self {
        if kernel_has_it {
            Self::essential(tree.join("nvidia"), OWN_PROC)
        } else {
            Self::essential(tree.to_owned(), "/proc/driver")
        }
    }

    fn essential(source: PathBuf, target: &str) -> Self {
        let targets = vec![target.to_owned()];
        Self { source, targets, need: Need::Essential, executable: false }
    }
}

/// Places all of `placings` into the mount namespace of the container whose init, `init_pid`, was created but
/// not started; the caller knows that this process lives and is that init. Returns what could not be
/// placed though it was wished for; fails at the first essential one, and the container must then not be
/// started: what was placed before stays in its namespace and goes with it.
///
/// It is done on a thread of its own; `meanwhile` is done on this one, to its end whatever becomes of the placing.
pub fn place_beside<T>(
    init_pid: u32,
    placings: &[Placing],
    meanwhile: impl FnOnce() -> T,
) -> (Result<Vec<ArmError>, ArmError>, T) {
    if placings.is_empty() {
        return (Ok(Vec::new()), meanwhile());
    }
    let failed = |action| move |source| ArmError::Thread { action, source };
    // A thread of its own: one that has joined another namespace must never be used for anything else.
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("arm".to_owned())
            .spawn_scoped(scope, || enter_and_place(init_pid, placings));
        let done = meanwhile();
        let panicked = || failed("finish")(io::Error::other("it panicked"));
        let placed = match thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| Err(panicked())),
            Err(error) => Err(failed("start")(error)),
        };
        (placed, done)
    })
}

/// As [`place_beside`], with nothing beside it.
pub fn place(init_pid: u32, placings: &[Placing]) -> Result<Vec<ArmError>, ArmError> {
    place_beside(init_pid, placings, || ()).0
}

fn enter_and_place(init_pid: u32, placings: &[Placing]) -> Result<Vec<ArmError>, ArmError> {
    let mut warnings = Vec::new();
    let mut trees = Vec::with_capacity(placings.len());
    for placing in placings {
        let tree = Tree::prepare(&placing.source, placing.executable);
        if let Some(tree) = settle(placing.need, tree, &mut warnings)? {
            trees.push((placing, tree));
        }
    }
    if trees.is_empty() {
        return Ok(warnings);
    }

    let world = World::of(init_pid)?;
    let entering = |action| {
        move |errno: nix::Error| ArmError::Enter { action, pid: init_pid, source: errno.into() }
    };
    // setns(CLONE_NEWNS) changes root and working directory, which threads share until they say otherwise.
    unshare(CloneFlags::CLONE_FS).map_err(entering("prepare to join the namespace"))?;
    setns(&world.namespace, CloneFlags::CLONE_NEWNS)
        .map_err(entering("join the mount namespace"))?;
    // From here on nothing is named by a path but targets, and those from the container's root.
    for (placing, tree) in trees {
        let placed = world.put(&tree, &placing.targets);
        settle(placing.need, placed, &mut warnings)?;
    }
    Ok(warnings)
}

/// Keeps going after a failure of what was only wished for.
fn settle<T>(
    need: Need,
    result: Result<T, ArmError>,
    warnings: &mut Vec<ArmError>,
) -> Result<Option<T>, ArmError> {
    match (result, need) {
        (Ok(value), _) => Ok(Some(value)),
        (Err(error), Need::Essential) => Err(error),
        (Err(error), Need::BestEffort) => {
            warnings.push(error);
            Ok(None)
        }
    }
}

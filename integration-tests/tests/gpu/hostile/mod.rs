//! Hostile containers: images, environments, neighbours and requests that were made to reach the node. A trial for each way that was
//! found into other runtimes, named after it.
//!
//! Decides how an image is tried: as an overlay, and as a root that others have put in place. Must not know what the images do.

pub mod cache;
pub mod compat;
pub mod console;
pub mod keeps;
pub mod outside;
pub mod preload;
pub mod requests;
pub mod runtime;
pub mod swaps;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::evil::{self, Canary, Fate, try_out};
use integration_tests::gpu::world::{ONE_GPU, World};
use nix::sys::stat::{Mode, SFlag, mknod};

/// What must become of a container.
#[derive(Debug, Clone, Copy)]
pub enum Then {
    /// It runs, with its GPU.
    Runs,
    /// It is refused, in words with these among them.
    Refused(&'static str),
    /// Either: it is the OCI runtime's to say, and its versions differ.
    Either,
}

/// Changes a root; told where the canary is.
pub type Change = fn(&Path, &Canary) -> Result<()>;

/// How an image is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As an overlay that the shim mounts.
    Overlay,
    /// As a folder that somebody else has put in place.
    Folder,
}

/// Both of them.
pub const BOTH: [Way; 2] = [Way::Overlay, Way::Folder];

/// Tries each of these images each way on one node.
pub fn try_all(stage: &Stage, ways: &[Way], images: &[(&str, Change, Then)]) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let canary = Canary::plant(&world)?;
    let mut wrong = Vec::new();
    for (number, (what, change, then)) in images.iter().enumerate() {
        for way in ways {
            let tried = try_one(&world, &canary, *way, number, *change, *then);
            if let Err(error) = tried {
                wrong.push(format!("{what}, {way:?}: {error:#}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.node.is_free()
}

fn try_one(
    world: &World,
    canary: &Canary,
    way: Way,
    number: usize,
    change: Change,
    then: Then,
) -> Result<()> {
    let make = |root: &Path| evil::root(root, |root| change(root, canary));
    let (name, flags) = match way {
        Way::Overlay => {
            let name = format!("localhost/berth/evil{number}:test");
            world.built(&name, make)?;
            (name, &[][..])
        }
        Way::Folder => {
            let root = world.containerd.scratch.folder(format!("evil{number}"))?;
            make(&root)?;
            (root.to_string_lossy().into_owned(), &["--rootfs"][..])
        }
    };
    let fate = try_out(world, &name, &[&ONE_GPU[..], flags].concat());
    let settled = match (fate, then) {
        (Ok(Fate::Runs(task)), Then::Runs | Then::Either) => task.end(),
        (Ok(Fate::Refused(words)), Then::Refused(wanted)) if words.contains(wanted) => Ok(()),
        (Ok(Fate::Refused(_)), Then::Either) => Ok(()),
        (Ok(Fate::Runs(_)), then) => Err(anyhow::anyhow!("it runs, wanted {then:?}")),
        (Ok(Fate::Refused(words)), then) => {
            Err(anyhow::anyhow!("refused, wanted {then:?}: {words}"))
        }
        (Err(error), _) => Err(error),
    };
    let unharmed = canary.is_unharmed();
    settled.and(unharmed)
}

/// Puts a symbolic link in the place of whatever is at `at`.
pub fn link(root: &Path, at: &str, to: &str) -> Result<()> {
    symlink(to, cleared(root, at)?).with_context(|| at.to_owned())
}

/// Puts a fifo there.
pub fn fifo(root: &Path, at: &str) -> Result<()> {
    Ok(mknod(&cleared(root, at)?, SFlag::S_IFIFO, Mode::from_bits_truncate(0o666), 0)?)
}

/// Puts a device there that never ends when it is read.
pub fn device(root: &Path, at: &str) -> Result<()> {
    let zero = nix::sys::stat::makedev(1, 5);
    Ok(mknod(&cleared(root, at)?, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), zero)?)
}

/// Puts an empty folder there.
pub fn folder(root: &Path, at: &str) -> Result<()> {
    Ok(fs::create_dir(cleared(root, at)?)?)
}

/// Puts a file there.
pub fn file(root: &Path, at: &str, bytes: &[u8]) -> Result<()> {
    Ok(fs::write(cleared(root, at)?, bytes)?)
}

fn cleared(root: &Path, at: &str) -> Result<std::path::PathBuf> {
    let path = root.join(at);
    match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path)?,
        Ok(_) => fs::remove_file(&path)?,
        Err(_) => fs::create_dir_all(path.parent().context("below the root")?)?,
    }
    Ok(path)
}

/// As many `..` as no folder is deep, then the path.
pub fn upwards(path: &str) -> String {
    format!("../../../../../../../../../..{path}")
}

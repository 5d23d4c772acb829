//! CVE-2026-24260 (and, swapped so, CVE-2024-0132 again): names that change their meaning while they are used. A neighbour that shares
//! the root swaps what is there for a link out of it, as fast as it can, while containers are admitted.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::evil::{self, Canary, Fate, try_out};
use integration_tests::gpu::world::{ONE_GPU, World};
use integration_tests::runtime::substitute;
use integration_tests::versions::runc_version;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::link;

/// The first runc that makes mount points by descriptor (CVE-2024-45310).
const MENDED: [u32; 3] = [1, 1, 14];

/// How many containers are admitted meanwhile.
const ADMITTED: usize = 6;

/// Admits containers on one root while `at` in it is swapped with a link to `to`, a path of the canary's.
fn swapped(stage: &Stage, places: &[(&str, &str)]) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let canary = Canary::plant(&world)?;
    let root = world.containerd.scratch.folder("shared")?;
    let image = root.to_string_lossy().into_owned();
    evil::root(&root, |root| {
        fs::write(root.join("etc/ld.so.cache"), b"")?;
        fs::write(root.join("usr/local/cuda/compat/libcuda.so.999.0"), b"")?;
        places.iter().try_for_each(|(at, to)| link(root, &format!("{at}.swap"), &canary.at(to)))
    })?;
    let (over, swaps) = (AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
    let tried = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                swaps.fetch_add(
                    places.iter().filter(|(at, _)| swap(&root, at)).count(),
                    Ordering::Relaxed,
                );
            }
        });
        let tried = (0..ADMITTED).try_for_each(|_| {
            match try_out(&world, &image, &[&ONE_GPU[..], &["--rootfs"]].concat())? {
                Fate::Runs(task) => task.end()?,
                Fate::Refused(_) => {}
            }
            is_unharmed(&canary)
        });
        over.store(true, Ordering::Relaxed);
        tried
    });
    tried?;
    ensure!(swaps.into_inner() > 1000, "it was not swapped often");
    is_unharmed(&canary)?;
    world.node.is_free()
}

/// That no race changed the node. One that old runcs lose by themselves, for any mount whatever, is theirs.
fn is_unharmed(canary: &Canary) -> Result<()> {
    match substitute().is_none() && runc_version()? < MENDED {
        true => canary.is_unharmed_by_more_than_mount_points(),
        false => canary.is_unharmed(),
    }
}

fn swap(root: &Path, at: &str) -> bool {
    let (one, other) = (root.join(at), root.join(format!("{at}.swap")));
    renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).is_ok()
}

pub fn cve_2026_24260_a_loader_cache_that_is_swapped(stage: &Stage) -> Result<()> {
    swapped(stage, &[("etc/ld.so.cache", "etc/ld.so.cache")])
}

pub fn cve_2024_0132_a_compat_library_that_is_swapped(stage: &Stage) -> Result<()> {
    let library = "usr/local/cuda/compat/libcuda.so.999.0";
    swapped(stage, &[(library, "local/cuda/compat/libcuda.so.998.0")])
}

pub fn cve_2025_23359_a_compat_folder_that_is_swapped(stage: &Stage) -> Result<()> {
    swapped(
        stage,
        &[("usr/local/cuda/compat", "local/cuda/compat"), ("usr/local/cuda", "local/cuda")],
    )
}

pub fn cve_2026_24260_the_loader_s_folder_that_is_swapped(stage: &Stage) -> Result<()> {
    swapped(stage, &[("etc", "etc")])
}

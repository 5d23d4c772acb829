//! Hosts as distributions lay out a driver's files: wherever these are there, a container has the same.

use anyhow::{Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::world::{ONE_GPU, World};
use integration_tests::images::glibc;
use simnode::{Layout, Options};

use crate::layouts::{LIBRARIES, finds_the_driver};

/// What a container on a host of this layout has of the driver, after its own loader and `nvidia-smi` have found it.
fn had_on(stage: &Stage, layout: Layout) -> Result<String> {
    let options = Options { layout, ..Options::default() };
    let world = World::with(stage, "p5", &options, "")?;
    let task = world.sleeper_of(world.has(glibc::Layout::Debian)?, &ONE_GPU)?;
    finds_the_driver(&task)?;
    let ran = task.exec(&["ldconfig"])?;
    ensure!(ran.code() == 0, "{ran:?}");
    finds_the_driver(&task)?;
    let script = format!("ls {LIBRARIES} /usr/bin/nvidia* /usr/lib/firmware/nvidia/*");
    let listed = task.exec(&["sh", "-c", &script])?;
    ensure!(listed.code() == 0 && listed.out.contains("libcuda.so.1"), "{listed:?}");
    task.end()?;
    world.node.is_free()?;
    Ok(listed.out)
}

fn has_what_debian_s_has(stage: &Stage, layout: Layout) -> Result<()> {
    let (had, wanted) = (had_on(stage, layout)?, had_on(stage, Layout::Debian)?);
    ensure!(had == wanted, "{had} is not {wanted}");
    Ok(())
}

pub fn a_red_hat_host_s_driver_is_found(stage: &Stage) -> Result<()> {
    has_what_debian_s_has(stage, Layout::Redhat)
}

/// The names that the host's loader knows are links to `/etc/alternatives`, for some of the libraries; the rest is beside those.
pub fn the_driver_behind_debian_s_alternatives_is_found(stage: &Stage) -> Result<()> {
    has_what_debian_s_has(stage, Layout::DebianAlternatives)
}

//! Root filesystems of every kind: the driver comes into all of them, and nothing of the image leads anything astray.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::world::{ONE_GPU, World};
use integration_tests::images::glibc::Layout;
use integration_tests::machine;
use nix::mount::{MsFlags, mount};

use crate::layouts::finds_the_driver;

/// The driver in a container of Debian's layout that `change` has changed first. Returns the container's mount table.
fn found_in(
    stage: &Stage,
    flags: &[&str],
    change: impl FnOnce(&Path) -> Result<()>,
) -> Result<String> {
    let world = World::up(stage, "p5", "")?;
    let name = "localhost/berth/changed:test";
    world.built(name, |root| {
        Layout::Debian.build(root)?;
        change(root)
    })?;
    let task = world.sleeper_of(name, &[&ONE_GPU[..], flags].concat())?;
    finds_the_driver(&task)?;
    // As package installations do; a cache that were a mount could not be replaced.
    let ran = task.exec(&["ldconfig"])?;
    ensure!(ran.code() == 0, "{ran:?}");
    finds_the_driver(&task)?;
    let mounts = task.exec(&["cat", "/proc/self/mountinfo"])?.out;
    task.end()?;
    world.node.is_free()?;
    Ok(mounts)
}

/// Whether the table has the driver's libraries as a mount of their own, rather than in the root.
fn are_bound(mounts: &str) -> bool {
    mounts
        .lines()
        .any(|line| line.split(' ').nth(4).is_some_and(|place| place.ends_with("/nvidia/lib64")))
}

pub fn an_overlay_has_the_driver_as_a_layer(stage: &Stage) -> Result<()> {
    let mounts = found_in(stage, &[], |_| Ok(()))?;
    ensure!(!are_bound(&mounts), "{mounts}");
    Ok(())
}

pub fn a_read_only_root_has_the_driver(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let image = world.has(Layout::Debian)?;
    let task = world.sleeper_of(image, &[&ONE_GPU[..], &["--read-only"]].concat())?;
    finds_the_driver(&task)?;
    ensure!(task.exec(&["touch", "/etc/new"])?.code() != 0, "it is read-only");
    task.end()?;
    world.node.is_free()
}

pub fn usr_local_as_a_symlink_has_the_driver_by_binds(stage: &Stage) -> Result<()> {
    let mounts = found_in(stage, &[], |root| {
        fs::create_dir_all(root.join("opt/local"))?;
        Ok(symlink("/opt/local", root.join("usr/local"))?)
    })?;
    ensure!(are_bound(&mounts), "a layer would hide what the image has there: {mounts}");
    Ok(())
}

pub fn etc_as_a_symlink_has_the_driver_by_binds(stage: &Stage) -> Result<()> {
    let mounts = found_in(stage, &[], |root| {
        fs::rename(root.join("etc"), root.join("usr/etc"))?;
        Ok(symlink("usr/etc", root.join("etc"))?)
    })?;
    ensure!(are_bound(&mounts), "a layer would hide what the image has there: {mounts}");
    Ok(())
}

pub fn a_cache_that_leads_out_of_the_root_is_replaced_inside(stage: &Stage) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let victim = folder.path().join("victim");
    fs::write(&victim, "untouched")?;
    found_in(stage, &[], |root| {
        fs::remove_file(root.join("etc/ld.so.cache"))?;
        Ok(symlink(&victim, root.join("etc/ld.so.cache"))?)
    })?;
    ensure!(fs::read(&victim)? == b"untouched", "a file of the host was written");
    Ok(())
}

/// As flags of `ctr run`: a GPU for a container without an image.
const WITH_OWN_ROOT: [&str; 5] = [ONE_GPU[0], ONE_GPU[1], "--rootfs", "--env", "PATH=/bin:/sbin"];

/// A root that somebody else has put in place, in the trial's folder.
fn own_root(world: &World) -> Result<PathBuf> {
    let root = world.containerd.scratch.folder("own-root")?;
    Layout::Debian.build(&root)?;
    Ok(root)
}

pub fn a_root_mounted_by_others_has_the_driver(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let root = own_root(&world)?;
    let place = root.to_string_lossy().into_owned();
    let cache = root.join("etc/ld.so.cache");
    let before = fs::read(&cache)?;
    let task = world.sleeper_of(&place, &WITH_OWN_ROOT)?;
    finds_the_driver(&task)?;
    task.end()?;
    ensure!(fs::read(&cache)? == before, "the root's own cache was changed");
    let left = machine::mounts_below(&root)?;
    ensure!(left.is_empty(), "{left:?}");
    world.node.is_free()
}

pub fn a_root_that_cannot_be_written_has_the_driver(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let root = own_root(&world)?;
    let place = root.to_string_lossy().into_owned();
    let cache = root.join("etc/ld.so.cache");
    let before = fs::read(&cache)?;
    // The OCI runtime cannot make the places to bind to in a root like this; one that it could write to has them already.
    world.sleeper_of(&place, &WITH_OWN_ROOT)?.end()?;
    let none: Option<&str> = None;
    mount(Some(&root), &root, none, MsFlags::MS_BIND, none).context("bind the root")?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, &root, none, read_only, none).context("make it read-only")?;
    let task = world.sleeper_of(&place, &[&WITH_OWN_ROOT[..], &["--read-only"]].concat())?;
    finds_the_driver(&task)?;
    task.end()?;
    ensure!(fs::read(&cache)? == before, "the root's own cache was changed");
    nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH)?;
    world.node.is_free()
}

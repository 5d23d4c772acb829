//! Libraries: images of every layout find the driver by their own loader and their own `ldconfig -p`, and after it has run.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::gpu::world::{ONE_GPU, World, uuids};
use integration_tests::images::glibc::Layout;
use simnode::elf;

/// Where the driver's libraries are in every container.
pub const LIBRARIES: &str = "/usr/local/nvidia/lib64";

/// What `ldconfig -p` says of a library: the paths, the loader's choice first.
pub fn listed(task: &Task<'_>, library: &str) -> Result<Vec<String>> {
    let said = task.exec(&["ldconfig", "-p"])?;
    ensure!(said.code() == 0, "{said:?}");
    let lines = said.out.lines().filter(|line| line.split_whitespace().next() == Some(library));
    let paths = lines.filter_map(|line| Some(line.split_once(" => ")?.1.trim().to_owned()));
    Ok(paths.collect())
}

/// That the image's cache names our libraries, and its loader opens them.
pub fn finds_the_driver(task: &Task<'_>) -> Result<()> {
    for library in
        ["libcuda.so.1", "libcuda.so", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1"]
    {
        let paths = listed(task, library)?;
        ensure!(paths == [format!("{LIBRARIES}/{library}")], "{library}: {paths:?}");
    }
    // It opens libnvidia-ml.so.1 by that name, and looks at the devices.
    let said = task.exec(&["nvidia-smi", "-L"])?;
    ensure!(said.code() == 0 && said.out.lines().count() == 1, "{said:?}");
    // The image's own are still found.
    ensure!(task.exec(&["ldconfig", "--version"])?.code() == 0, "the image's own programs run");
    Ok(())
}

fn finds_it_before_and_after_ldconfig(stage: &Stage, layout: Layout) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let image = world.has(layout)?;
    let task = world.sleeper_of(image, &ONE_GPU)?;
    finds_the_driver(&task)?;
    if layout != Layout::Cacheless {
        // What the image's cache said is still said.
        let own = listed(&task, "libc.so.6")?;
        ensure!(own.len() == 1 && !own[0].starts_with(LIBRARIES), "{own:?}");
    }
    // As package installations in a container do; what is in /etc/ld.so.conf.d then counts.
    let ran = task.exec(&["ldconfig"])?;
    ensure!(ran.code() == 0, "{ran:?}");
    finds_the_driver(&task)?;
    ensure!(listed(&task, "libc.so.6")?.len() == 1, "the image's own libraries after ldconfig");
    task.end()
}

pub fn debian_s_loader_finds_the_driver(stage: &Stage) -> Result<()> {
    finds_it_before_and_after_ldconfig(stage, Layout::Debian)
}

pub fn red_hat_s_loader_finds_the_driver(stage: &Stage) -> Result<()> {
    finds_it_before_and_after_ldconfig(stage, Layout::RedHat)
}

pub fn an_image_without_a_cache_finds_the_driver(stage: &Stage) -> Result<()> {
    finds_it_before_and_after_ldconfig(stage, Layout::Cacheless)
}

pub fn a_musl_image_starts_and_the_log_warns(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let image = world.has(Layout::Musl)?;
    let task = world.sleeper_of(image, &ONE_GPU)?;
    let seen = task.exec(&[
        "sh",
        "-c",
        "ls /dev/nvidiactl /proc/driver/nvidia/gpus; ls /etc/ld.so.cache",
    ])?;
    ensure!(seen.out.contains("/dev/nvidiactl"), "the devices are there all the same: {seen:?}");
    ensure!(!seen.out.contains("ld.so.cache"), "musl reads no cache: {seen:?}");
    let log = world.containerd.log_text();
    let warned = log.lines().find(|line| line.contains("musl") && line.contains(&task.id));
    let line = warned.with_context(|| format!("no warning of musl for {}", task.id))?;
    ensure!(line.contains("need glibc"), "{line}");
    let grant = world.grant()?;
    let notes = grant["notes"].as_array().map_or(&[][..], Vec::as_slice);
    let noted = |note: &serde_json::Value| {
        note.as_str().is_some_and(|note| note.starts_with("the image's loader is musl ("))
    };
    ensure!(notes.iter().any(noted), "explain tells it, too: {grant}");
    task.end()
}

pub fn utility_alone_brings_no_cuda(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let image = world.has(Layout::Debian)?;
    let flags = [&ONE_GPU[..], &["--annotation", "berth.dev/driver-capabilities=utility"]].concat();
    let task = world.sleeper_of(image, &flags)?;
    ensure!(listed(&task, "libcuda.so.1")?.is_empty(), "no CUDA in the cache");
    let there = task.exec(&["ls", LIBRARIES])?;
    ensure!(there.out.contains("libnvidia-ml.so.1") && !there.out.contains("libcuda"), "{there:?}");
    let said = task.exec(&["nvidia-smi", "-L"])?;
    ensure!(said.code() == 0 && said.out.lines().count() == 1, "{said:?}");
    task.end()?;
    // The image may ask for less by its variable, and cannot ask for more than the default.
    let flags = [&ONE_GPU[..], &["--env", "NVIDIA_DRIVER_CAPABILITIES=compute,video"]].concat();
    let task = world.sleeper_of(image, &flags)?;
    let there = task.exec(&["ls", LIBRARIES])?;
    ensure!(there.out.contains("libcuda.so.1") && !there.out.contains("libnvidia-ml"), "{there:?}");
    ensure!(!there.out.contains("libnvcuvid"), "nobody asked for video but the image: {there:?}");
    task.end()
}

/// An image of this layout that brings a user-mode driver of its own.
fn with_compat(root: &Path, version: &str) -> Result<()> {
    Layout::Debian.build(root)?;
    let folder = root.join("usr/local/cuda/compat");
    fs::create_dir_all(&folder)?;
    for library in ["libcuda", "libnvidia-ptxjitcompiler"] {
        let bytes = elf::shared_object(elf::Machine::host(), &format!("{library}.so.1"));
        fs::write(folder.join(format!("{library}.so.{version}")), bytes)?;
    }
    Ok(std::os::unix::fs::symlink(format!("libcuda.so.{version}"), folder.join("libcuda.so.1"))?)
}

pub fn a_newer_driver_of_the_image_comes_first(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let compat = |name: &str, version: &str| world.built(name, |root| with_compat(root, version));
    // The node's driver is 550.163.01.
    let (newer, older) = ("localhost/berth/newer:test", "localhost/berth/older:test");
    compat(newer, "575.57.08")?;
    compat(older, "535.104.05")?;
    let task = world.sleeper_of(newer, &ONE_GPU)?;
    for (library, file) in [
        ("libcuda.so.1", "libcuda.so.575.57.08"),
        ("libnvidia-ptxjitcompiler.so.1", "libnvidia-ptxjitcompiler.so.575.57.08"),
    ] {
        let paths = listed(&task, library)?;
        ensure!(paths == [format!("/usr/local/cuda/compat/{file}")], "{library}: {paths:?}");
    }
    // NVML is no part of it: that must be of the kernel's version.
    ensure!(
        listed(&task, "libnvidia-ml.so.1")? == [format!("{LIBRARIES}/libnvidia-ml.so.1")],
        "NVML"
    );
    // A cache that the container makes itself says no less.
    let ran = task.exec(&["ldconfig"])?;
    ensure!(ran.code() == 0, "{ran:?}");
    let paths = listed(&task, "libcuda.so.1")?;
    ensure!(paths[0] == "/usr/local/cuda/compat/libcuda.so.1", "after ldconfig: {paths:?}");
    task.end()?;
    let task = world.sleeper_of(older, &ONE_GPU)?;
    finds_the_driver(&task)?;
    task.end()
}

pub fn the_driver_s_files_are_those_of_the_node_and_cannot_be_changed(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let image = world.has(Layout::Debian)?;
    let task = world.sleeper_of(image, &ONE_GPU)?;
    let given = world.grant()?;
    let checksums = format!("cd {LIBRARIES} && md5sum libcuda.so.1 libnvidia-ml.so.1");
    let before = task.exec(&["sh", "-c", &checksums])?;
    ensure!(before.code() == 0, "{before:?}");
    // In its own layer a container may write what it likes.
    let write = format!("echo x > {LIBRARIES}/libcuda.so.1; rm {LIBRARIES}/libnvidia-ml.so.1");
    task.exec(&["sh", "-c", &write])?;
    task.end()?;
    let next = world.sleeper_of(image, &ONE_GPU)?;
    ensure!(next.exec(&["sh", "-c", &checksums])?.out == before.out, "the next one's are whole");
    let again = world.grant()?;
    ensure!(uuids(&given) == uuids(&again), "the same GPU: {given} {again}");
    next.end()
}

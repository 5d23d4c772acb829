//! What was found in runc, where it touches what Berth adds: descriptors, /proc, /dev. Which versions of runc refuse and which run
//! such a container differs; the node is unharmed under each.

use std::fs;

use anyhow::{Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::evil::{Canary, Fate, try_out};
use integration_tests::gpu::world::{ONE_GPU, World};
use integration_tests::images;

use super::Then::{self, Either, Refused, Runs};
use super::{BOTH, Way, fifo, file, folder, link, try_all, upwards};

/// A working directory by way of a descriptor that was left open led to the node.
pub fn cve_2024_21626_no_descriptor_leads_to_the_node(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let canary = Canary::plant(&world)?;
    for number in 3..=12 {
        let cwd = format!("/proc/self/fd/{number}");
        let fate = try_out(&world, images::BUSYBOX, &[&ONE_GPU[..], &["--cwd", &cwd]].concat())?;
        ensure!(matches!(fate, Fate::Refused(_)), "there is a descriptor {number} to be in");
    }
    let Fate::Runs(task) = try_out(&world, images::BUSYBOX, &ONE_GPU)? else {
        anyhow::bail!("a plain one runs")
    };
    for number in 3..=12 {
        let cwd = format!("/proc/self/fd/{number}");
        let exec = format!("cwd{number}");
        let args = ["task", "exec", "--cwd", &cwd, "--exec-id", &exec, &task.id, "pwd"];
        let said = task.ctr.run(&args)?;
        ensure!(said.code() != 0, "an exec was in {number}: {said:?}");
    }
    task.end()?;
    canary.is_unharmed()?;
    world.node.is_free()
}

/// Device nodes went to where the image's link led.
pub fn cve_2026_41579_dev_is_a_link(stage: &Stage) -> Result<()> {
    const LINK: Then = Refused("/dev is a symbolic link");
    try_all(
        stage,
        &BOTH,
        &[
            ("absolute", |root, canary| link(root, "dev", &canary.at("dev")), LINK),
            ("upwards", |root, canary| link(root, "dev", &upwards(&canary.at("dev"))), LINK),
            (
                "through proc",
                |root, canary| link(root, "dev", &format!("/proc/self/root{}", canary.at("dev"))),
                LINK,
            ),
            (
                "through init",
                |root, canary| link(root, "dev", &format!("/proc/1/root{}", canary.at("dev"))),
                LINK,
            ),
            ("a loop", |root, _| link(root, "dev", "/dev"), LINK),
            ("a fifo", |root, _| fifo(root, "dev"), Refused("/dev is a device, fifo or socket")),
            (
                "nodes in it",
                |root, canary| {
                    folder(root, "dev")?;
                    link(root, "dev/null", &canary.at("dev/null"))?;
                    link(root, "dev/console", &canary.at("dev/null"))?;
                    link(root, "dev/nvidia0", &canary.at("dev/null"))
                },
                Runs,
            ),
        ],
    )
}

/// Masked paths and writes to procfs went to what stood in their places.
pub fn cve_2025_52881_proc_is_something_else(stage: &Stage) -> Result<()> {
    try_all(
        stage,
        &[Way::Folder],
        &[
            ("a link", |root, canary| link(root, "proc", &canary.at("")), Either),
            ("upwards", |root, canary| link(root, "proc", &upwards(&canary.at("empty"))), Either),
            ("to the node's", |root, _| link(root, "proc", "/proc/1/root/proc"), Either),
            ("a fifo", |root, _| fifo(root, "proc"), Either),
            (
                "a tree that looks like it",
                |root, canary| {
                    folder(root, "proc")?;
                    file(root, "proc/driver/nvidia/version", b"")?;
                    link(root, "proc/driver/nvidia/gpus", &canary.at("empty"))
                },
                Either,
            ),
        ],
    )
}

/// The place of the container's own `/proc/driver` is covered by the one who asks.
pub fn cve_2025_31133_mounts_over_what_is_masked(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let canary = Canary::plant(&world)?;
    // A volume of the container's own, that is not written to but by it.
    let volume = world.node.path("volume");
    fs::create_dir(&volume)?;
    let source = volume.display();
    let mut wrong = Vec::new();
    for mount in [
        format!("type=bind,src={source},dst=/proc/driver,options=rbind:rw"),
        format!("type=bind,src={source},dst=/proc/driver/nvidia,options=rbind:rw"),
        format!("type=bind,src={source},dst=/proc,options=rbind:rw"),
        "type=tmpfs,src=tmpfs,dst=/proc,options=rw".to_owned(),
        "type=bind,src=/proc,dst=/proc,options=rbind:rshared".to_owned(),
        format!("type=bind,src={source},dst=/usr/local/nvidia,options=rbind:rshared:rw"),
        format!("type=bind,src={source},dst=/etc,options=rbind:rshared:rw"),
        format!("type=bind,src={source},dst=/dev,options=rbind:rshared:rw"),
    ] {
        let fate = try_out(&world, images::BUSYBOX, &[&ONE_GPU[..], &["--mount", &mount]].concat());
        let ended = match fate {
            Ok(Fate::Runs(task)) => task.end(),
            Ok(Fate::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = ended.and(canary.is_unharmed()) {
            wrong.push(format!("{mount}: {error:#}"));
        }
        let written = fs::read_dir(&volume)?.count();
        if written > 0 {
            wrong.push(format!("{mount}: {written} files were left in it"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.node.is_free()
}

//! CVE-2025-52565: the places of a container's terminal are links, and runc mounted its console on what they led to. Here each leads to a
//! place of the node's.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::gpu::evil::{self, Canary, Fate, try_out_on_a_terminal};
use integration_tests::gpu::world::{ONE_GPU, World};
use integration_tests::images;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::{Change, link, upwards};

/// What is made of a `/dev`, below the folder that is given.
const LINKS: [(&str, Change); 6] = [
    ("console", |dev, canary| link(dev, "console", &canary.at("dev/null"))),
    ("console, upwards", |dev, canary| link(dev, "console", &upwards(&canary.at("secret")))),
    ("console, to be made", |dev, canary| link(dev, "console", &canary.at("empty/made"))),
    ("pts", |dev, canary| link(dev, "pts", &canary.at("empty"))),
    ("ptmx", |dev, canary| link(dev, "ptmx", &canary.at("secret"))),
    ("all, through init", |dev, canary| {
        for (name, to) in [("console", "secret"), ("pts", "empty"), ("ptmx", "dev/null")] {
            link(dev, name, &format!("/proc/1/root{}", canary.at(to)))?;
        }
        Ok(())
    }),
];

/// The kernel's number for terminals, as `stat` writes it, and what runc makes of the other place.
const OWN: &str = "character special file 88\npts/ptmx\ndevpts\n";

/// That the container's terminal is one of its own, at the places where one is.
fn has_its_own_terminal(task: &Task<'_>) -> Result<()> {
    let script = "stat -c '%F %t' /dev/console; readlink /dev/ptmx; \
                  sed -n 's:.* /dev/pts .* - \\([^ ]*\\) .*:\\1:p' /proc/self/mountinfo";
    let said = task.exec(&["/bin/busybox", "sh", "-c", script])?;
    ensure!(said.out == OWN, "{said:?}");
    Ok(())
}

/// The runtime's own /dev comes over the image's: it runs, and nothing of the image's links is left.
pub fn cve_2025_52565_the_places_of_a_terminal_are_links(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let canary = Canary::plant(&world)?;
    let mut wrong = Vec::new();
    for (number, (what, change)) in LINKS.into_iter().enumerate() {
        let name = format!("localhost/berth/console{number}:test");
        world.built(&name, |root| evil::root(root, |root| change(&made(root, "dev")?, &canary)))?;
        let ended = match try_out_on_a_terminal(&world, &name, &ONE_GPU) {
            Ok(Fate::Runs(task)) => has_its_own_terminal(&task).and_then(|()| task.end()),
            Ok(Fate::Refused(words)) => Err(anyhow::anyhow!("refused: {words}")),
            Err(error) => Err(error),
        };
        if let Err(error) = ended.and(canary.is_unharmed()) {
            wrong.push(format!("{what}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.node.is_free()
}

/// With a volume in the place of /dev the links are really there when the terminal is put in place. Which versions of runc refuse that
/// differs.
pub fn cve_2025_52565_the_places_of_a_terminal_are_links_in_a_volume(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let canary = Canary::plant(&world)?;
    let mut wrong = Vec::new();
    for (number, (what, change)) in LINKS.into_iter().enumerate() {
        let volume = made(&world.node.path("volumes"), &number.to_string())?;
        furnish(&volume)?;
        change(&volume, &canary)?;
        let own = format!("type=bind,src={},dst=/dev,options=rbind:rw", volume.display());
        let terminals = "type=devpts,src=devpts,dst=/dev/pts,options=newinstance:ptmxmode=0666";
        let flags = [&ONE_GPU[..], &["--mount", &own, "--mount", terminals]].concat();
        let ended = match try_out_on_a_terminal(&world, images::BUSYBOX, &flags) {
            Ok(Fate::Runs(task)) => task.end(),
            Ok(Fate::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = ended.and(canary.is_unharmed()) {
            wrong.push(format!("{what}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.node.is_free()
}

/// What a terminal needs, so that runc comes as far as the console; and the GPU's node, which runc makes in no /dev but its own.
fn furnish(volume: &Path) -> Result<()> {
    made(volume, "pts")?;
    link(volume, "ptmx", "pts/ptmx")?;
    for (name, device) in [("null", makedev(1, 3)), ("nvidia0", makedev(195, 0))] {
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&volume.join(name), SFlag::S_IFCHR, mode, device)?;
    }
    Ok(())
}

fn made(folder: &Path, name: &str) -> Result<std::path::PathBuf> {
    let path = folder.join(name);
    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

//! What Berth keeps under /run and /var/lib, with something else in its place: it follows no link, trusts no file that others could
//! have written, and says so.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::evil::{Canary, Fate, try_out};
use integration_tests::gpu::world::{ONE_GPU, World};
use integration_tests::images;

use super::Then::{self, Either, Refused};
use super::fifo;

/// Does something to the folder of this boot.
type Damage = fn(&Path, &Canary) -> Result<()>;

fn boot(world: &World) -> Result<PathBuf> {
    let id = fs::read_to_string(world.node.root().join("proc/sys/kernel/random/boot_id"))?;
    Ok(world.node.path("run").join(id.trim()))
}

fn lead_out(boot: &Path, file: &str, to: &str) -> Result<()> {
    let path = boot.join(file);
    if path.exists() {
        fs::rename(&path, boot.join(format!("{file}.aside")))?;
    }
    symlink(to, path).with_context(|| file.to_owned())
}

/// A node on which a container ran, then this happened to it: what becomes of the next container.
fn after(stage: &Stage, damages: &[(&str, Damage, Then)]) -> Result<()> {
    let mut wrong = Vec::new();
    for (what, damage, then) in damages {
        let world = World::up(stage, "t4", "")?;
        world.sleeper(&ONE_GPU)?.end()?;
        let boot = boot(&world)?;
        let canary = Canary::plant(&world)?;
        damage(&boot, &canary)?;
        let task = integration_tests::containerd::task::Task::named(&world.containerd, "evil");
        let said =
            task.foreground(integration_tests::containerd::task::BERTH, &ONE_GPU, &["true"])?;
        let words = said.err.clone();
        let fine = match then {
            Refused(wanted) => {
                said.code() == 1 && words.contains("berth: ") && words.contains(wanted)
            }
            Then::Runs => said.code() == 0,
            Either => said.code() == 0 || words.contains("berth: "),
        };
        if !fine {
            wrong.push(format!("{what}: wanted {then:?}: {said:?}"));
        }
        if let Err(error) = task.removed().and(canary.is_unharmed()) {
            wrong.push(format!("{what}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

pub fn the_ledger_s_folder_is_another_s(stage: &Stage) -> Result<()> {
    after(
        stage,
        &[
            (
                "a link",
                |boot, canary| {
                    fs::remove_dir_all(boot)?;
                    Ok(symlink(canary.at("empty"), boot)?)
                },
                Refused("a symbolic link"),
            ),
            (
                "open to all",
                |boot, _| Ok(fs::set_permissions(boot, Permissions::from_mode(0o777))?),
                Refused("lets others in"),
            ),
            (
                "another's",
                |boot, _| Ok(std::os::unix::fs::chown(boot, Some(1000), None)?),
                Refused("belongs to user 1000"),
            ),
            (
                "the one above a link",
                |boot, canary| {
                    let run = boot.parent().context("run")?;
                    fs::remove_dir_all(run)?;
                    Ok(symlink(canary.at("empty"), run)?)
                },
                Refused("a symbolic link"),
            ),
            (
                "the one above open to all",
                |boot, _| {
                    let run = boot.parent().context("run")?;
                    Ok(fs::set_permissions(run, Permissions::from_mode(0o777))?)
                },
                Refused("lets others in"),
            ),
        ],
    )
}

pub fn the_ledger_s_files_are_another_s(stage: &Stage) -> Result<()> {
    after(
        stage,
        &[
            (
                "a ledger elsewhere",
                |boot, canary| lead_out(boot, "ledger.json", &canary.at("secret")),
                Refused("ledger.json"),
            ),
            (
                "a ledger of nowhere",
                |boot, canary| lead_out(boot, "ledger.json", &canary.at("empty/made")),
                Refused("ledger.json"),
            ),
            (
                "a ledger for all",
                |boot, _| {
                    Ok(fs::set_permissions(
                        boot.join("ledger.json"),
                        Permissions::from_mode(0o666),
                    )?)
                },
                Refused("ledger.json"),
            ),
            ("a ledger that waits", |boot, _| fifo(boot, "ledger.json"), Refused("ledger.json")),
            (
                "a lock elsewhere",
                |boot, canary| lead_out(boot, "node.lock", &canary.at("secret")),
                Refused("node.lock"),
            ),
            ("a lock that waits", |boot, _| fifo(boot, "node.lock"), Refused("node.lock")),
        ],
    )
}

pub fn what_is_cached_is_another_s(stage: &Stage) -> Result<()> {
    after(
        stage,
        &[
            (
                "an inventory elsewhere",
                |boot, canary| lead_out(boot, "inventory.json", &canary.at("secret")),
                Either,
            ),
            (
                "an inventory for all",
                |boot, _| {
                    Ok(fs::set_permissions(
                        boot.join("inventory.json"),
                        Permissions::from_mode(0o666),
                    )?)
                },
                Either,
            ),
            ("an inventory that waits", |boot, _| fifo(boot, "inventory.json"), Either),
        ],
    )
}

pub fn a_container_s_end_leaves_nothing_of_it_in_run(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let names = || -> Result<Vec<String>> {
        let entries = fs::read_dir(boot(&world)?)?;
        let mut names: Vec<String> =
            entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    };
    let mut seen = Vec::new();
    for flags in [&[][..], &["--read-only"], &["--read-only"]] {
        try_out_plain(&world, flags)?;
        seen.push(names()?);
    }
    ensure!(seen[0] == seen[1] && seen[1] == seen[2], "{seen:#?}");
    Ok(())
}

fn try_out_plain(world: &World, flags: &[&str]) -> Result<()> {
    world.sleeper(&[&ONE_GPU[..], flags].concat())?.end()?;
    let Fate::Runs(task) = try_out(world, images::BUSYBOX, &ONE_GPU)? else {
        anyhow::bail!("a plain one runs")
    };
    task.end()
}

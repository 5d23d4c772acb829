//! A ledger that was damaged while containers run: nothing is granted until it is repaired, and then nobody has lost anything.

use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::{BERTH, Task};
use integration_tests::cri::pod::Pod;
use integration_tests::gpu::GpuNode;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use integration_tests::gpu::world::{ONE_GPU, World, uuids};
use serde_json::{Value, json};

use crate::command::has_fields;
use crate::instances;

const REPAIR: [&str; 2] = ["ledger", "repair"];

/// Cuts the ledger off within this line, from 0; what is left of it.
fn cut(node: &GpuNode, line: usize) -> Result<String> {
    let file = node.ledger()?;
    let whole = fs::read_to_string(&file)?;
    let start: usize = whole.lines().take(line).map(|line| line.len() + 1).sum();
    let left = whole[..start + 20].to_owned();
    fs::write(&file, &left)?;
    Ok(left)
}

/// That nobody is admitted, in words that name the way out.
fn is_refused(world: &World) -> Result<()> {
    let task = Task::named(&world.containerd, "refused");
    let said = task.foreground(BERTH, &ONE_GPU, &["true"])?;
    let words =
        "`berth ledger repair --dry-run` says what can be saved, `berth ledger repair` does it";
    ensure!(said.code() == 1 && said.err.contains(words), "{said:?}");
    task.removed()
}

/// Repairs, and says what was done.
fn repair(node: &GpuNode) -> Result<Value> {
    let done = node.json(&REPAIR)?;
    has_fields(
        &done,
        &[
            "dry_run",
            "ledger",
            "damage",
            "unreadable",
            "kept",
            "rebuilt",
            "dropped",
            "unrecorded",
            "unclaimed",
            "saved",
            "repaired",
        ],
    )?;
    ensure!(done["repaired"] == true, "{done:#}");
    let sound = node.json(&["ledger", "verify"])?;
    ensure!(sound["sound"] == true, "{sound:#}");
    Ok(done)
}

/// What a grant holds and whose it is, whatever else is known of it.
fn essence(grant: &Value) -> [Value; 5] {
    ["grant", "owner", "sandbox", "gpus", "requested"].map(|field| grant[field].clone())
}

/// Wherever the file was cut: what can be read stays, the rest is made anew, and each container keeps what it has until its end.
pub fn running_containers_keep_what_they_have(stage: &Stage) -> Result<()> {
    for line in 0..3 {
        let world = World::up(stage, "p5", "")?;
        let one = world.sleeper(&ONE_GPU)?;
        let two = world.sleeper(&["--annotation", "berth.dev/gpus=2"])?;
        let before: Vec<_> = world.node.grants()?.iter().map(essence).collect();
        let left = cut(&world.node, line)?;
        is_refused(&world)?;
        let said = world.node.berth(&[&REPAIR[..], &["--dry-run"]].concat())?;
        ensure!(said.code() == 0 && said.out.contains("nothing was changed"), "{said:?}");
        ensure!(fs::read_to_string(world.node.ledger()?)? == left, "a dry run");
        let done = repair(&world.node)?;
        let count = |list: &str| done[list].as_array().map_or(0, Vec::len);
        let kept = line.saturating_sub(1);
        ensure!((count("kept"), count("rebuilt")) == (kept, 2 - kept), "{line}: {done:#}");
        let saved = done["saved"].as_str().context("a file")?;
        ensure!(fs::read_to_string(saved)? == left, "the damaged one is kept as it was");
        let mut after: Vec<_> = world.node.grants()?.iter().map(essence).collect();
        after.sort_by_key(|one| before.iter().position(|other| other == one));
        ensure!(after == before, "{after:#?} is not {before:#?}");
        ensure!(
            world.node.grants()?.iter().all(|grant| grant["decided_by"] == "berth"),
            "by Berth"
        );
        // The others are to be had, and these are not.
        let rest = world.sleeper(&["--annotation", "berth.dev/gpus=5"])?;
        let mut all: Vec<String> = Vec::new();
        for grant in world.node.grants()? {
            all.extend(uuids(&grant).into_iter().map(str::to_owned));
        }
        all.sort_unstable();
        all.dedup();
        ensure!(all.len() == 8, "nothing is given twice: {all:?}");
        let full = Task::named(&world.containerd, "full");
        let said = full.foreground(BERTH, &ONE_GPU, &["true"])?;
        ensure!(said.code() == 1 && said.err.contains("nothing is free"), "{said:?}");
        full.removed()?;
        for task in [one, rest, two] {
            task.end()?;
        }
        world.node.is_free()?;
        let again = world.node.berth(&REPAIR)?;
        ensure!(again.out.contains("can be read: nothing to repair"), "{again:?}");
    }
    Ok(())
}

/// A claim that two containers of a pod share is one again, which a third joins; and a container's own is its own.
pub fn a_pods_claims_are_made_anew(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let pod: Pod<'_> = kubelet.pod(&[("berth.dev/gpus", "1"), ("own.berth.dev/gpus", "2")])?;
    let [one, two, own] = ["one", "two", "own"].map(|name| pod.run(name, &SLEEP));
    let (one, two, own) = (one?, two?, own?);
    let before = kubelet.node.grants()?;
    fs::write(kubelet.node.ledger()?, "")?;
    let done = repair(&kubelet.node)?;
    ensure!(done["rebuilt"].as_array().is_some_and(|all| all.len() == 2), "{done:#}");
    for id in [&one, &two, &own] {
        let uses = |grant: &&Value| {
            grant["members"]
                .as_array()
                .is_some_and(|all| all.iter().any(|it| it["container"] == **id))
        };
        let old = before.iter().find(uses).context("it was there")?;
        let grant = kubelet.grant_of(id)?;
        ensure!(essence(&grant) == essence(old), "{grant:#} is not {old:#}");
        kubelet.has_exactly(id, &grant)?;
    }
    let third = pod.run("third", &SLEEP)?;
    kubelet.has_exactly(&third, &kubelet.grant_of(&one)?)?;
    ensure!(kubelet.grant_of(&third)?["grant"] == kubelet.grant_of(&one)?["grant"], "one claim");
    pod.remove(&[&one, &two, &own, &third])?;
    kubelet.node.is_free()
}

/// Of an instance nobody can say any more who made it: its container keeps it, nobody destroys it, and once no record has it it is named.
pub fn an_instance_whose_record_was_lost_is_anothers(stage: &Stage) -> Result<()> {
    let world = instances::split(stage, "")?;
    let task = instances::sleeper(&world, "one", "2g.20gb")?;
    let before = world.grant()?;
    fs::write(world.node.ledger()?, "{}")?;
    let done = repair(&world.node)?;
    ensure!(done["unclaimed"] == json!([]), "its record has it: {done:#}");
    let after = world.grant()?;
    ensure!(after["decided_by"] == "ledger repair", "{after:#}");
    let mut standing = before["instances"].clone();
    standing[0]["stage"] = json!("foreign");
    ensure!(after["instances"] == standing, "{after:#} is not {before:#}");
    let next = instances::sleeper(&world, "next", "7g.80gb")?;
    let grants = world.node.grants()?;
    ensure!(uuids(&grants[0]) != uuids(&grants[1]), "beside it, not over it: {grants:#?}");
    next.end()?;
    task.end()?;
    let gpu = usize::try_from(before["gpus"][0]["index"].as_u64().context("an index")?)?;
    let start = u32::try_from(before["instances"][0]["start"].as_u64().context("a slice")?)?;
    instances::is_free_soon(&world, &[(gpu, 14, start)])?;
    fs::write(world.node.ledger()?, "{}")?;
    let said = world.node.berth(&[&REPAIR[..], &["--dry-run"]].concat())?;
    let one = &before["instances"][0];
    let words = format!("no record has the MIG instance 2g.20gb@{start} of ");
    ensure!(said.out.contains(&words) && said.out.contains("yours to destroy"), "{said:?}");
    let named = json!([{
        "gpu": one["gpu"], "profile": "2g.20gb", "start": start, "mig_uuids": [one["mig_uuid"]],
    }]);
    let done = repair(&world.node)?;
    ensure!(done["unclaimed"] == named, "{done:#} without {named:#}");
    Ok(())
}

/// Where it cannot be told whose a running container is, its record is lost only if the operator says so.
pub fn what_would_be_lost_takes_force(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let task = world.sleeper(&ONE_GPU)?;
    let pci = world.grant()?["gpus"][0]["pci"].as_str().context("an address")?.to_owned();
    let pid = world.containerd.bundles(task.ctr.namespace()).join(&task.id).join("init.pid");
    let number = fs::read_to_string(&pid)?;
    fs::remove_file(&pid)?;
    fs::write(world.node.ledger()?, "not a ledger")?;
    let said = world.node.berth(&REPAIR)?;
    let words = format!(
        "is not repaired: what these have could be given a second time: the container of process {number} with the GPUs at {pci} \
         (whose container it is cannot be told); end them first and try again, or accept that with `berth ledger repair --force`"
    );
    ensure!(said.code() == 1 && said.err.contains(&words), "{said:?} without {words}");
    ensure!(fs::read_to_string(world.node.ledger()?)? == "not a ledger", "nothing was changed");
    let shown = world.node.json(&[&REPAIR[..], &["--dry-run"]].concat())?;
    ensure!(
        shown["repaired"] == false
            && shown["unrecorded"].as_array().is_some_and(|all| all.len() == 1),
        "{shown:#}"
    );
    // Told whose it is, nothing is lost.
    fs::write(&pid, &number)?;
    ensure!(
        repair(&world.node)?["rebuilt"].as_array().is_some_and(|all| all.len() == 1),
        "its record"
    );
    fs::remove_file(&pid)?;
    fs::write(world.node.ledger()?, "not a ledger")?;
    let forced = world.node.json(&[&REPAIR[..], &["--force"]].concat())?;
    ensure!(forced["repaired"] == true && world.node.grants()?.is_empty(), "{forced:#}");
    fs::write(&pid, &number)?;
    task.end()?;
    world.node.is_free()
}

/// What a later version wrote is left to it, and what was taken away is not taken for empty by whoever repairs.
pub fn a_later_versions_ledger_is_not_repaired(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let task = world.sleeper(&ONE_GPU)?;
    let file = world.node.ledger()?;
    let whole = fs::read_to_string(&file)?;
    let newer = whole.replacen("\"format\":1", "\"format\":999", 1);
    for text in [newer.as_str(), &newer[..30]] {
        fs::write(&file, text)?;
        for flags in
            [&REPAIR[..], &["ledger", "repair", "--force"], &["ledger", "repair", "--dry-run"]]
        {
            let said = world.node.berth(flags)?;
            let words = "has format 999, and this version of Berth knows 1; no GPU is granted until Berth is upgraded to the version that \
                         wrote it, or the node is drained and restarted";
            ensure!(said.code() == 1 && said.err.contains(words), "{said:?}");
        }
        ensure!(fs::read_to_string(&file)? == text, "it was touched");
    }
    fs::remove_file(&file)?;
    let done = repair(&world.node)?;
    ensure!(
        done["saved"].is_null() && done["rebuilt"].as_array().is_some_and(|all| all.len() == 1),
        "{done:#}"
    );
    task.end()?;
    world.node.is_free()
}

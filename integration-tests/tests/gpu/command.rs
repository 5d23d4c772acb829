//! `berth` on the node: what the operator is shown, as text and as JSON, and what the exit status says.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::GpuNode;
use integration_tests::gpu::world::{ONE_GPU, World, uuids};
use serde_json::Value;

/// That an object has exactly these fields.
pub fn has_fields(value: &Value, fields: &[&str]) -> Result<()> {
    let have: BTreeSet<&str> = value
        .as_object()
        .with_context(|| format!("no object: {value}"))?
        .keys()
        .map(String::as_str)
        .collect();
    let wanted: BTreeSet<&str> = fields.iter().copied().collect();
    ensure!(have == wanted, "{have:?} are not {wanted:?}");
    Ok(())
}

/// Fields of a grant, documented in docs/berth.md.
const GRANT: [&str; 16] = [
    "grant",
    "owner",
    "containerd_namespace",
    "sandbox",
    "state",
    "decided_by",
    "requested",
    "gpus",
    "instances",
    "closeness",
    "driver_capabilities",
    "unconfined",
    "notes",
    "members",
    "created",
    "candidates",
];

fn is_a_grant(value: &Value) -> Result<()> {
    has_fields(value, &GRANT)?;
    has_fields(&value["gpus"][0], &["index", "uuid", "pci", "model", "memory_mib", "numa_node"])?;
    let member = &value["members"][0];
    has_fields(member, &["container", "name", "pid", "cpus", "memory", "extras"])?;
    has_fields(&member["cpus"], &["requested", "effective", "exclusive", "reason"])?;
    has_fields(&member["memory"], &["requested", "effective", "preferred", "reason"])?;
    has_fields(&value["candidates"][0], &["uuid", "verdict", "reason"])
}

pub fn ps_lists_grants(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let none = world.node.berth(&["ps"])?;
    ensure!(none.out == "No container holds a GPU by Berth.\n", "{none:?}");
    let task = world.sleeper(&["--annotation", "berth.dev/gpus=2"])?;
    let grant = world.grant()?;
    is_a_grant(&grant)?;
    let label = format!("{}/{}", task.ctr.namespace(), task.id);
    ensure!(
        grant["owner"] == *label && grant["sandbox"] == task.id && grant["state"] == "applied",
        "{grant:#}"
    );
    ensure!(grant["containerd_namespace"] == task.ctr.namespace(), "{grant:#}");
    ensure!(
        grant["requested"]["berth.dev/gpus"] == "2"
            && grant["driver_capabilities"] == "compute,utility",
        "{grant:#}"
    );
    ensure!(grant["members"][0]["pid"] == task.process()?.pid, "{grant:#}");
    let text = world.node.berth(&["ps"])?.out;
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect())
        .collect();
    ensure!(
        lines[0] == ["GRANT", "OWNER", "GPUS", "STATE", "DECIDED BY", "AGE", "CONTAINERS"],
        "{text}"
    );
    let indices: Vec<String> = grant["gpus"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|gpu| gpu["index"].to_string())
        .collect();
    let id = grant["grant"].as_str().context("an id")?;
    ensure!(lines[1][..5] == [id, &label, &indices.join(","), "applied", "berth"], "{text}");
    ensure!(lines[1][6] == task.id && lines.len() == 2, "{text}");
    task.end()
}

pub fn explain_finds_a_container_by_each_of_its_names(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "a30", "")?;
    let task = world.sleeper(&ONE_GPU)?;
    let grant = world.grant()?;
    let label = format!("{}/{}", task.ctr.namespace(), task.id);
    let id = grant["grant"].as_str().context("an id")?;
    for name in [task.id.as_str(), &task.id[..task.id.len() - 1], &label, id] {
        let found = world.node.json(&["explain", name])?;
        has_fields(&found, &["grants"])?;
        ensure!(found["grants"][0] == grant, "{name}: {found:#}");
    }
    // Every GPU of the node has its line, and why.
    let text = world.node.berth(&["explain", &task.id])?.out;
    ensure!(text.contains("Requested  berth.dev/gpus: \"1\""), "{text}");
    let candidates = grant["candidates"].as_array().context("candidates")?;
    ensure!(candidates.len() == world.state()?.gpus.len(), "{candidates:#?}");
    for candidate in candidates {
        let (uuid, verdict) = (&candidate["uuid"], &candidate["verdict"]);
        let line = format!(
            "{} {}",
            uuid.as_str().unwrap_or_default(),
            verdict.as_str().unwrap_or_default()
        );
        ensure!(text.contains(&line), "{line}: {text}");
        let chosen = uuids(&grant).contains(&uuid.as_str().unwrap_or_default());
        ensure!(
            (verdict == "chosen") == chosen && (candidate["reason"] == "") == chosen,
            "{candidate}"
        );
    }
    task.end()?;
    let unknown = world.node.berth(&["explain", "nobody"])?;
    ensure!(unknown.code() == 1 && unknown.err.contains("no grant of \"nobody\""), "{unknown:?}");
    Ok(())
}

pub fn topo_shows_who_holds_what_and_how_close_they_are(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let task = world.sleeper(&["--annotation", "berth.dev/gpus=2"])?;
    let label = format!("{}/{}", task.ctr.namespace(), task.id);
    let grant = world.grant()?;
    let shown = world.node.json(&["topo"])?;
    has_fields(&shown, &["driver", "gpus", "numa_nodes", "cpus"])?;
    has_fields(&shown["numa_nodes"][0], &["node", "cpus", "memory"])?;
    has_fields(&shown["cpus"], &["exclusive", "exclusive_free", "reserved", "isolated"])?;
    has_fields(&shown["driver"], &["version", "cuda"])?;
    let gpus = shown["gpus"].as_array().context("GPUs")?;
    ensure!(gpus.len() == 8, "{shown:#}");
    for gpu in gpus {
        has_fields(
            gpu,
            &[
                "index",
                "uuid",
                "pci",
                "model",
                "memory_mib",
                "numa_node",
                "memory_node",
                "mig",
                "holders",
                "instances",
                "links",
            ],
        )?;
        let held = uuids(&grant).contains(&gpu["uuid"].as_str().unwrap_or_default());
        ensure!((gpu["holders"][0] == *label) == held, "{gpu:#}");
        let links = gpu["links"].as_object().context("links")?;
        ensure!(links.len() == 7 && links.values().all(|link| link["nvlinks"] == 18), "{gpu:#}");
    }
    let text = world.node.berth(&["topo"])?.out;
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("GPU")).collect();
    ensure!(
        rows.len() == 8 && rows.iter().filter(|row| row.contains(&label)).count() == 2,
        "{text}"
    );
    ensure!(rows[0].split_whitespace().nth(1) == Some("X") && rows[0].contains("NV18"), "{text}");
    ensure!(text.contains("Legend:"), "{text}");
    task.end()
}

pub fn config_show_prints_what_is_in_force(stage: &Stage) -> Result<()> {
    let _ = stage;
    let node = GpuNode::up("one", "observe-deadline = 7\n[policy]\nnamespaces = [\"team-*\"]")?;
    let shown = node.json(&["config", "show"])?;
    has_fields(&shown, &["shim", "runtime", "node", "policy"])?;
    ensure!(
        shown["node"]["observe-deadline"] == 7 && shown["policy"]["namespaces"][0] == "team-*",
        "{shown:#}"
    );
    ensure!(
        shown["policy"]["env-requests"] == "off" && shown["node"]["release-wait"] == 15,
        "defaults too: {shown:#}"
    );
    // What it prints is a configuration.
    let printed = node.berth(&["config", "show"])?;
    fs::write(&node.config, &printed.out)?;
    ensure!(node.json(&["config", "show"])? == shown, "{}", printed.out);
    fs::write(&node.config, "[policy]\nenv-request = \"off\"\n")?;
    for command in [&["config", "show"][..], &["ps"], &["ledger", "verify"]] {
        let said = node.berth(command)?;
        ensure!(
            said.code() == 1 && said.err.contains("env-request") && said.err.contains("line 2"),
            "{command:?}: {said:?}"
        );
    }
    Ok(())
}

pub fn ledger_show_and_verify_read_the_record(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "one", "")?;
    let task = world.sleeper(&ONE_GPU)?;
    let shown = world.node.json(&["ledger", "show"])?;
    has_fields(&shown, &["generation", "grants"])?;
    ensure!(shown["generation"].as_u64().is_some_and(|generation| generation > 0), "{shown:#}");
    ensure!(shown["grants"][0] == world.grant()?, "{shown:#}");
    let text = world.node.berth(&["ledger", "show"])?.out;
    ensure!(text.lines().count() == 2 && text.starts_with("# generation "), "{text}");
    let record: Value = serde_json::from_str(text.lines().nth(1).context("a record")?)?;
    ensure!(record["id"] == shown["grants"][0]["grant"], "{record:#}");
    let sound = world.node.json(&["ledger", "verify"])?;
    has_fields(&sound, &["sound", "findings"])?;
    ensure!(
        sound["sound"] == true && sound["findings"].as_array().is_some_and(Vec::is_empty),
        "{sound}"
    );
    let reconciled = world.node.json(&["reconcile"])?;
    has_fields(&reconciled, &["dry_run", "released", "kept", "findings"])?;
    is_a_grant(&reconciled["kept"][0])?;
    task.end()
}

//! `berth topo` in its forms: who sits where, with grants of each kind and what others made.

use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::world::World;
use serde_json::{Value, json};

use super::command::has_fields;
use super::instances::{is_free_soon, sleeper};

/// CPU 1 is for whoever asks for it.
const POOL_1: &str =
    "exclusive-cpus = \"1\"\nreserved-cpus = \"2-3\"\n[policy]\nexclusive-cpus = \"non-cri\"";

/// A part of what is printed, as lines.
fn has_lines(text: &str, wanted: &[&str]) -> Result<()> {
    for line in wanted {
        ensure!(text.lines().any(|one| one.contains(line)), "no line {line:?}:\n{text}");
    }
    Ok(())
}

pub fn cores_and_slices_are_shown_with_who_holds_them(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p4d", POOL_1)?;
    // On these GPUs the mode waits for a reset.
    world.node.sim.set_mig_mode("0", true)?;
    world.node.sim.reset_gpu("0")?;
    let foreign = world.node.sim.create_instance("0", "3g.20gb", Some(4), true)?;
    let flags = ["--annotation", "berth.dev/gpus=1", "--annotation", "berth.dev/cpus=1"];
    let own = world.sleeper(&flags)?;
    let slice = sleeper(&world, "slice", "1g.5gb")?;
    let label = |id: &str| format!("{}/{id}", own.ctr.namespace());

    let shown = world.node.json(&["topo"])?;
    ensure!(world.node.json(&["topo", "--map"])? == shown, "JSON is the same in each form");
    let instances = shown["gpus"][0]["instances"].as_array().context("instances")?;
    ensure!(instances.len() == 2, "{instances:#?}");
    for one in instances {
        let fields =
            ["profile", "start", "slices", "gpu_instance", "mig_uuids", "holders", "foreign"];
        has_fields(one, &fields)?;
        ensure!(one["mig_uuids"].as_array().is_some_and(|uuids| uuids.len() == 1), "{one:#}");
    }
    let theirs = instances.iter().find(|one| one["foreign"] == true).context("theirs")?;
    ensure!(theirs["start"] == 4 && theirs["slices"] == 4, "{theirs:#}");
    ensure!(theirs["gpu_instance"] == foreign.id && theirs["holders"] == json!([]), "{theirs:#}");
    let ours = instances.iter().find(|one| one["foreign"] == false).context("ours")?;
    ensure!(
        ours["profile"] == "1g.5gb" && ours["holders"] == json!([label(&slice.id)]),
        "{ours:#}"
    );
    let cpus = json!({"exclusive": "1", "exclusive_free": "", "reserved": "2-3", "isolated": ""});
    ensure!(shown["cpus"] == cpus, "{:#}", shown["cpus"]);

    let start = ours["start"].as_u64().context("a slice")?;
    let (own_label, slice_label) = (label(&own.id), label(&slice.id));
    let matrix = world.node.berth(&["topo"])?.out;
    let of_ours = format!("GPU0  1g.5gb@{start}   {start}       {slice_label}");
    has_lines(&matrix, &[&of_ours, "GPU0  3g.20gb@4  4-7     - (not made by Berth)"])?;
    let tree = world.node.berth(&["topo", "--tree"])?.out;
    has_lines(
        &tree,
        &[
            "├─ NUMA node 0: 24 cores, CPUs 0-23,48-71",
            "CPUs 1: exclusive pool, held by",
            "CPUs 2-3: reserved",
            &format!("└─ {own_label}"),
            &format!("└─ {slice_label}"),
            "slices 4-7: 3g.20gb",
            "not made by Berth",
            "└─ Exclusive pool: CPUs 1, free: none",
        ],
    )?;
    is_a_map(&world, &own_label, start)?;
    is_a_picture(&world, [&own_label, &slice_label])?;
    own.end()?;
    slice.end()?;
    is_free_soon(&world, &[(0, foreign.profile, 4)])
}

fn is_a_map(world: &World, own: &str, start: u64) -> Result<()> {
    let map = world.node.berth(&["topo", "--map"])?;
    ensure!(map.code() == 0 && !map.out.contains('\u{1b}'), "nobody looks: {}", map.out);
    let drawn = |sign: &str| map.out.matches(sign).count();
    ensure!(drawn("[AAAAAAAAAAAAAAA]") == 1 && drawn("|#######]") == 1, "{}", map.out);
    let ours = format!("B 1g.5gb@{start}, # 3g.20gb@4");
    // A cell is a CPU: threads of core 1 are held apart.
    has_lines(&map.out, &[&ours, &format!("A  {own}"), "CPUs 1, its own", "A--", "- reserved"])?;
    let coloured = world.node.berth(&["topo", "--map", "--color", "always"])?.out;
    ensure!(coloured.contains("\u{1b}["), "{coloured}");
    Ok(())
}

fn is_a_picture(world: &World, labels: [&str; 2]) -> Result<()> {
    let path = world.node.path("map.svg");
    let name = path.to_string_lossy();
    for _ in ["made", "replaced"] {
        let said = world.node.berth(&["topo", "--svg", &name])?;
        ensure!(said.code() == 0 && said.out.is_empty(), "{said:?}");
    }
    let picture = fs::read_to_string(&path)?;
    ensure!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"), "{picture}");
    ensure!(labels.iter().all(|label| picture.contains(label)), "{labels:?}: {picture}");
    ensure!(world.node.berth(&["topo", "--svg", "-"])?.out == picture, "standard output");
    let refused = world.node.berth(&["topo", "--svg", "/dev/null"])?;
    ensure!(refused.code() == 1 && refused.err.contains("/dev/null is no file"), "{refused:?}");
    for wrong in [
        &["topo", "--tree", "--map"][..],
        &["topo", "--json", "--svg", &name],
        &["topo", "--map", "--color", "red"],
    ] {
        let said = world.node.berth(wrong)?;
        ensure!(said.code() == 2, "{wrong:?}: {said:?}");
    }
    Ok(())
}

/// Nodes of memory alone are with their GPUs, and empty ones are folded.
pub fn a_gb200_is_drawn_on_one_screen(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "gb200", "")?;
    let task = world.sleeper(&["--annotation", "berth.dev/gpus=2"])?;
    let shown = world.node.json(&["topo"])?;
    let nodes = shown["numa_nodes"].as_array().map_or(0, Vec::len);
    let memory = |gpu: &Value| gpu["memory_node"].as_u64();
    let gpus = shown["gpus"].as_array().context("GPUs")?;
    ensure!(nodes == 34 && gpus.iter().all(|gpu| memory(gpu).is_some()), "{shown:#}");
    let map = world.node.berth(&["topo", "--map"])?.out;
    ensure!(map.matches("its memory is NUMA node ").count() == gpus.len(), "{map}");
    ensure!(map.lines().count() < 30, "one screen:\n{map}");
    ensure!(map.lines().all(|line| line.chars().count() <= 80), "{map}");
    let tree = world.node.berth(&["topo", "--tree"])?.out;
    let first = memory(&gpus[0]).context("a node")?;
    has_lines(&tree, &[&format!("NUMA node {first}: its memory"), "NUMA nodes 3-9,"])?;
    task.end()?;
    world.node.is_free()
}

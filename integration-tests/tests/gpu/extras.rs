//! Extras: devices beside the GPUs, which reach those alone who ask for them where the operator lets them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use integration_tests::gpu::world::{ONE_GPU, World};
use nix::sys::stat::{major, minor};

/// Each extra, a machine that has it, and how the names of its nodes begin below `/dev`.
const FAMILIES: [(&str, &str, &[&str]); 5] = [
    ("gds", "p5", &["nvidia-fs"]),
    ("rdma", "p5", &["infiniband/uverbs", "infiniband/rdma_cm"]),
    ("gdrcopy", "p5", &["gdrdrv"]),
    ("imex", "gb200", &["nvidia-caps-imex-channels/channel"]),
    ("nvswitch", "p5", &["nvidia-nvswitch"]),
];

const DENIED: &str = "Operation not permitted";

/// A node below `/dev`, with its numbers.
type Node = (String, u64, u64);

/// The nodes of the machine whose names begin so.
fn of_the_node(world: &World, starts: &[&str]) -> Result<BTreeSet<Node>> {
    let dev = world.node.root().join("dev");
    let mut found = BTreeSet::new();
    for start in starts {
        let (folder, start) = start.rsplit_once('/').unwrap_or(("", start));
        for entry in fs::read_dir(dev.join(folder))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(start) {
                let number = entry.metadata()?.rdev();
                let path = format!("{folder}/{name}");
                found.insert((
                    path.trim_start_matches('/').to_owned(),
                    major(number),
                    minor(number),
                ));
            }
        }
    }
    ensure!(!found.is_empty(), "{starts:?} in {}", dev.display());
    Ok(found)
}

/// What a container has below `/dev` of all the families.
fn inside(task: &Task<'_>) -> Result<BTreeSet<String>> {
    let said = task.exec(&["sh", "-c", "cd /dev && find . -type c"])?;
    let starts: Vec<&str> =
        FAMILIES.iter().flat_map(|(_, _, starts)| starts.iter().copied()).collect();
    let names = said.out.lines().filter_map(|line| line.strip_prefix("./"));
    let ours = |name: &&str| starts.iter().any(|start| name.starts_with(start));
    Ok(names.filter(ours).map(str::to_owned).collect())
}

/// What the kernel says when a container opens a device by a node of its own making.
fn opened(task: &Task<'_>, (_, major, minor): &Node) -> Result<String> {
    let make =
        format!("[ -e /tmp/{major}.{minor} ] || mknod /tmp/{major}.{minor} c {major} {minor}");
    let said = task.exec(&["sh", "-c", &format!("{make}; cat /tmp/{major}.{minor} 2>&1")])?;
    Ok(said.out)
}

fn flags(annotation: &str) -> Vec<&str> {
    [&ONE_GPU[..], &["--annotation", annotation]].concat()
}

pub fn each_extra_reaches_those_who_ask_and_nobody_else(stage: &Stage) -> Result<()> {
    for machine in ["p5", "gb200"] {
        let own = || FAMILIES.iter().filter(|(_, on, _)| *on == machine);
        let keys: String = own().map(|(name, ..)| format!("{name} = \"non-cri\"\n")).collect();
        let world = World::up(stage, machine, &format!("[policy]\n{keys}"))?;
        for (name, _, starts) in own() {
            let nodes = of_the_node(&world, starts)?;
            let annotation = format!("berth.dev/extras={name}");
            let with = world.sleeper(&flags(&annotation))?;
            let without = world.sleeper(&ONE_GPU)?;
            let names: BTreeSet<String> = nodes.iter().map(|(path, ..)| path.clone()).collect();
            let seen = inside(&with)?;
            ensure!(seen == names, "{name}: {seen:?} are not {names:?}");
            ensure!(inside(&without)?.is_empty(), "{name}: nobody asked for it");
            for node in &nodes {
                let said = opened(&with, node)?;
                ensure!(said.contains("No such device"), "{name}: {node:?} is open: {said}");
                let said = opened(&without, node)?;
                ensure!(said.contains(DENIED), "{name}: {node:?} is shut: {said}");
            }
            let grants = world.node.grants()?;
            let extras = |task: &Task<'_>| {
                let members =
                    grants.iter().filter_map(|grant| grant["members"].as_array()).flatten();
                let mut own = members.filter(|member| member["container"] == task.id.as_str());
                own.next().and_then(|member| member["extras"].as_str())
            };
            ensure!(extras(&with) == Some(name) && extras(&without) == Some(""), "{grants:#?}");
            let told = world.node.berth(&["explain", &with.id])?;
            ensure!(told.out.contains(&format!("  Extras {name}\n")), "{told:?}");
            with.end()?;
            without.end()?;
        }
        world.node.is_free()?;
    }
    Ok(())
}

pub fn several_extras_come_together_and_storage_with_its_file(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "[policy]\ngds = \"non-cri\"\nrdma = \"all\"\n")?;
    let task = world.sleeper(&flags("berth.dev/extras=rdma, gds"))?;
    let starts = [FAMILIES[0].2, FAMILIES[1].2].concat();
    let wanted: BTreeSet<String> =
        of_the_node(&world, &starts)?.into_iter().map(|(path, ..)| path).collect();
    ensure!(inside(&task)? == wanted, "{wanted:?}");
    let own = fs::read_to_string(world.node.root().join("etc/cufile.json"))?;
    let said = task.exec(&["cat", "/etc/cufile.json"])?;
    ensure!(said.out == own, "{said:?} is not {own:?}");
    let said = task.exec(&["sh", "-c", "echo x > /etc/cufile.json"])?;
    ensure!(said.code() != 0, "it is read-only: {said:?}");
    let unchanged = fs::read_to_string(world.node.root().join("etc/cufile.json"))?;
    ensure!(unchanged == own, "{unchanged:?}");
    task.end()?;
    // Where the node has none, the container has the image's.
    fs::remove_file(world.node.root().join("etc/cufile.json"))?;
    let task = world.sleeper(&flags("berth.dev/extras=gds"))?;
    ensure!(task.exec(&["ls", "/etc/cufile.json"])?.code() != 0, "there is none");
    task.end()?;
    world.node.is_free()
}

pub fn extras_that_policy_bars_that_are_not_there_or_unknown_are_refused(
    stage: &Stage,
) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let refused = |annotation: &str, words: &str| world.refuses(&flags(annotation), words);
    let namespace = world.containerd.namespace();
    for (name, ..) in FAMILIES {
        refused(
            &format!("berth.dev/extras={name}"),
            &format!(
                "berth: annotation berth.dev/extras: containers of containerd namespace {namespace:?} may not ask: \
                 policy.{name} is \"off\", and it asks for {name}; the node's operator can allow it: policy.{name} = \"non-cri\""
            ),
        )?;
    }
    refused(
        "berth.dev/extras=nvlink",
        "berth: annotation berth.dev/extras=\"nvlink\": \"nvlink\" is not an extra (gds, rdma, gdrcopy, imex, nvswitch; \
         or none, alone); write for example berth.dev/extras: \"gds,rdma\"",
    )?;
    world.refuses(
        &["--annotation", "berth.dev/extras=rdma"],
        &format!(
            "berth: annotation berth.dev/extras: containers of containerd namespace {namespace:?} may not ask: \
             policy.rdma is \"off\", and it asks for rdma; the node's operator can allow it: policy.rdma = \"non-cri\""
        ),
    )?;
    let keys: String = FAMILIES.iter().map(|(name, ..)| format!("{name} = \"all\"\n")).collect();
    world.node.configure(&format!("[policy]\n{keys}"))?;
    for (name, node, driver) in [
        ("gds", "/dev/nvidia-fs*", "nvidia-fs"),
        ("rdma", "/dev/infiniband/uverbs*", "infiniband_verbs"),
        ("gdrcopy", "/dev/gdrdrv", "gdrdrv"),
        ("imex", "/dev/nvidia-caps-imex-channels/channel*", "nvidia-caps-imex-channels"),
        ("nvswitch", "/dev/nvidia-nvswitch*", "nvidia-nvswitch"),
    ] {
        refused(
            &format!("berth.dev/extras={name}"),
            &format!(
                "berth: annotation berth.dev/extras={name:?}: this node has no {name}: there is no {node} of the kernel's device \
                 {driver:?}; load its module, choose another node, or leave it out"
            ),
        )?;
    }
    world.refuses(
        &["--annotation", "berth.dev/extras=rdma"],
        "berth: annotation berth.dev/extras=\"rdma\": it says how to give GPUs, but none are asked for, \
         and nobody has allocated any; add for example berth.dev/gpus: \"1\", or remove it",
    )?;
    world.node.is_free()
}

/// Each container of a pod has those that it asks for itself; a pod may ask where policy says so of pods.
pub fn containers_of_a_pod_have_extras_of_their_own(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "p5", TRUSTED)?;
    let asks = [
        ("berth.dev/gpus", "1"),
        ("berth.dev/extras", "gdrcopy"),
        ("plain.berth.dev/extras", "none"),
    ];
    let barred = kubelet.pod(&asks)?;
    kubelet.refused_with(
        &barred,
        "main",
        "berth: annotation berth.dev/extras: pods of namespace \"tests\" may not ask: policy.gdrcopy is \"off\", \
         and it asks for gdrcopy; the node's operator can allow it: policy.gdrcopy = \"all\"",
    )?;
    barred.remove(&[])?;
    kubelet.node.configure(&format!("{TRUSTED}\ngdrcopy = \"all\""))?;
    let pod = kubelet.pod(&asks)?;
    let (main, plain) = (pod.run("main", &SLEEP)?, pod.run("plain", &SLEEP)?);
    let grant = kubelet.only_grant()?;
    let members = grant["members"].as_array().context("members")?;
    let extras = |id: &str| {
        let member = members.iter().find(|member| member["container"] == id);
        member.and_then(|member| member["extras"].as_str())
    };
    ensure!((extras(&main), extras(&plain)) == (Some("gdrcopy"), Some("")), "{grant:#}");
    let has = |id: &str| -> Result<bool> {
        let said = kubelet.cri.exec_sync(id, &["ls", "/dev"], 0)?;
        Ok(String::from_utf8_lossy(&said.stdout).lines().any(|name| name == "gdrdrv"))
    };
    ensure!(has(&main)? && !has(&plain)?, "one of the two asked");
    pod.remove(&[&main, &plain])?;
    kubelet.node.is_free()
}

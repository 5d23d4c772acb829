//! `berth plan` says what admission then does: the same GPUs, slices, CPUs and words; and it changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::ctr::Said;
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::gpu::GpuNode;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP as POD_SLEEP};
use integration_tests::gpu::world::{ONE_GPU, SLEEP, World, uuids};
use integration_tests::wait;
use serde_json::Value;

use crate::command::has_fields;
use crate::instances::{is_free_soon, mig, sleeper, split};
use crate::restarts::left_behind;

/// What `berth plan --json` answers, and its exit status.
fn planned(node: &GpuNode, flags: &[&str]) -> Result<(Value, i32)> {
    let said = node.berth(&[&["--json", "plan"], flags].concat())?;
    let plan = serde_json::from_str(&said.out).with_context(|| format!("{flags:?}: {said:?}"))?;
    Ok((plan, said.code()))
}

/// The plan of one container outside pods that asks for these annotations.
fn plan_of(world: &World, annotations: &[&str]) -> Result<(Value, i32)> {
    let namespace = world.containerd.namespace();
    let flags = annotations.iter().flat_map(|one| ["--annotation", one]);
    let flags: Vec<&str> = flags.chain(["--containerd-namespace", namespace]).collect();
    let (plan, code) = planned(&world.node, &flags)?;
    Ok((plan["containers"][0].clone(), code))
}

fn flags<'a>(annotations: &[&'a str]) -> Vec<&'a str> {
    annotations.iter().flat_map(|one| ["--annotation", one]).collect()
}

/// The instances of a plan or a grant: GPU, profile, first slice, slices.
fn places(shown: &Value) -> Vec<[Value; 4]> {
    let all = shown["instances"].as_array().into_iter().flatten();
    all.map(|one| ["gpu", "profile", "start", "slices"].map(|field| one[field].clone())).collect()
}

/// That the container that was planned is the one that was admitted.
fn is_as_planned(plan: &Value, grant: &Value, container: &str) -> Result<()> {
    for field in ["requested", "gpus", "closeness", "driver_capabilities", "candidates"] {
        ensure!(plan[field] == grant[field], "{field}: {plan:#}\n  is not\n{grant:#}");
    }
    ensure!(places(plan) == places(grant), "{plan:#}\n  is not\n{grant:#}");
    let members = grant["members"].as_array().context("members")?;
    let is_it = |member: &&Value| member["container"] == container;
    let member = members.iter().find(is_it).with_context(|| format!("{container} in {grant}"))?;
    for field in ["cpus", "memory"] {
        ensure!(plan[field] == member[field], "{field}: {plan:#}\n  is not\n{member:#}");
    }
    Ok(())
}

/// CPUs set aside, and everybody may have them: what the trials here ask of the node.
const POOL: &str = "exclusive-cpus = \"1\"\n[policy]\nexclusive-cpus = \"all\"\ndevices = \"all\"\nnamespaces = [\"tests\"]\n";

/// One request after the other, on a node that fills up.
pub fn what_is_planned_is_what_is_admitted(stage: &Stage) -> Result<()> {
    let world = split(stage, POOL)?;
    let foreign = world.node.sim.create_instance("0", "2g.20gb", None, true)?;
    let theirs = format!("berth.dev/devices={}", foreign.compute[0].uuid);
    let named = format!("berth.dev/devices={}", world.state()?.gpus[5].uuid);
    let requests: [&[&str]; 9] = [
        &["berth.dev/gpus=2"],
        &[&theirs],
        &["berth.dev/mig=1g.10gb"],
        &[&named],
        &["berth.dev/mig=2x3g.40gb", "berth.dev/numa=off"],
        &["berth.dev/gpus=1", "berth.dev/cpus=1"],
        &["berth.dev/mig=3x1g.10gb", "berth.dev/cpus=off"],
        &["berth.dev/gpus=1", "berth.dev/driver-capabilities=utility"],
        &["berth.dev/gpus=1"],
    ];
    let mut tasks = Vec::new();
    for (nth, request) in requests.into_iter().enumerate() {
        let (plan, code) = plan_of(&world, request)?;
        ensure!(code == 0 && plan["outcome"] == "given", "{request:?}: {plan:#}");
        // No id begins with another: what is left of a container is looked for by its id.
        let name = format!("planned{nth}");
        let task = Task::detached(&world.containerd, &name, &flags(request), &SLEEP)?;
        let grants = world.node.grants()?;
        let grant = grants.iter().find(|grant| grant["sandbox"] == task.id).context("a grant")?;
        is_as_planned(&plan, grant, &task.id).with_context(|| format!("{request:?}"))?;
        tasks.push(task);
    }
    tasks.into_iter().try_for_each(Task::end)?;
    is_free_soon(&world, &[(0, foreign.profile, foreign.placement.start)])
}

/// Whatever is wrong with a request: the plan says it as the container's create error does, and what it says would fit does.
pub fn what_is_refused_is_refused_in_the_same_words(stage: &Stage) -> Result<()> {
    let more = format!("{POOL}[policy.ceilings.\"*\"]\ngpus = 3\nmemory = 200000\n");
    let world = split(stage, &more)?;
    let holder = world.sleeper(&ONE_GPU)?;
    let requests: [&[&str]; 14] = [
        &["berth.dev/gpus=9"],
        &["berth.dev/gpus=3"],
        &["berth.dev/gpus=0"],
        &["berth.dev/gpu=1"],
        &["berth.dev/gpus=1", "berth.dev/mig=1g.10gb"],
        &["berth.dev/cpus=auto"],
        &["berth.dev/memory=8Gi"],
        &["a.berth.dev/gpus=1"],
        &["berth.dev/mig=5g.50gb"],
        &["berth.dev/mig=3x7g.80gb"],
        &["berth.dev/mig=2x7g.80gb"],
        &["berth.dev/mig=16x1g.10gb"],
        &["berth.dev/gpus=1", "berth.dev/cpus=2"],
        &["berth.dev/devices=GPU-00000000-0000-4000-8000-000000000000"],
    ];
    let mut fitted = 0;
    for request in requests {
        let (plan, code) = plan_of(&world, request)?;
        ensure!(code == 1 && plan["outcome"] == "refused", "{request:?}: {plan:#}");
        let words = plan["refusal"].as_str().context("words")?;
        world.refuses(&flags(request), words)?;
        let nearest = &plan["nearest_fit"];
        if let (Some(annotation), Some(value)) =
            (nearest["annotation"].as_str(), nearest["value"].as_str())
        {
            let instead = format!("{annotation}={value}");
            let (plan, code) = plan_of(&world, &[&instead])?;
            ensure!(code == 0, "{request:?}: {instead} is said to fit: {plan:#}");
            let task = Task::detached(&world.containerd, "instead", &flags(&[&instead]), &SLEEP)?;
            task.end()?;
            wait::until("it is gone", || (world.node.grants().ok()?.len() == 1).then_some(()))?;
            fitted += 1;
        }
    }
    ensure!(fitted >= 5, "nearest fits are tried out, and {fitted} were");
    holder.end()?;
    is_free_soon(&world, &[])
}

/// Everything below a folder: inode, time of change, and what is in a file.
type Picture = BTreeMap<PathBuf, (u64, i64, i64, Vec<u8>)>;

fn picture(folder: &Path) -> Result<Picture> {
    let mut found = BTreeMap::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let meta = fs::symlink_metadata(&path)?;
        let bytes = if meta.is_file() { fs::read(&path)? } else { Vec::new() };
        found.insert(path.clone(), (meta.ino(), meta.mtime(), meta.mtime_nsec(), bytes));
        if meta.is_dir() {
            found.extend(picture(&path)?);
        }
    }
    Ok(found)
}

pub fn a_plan_changes_nothing_on_the_node(stage: &Stage) -> Result<()> {
    let more = "[policy]\nmig-mode-switch = \"all\"\n";
    let world = split(stage, more)?;
    let dead = left_behind(&world)?;
    let other = world.another(stage)?;
    let task = Task::detached(&other, "lives", &["--annotation", "berth.dev/mig=1g.10gb"], &SLEEP)?;
    let (run, state) = (world.node.path("run"), world.node.path("state"));
    let before = (picture(&run)?, picture(&state)?, world.state()?);
    let plans: [(&[&str], i32); 9] = [
        (&["--gpus", "1"], 0),
        // For this, what the dead hold has to be given back.
        (&["--gpus", "6"], 0),
        (&["--gpus", "7"], 1),
        (&["--mig", "2x3g.40gb"], 0),
        // For this, a GPU has to be switched.
        (&["--mig", "3x7g.80gb"], 0),
        (&["--mig", "40x7g.80gb"], 1),
        (&["--gpus", "many"], 1),
        (&["-f", "/nonexistent"], 2),
        (&["--gpus", "1", "--count", "20"], 1),
    ];
    for (flags, code) in plans {
        let said = world.node.berth(&[&["plan"], flags].concat())?;
        ensure!(said.code() == code, "{flags:?}: {said:?}");
    }
    let after = (picture(&run)?, picture(&state)?, world.state()?);
    ensure!(before.0 == after.0 && before.1 == after.1, "what Berth keeps was changed");
    ensure!(before.2 == after.2, "the node was changed");
    let (plan, _) = planned(&world.node, &["--gpus", "6"])?;
    let steps = plan["containers"][0]["steps"].to_string();
    ensure!(steps.contains("give back what is left of "), "{steps}");
    ensure!(uuids(&plan["containers"][0]).contains(&dead[0].as_str()), "{plan:#}");
    task.end()?;
    Ok(())
}

/// Idle instances, and GPUs that have to be switched: the steps are those that are then taken.
pub fn instances_are_planned_with_the_steps_that_make_them(stage: &Stage) -> Result<()> {
    let more = "mig-linger = 60\n[policy]\nmig-mode-switch = \"all\"\n";
    let world = split(stage, more)?;
    let first = sleeper(&world, "first", "1g.10gb")?;
    first.end()?;
    let releasing =
        || world.node.grants().ok()?.iter().any(|g| g["state"] == "releasing").then_some(());
    wait::until("the instance is idle", releasing)?;
    let (plan, _) = plan_of(&world, &["berth.dev/mig=1g.10gb"])?;
    let step = plan["steps"][0].as_str().context("a step")?;
    ensure!(step.starts_with("take over the idle 1g.10gb at slice "), "{plan:#}");
    ensure!(plan["instances"][0]["reused"] == true, "{plan:#}");
    let second = sleeper(&world, "second", "1g.10gb")?;
    let grant = world.grant()?;
    is_as_planned(&plan, &grant, &second.id)?;
    // Of the model's profiles is known from the GPUs that are in MIG mode.
    let (plan, code) = plan_of(&world, &["berth.dev/mig=2x7g.80gb"])?;
    let switched = plan["steps"][0].as_str().and_then(|step| step.strip_prefix("switch "));
    let switched = switched.and_then(|step| step.strip_suffix(" into MIG mode"));
    let switched = switched.with_context(|| format!("{plan:#}"))?;
    ensure!(code == 0 && plan["steps"].as_array().map(Vec::len) == Some(3), "{plan:#}");
    let third = Task::detached(
        &world.containerd,
        "third",
        &mig("2x7g.80gb").each_ref().map(String::as_str),
        &SLEEP,
    )?;
    let state = world.state()?;
    ensure!(state.gpus[state.find(switched)?].in_mig_mode(), "{switched} was to be switched");
    let grants = world.node.grants()?;
    let grant = grants.iter().find(|grant| grant["sandbox"] == third.id).context("a grant")?;
    is_as_planned(&plan, grant, &third.id)?;
    world.node.set("mig-linger", "0")?;
    third.end()?;
    second.end()?;
    is_free_soon(&world, &[])
}

/// On a node none of whose GPUs is in MIG mode, only the profile's name tells what will fit.
pub fn what_no_driver_says_yet_is_foretold_as_such(_: &Stage) -> Result<()> {
    let node = GpuNode::up("p5", "[policy]\nmig-mode-switch = \"all\"\n")?;
    let (plan, code) = planned(&node, &["--mig", "9x1g.10gb"])?;
    let one = &plan["containers"][0];
    ensure!(
        code == 0 && one["outcome"] == "foretold" && one["foretold"] == "mig 9x1g.10gb",
        "{one:#}"
    );
    ensure!(one["steps"].as_array().map(Vec::len) == Some(2), "seven fit on one: {one:#}");
    let said = node.berth(&["plan", "--mig", "1g.10gb", "--count", "100"])?;
    ensure!(said.code() == 2 && said.err.contains("it cannot be told what fits"), "{said:?}");
    Ok(())
}

const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: POD
  namespace: tests
  annotations:
    berth.dev/gpus: "2"
    proxy.berth.dev/gpus: none
    watcher.berth.dev/mig: "3g.40gb"
    big.berth.dev/gpus: "7"
spec:
  runtimeClassName: berth
  initContainers:
  - {name: fetch, image: i}
  - {name: proxy, image: i, restartPolicy: Always}
  containers:
  - {name: trainer, image: i}
  - {name: watcher, image: i}
  - {name: big, image: i}
"#;

pub fn a_pods_containers_are_planned_as_they_are_admitted(stage: &Stage) -> Result<()> {
    let node = GpuNode::up("p5", POOL)?;
    for gpu in ["0", "1"] {
        node.sim.set_mig_mode(gpu, true)?;
    }
    let kubelet = Kubelet::on(stage, node)?;
    let manifest = kubelet.node.path("pod.yaml");
    let pod = kubelet.pod(&[
        ("berth.dev/gpus", "2"),
        ("proxy.berth.dev/gpus", "none"),
        ("watcher.berth.dev/mig", "3g.40gb"),
        ("big.berth.dev/gpus", "7"),
    ])?;
    fs::write(&manifest, MANIFEST.replace("POD", pod.name()))?;
    let (plan, code) = planned(&kubelet.node, &["-f", manifest.to_str().context("a path")?])?;
    ensure!(code == 1 && plan["warnings"].as_array().is_some_and(Vec::is_empty), "{plan:#}");
    let all = plan["containers"].as_array().context("containers")?;
    let outcomes: Vec<(&str, &str, &str)> = all
        .iter()
        .map(|one| ["container", "kind", "outcome"].map(|field| one[field].as_str().unwrap_or("?")))
        .map(|[name, kind, outcome]| (name, kind, outcome))
        .collect();
    let expected = [
        ("fetch", "init", "given"),
        ("proxy", "sidecar", "nothing"),
        ("trainer", "app", "shared"),
        ("watcher", "app", "given"),
        ("big", "app", "refused"),
    ];
    ensure!(outcomes == expected, "{outcomes:?}");
    let fetch = pod.run("fetch", &POD_SLEEP)?;
    is_as_planned(&all[0], &kubelet.grant_of(&fetch)?, &fetch)?;
    let proxy = pod.run("proxy", &POD_SLEEP)?;
    kubelet.has_nothing(&proxy)?;
    let (trainer, watcher) = (pod.run("trainer", &POD_SLEEP)?, pod.run("watcher", &POD_SLEEP)?);
    for (planned, id) in [(&all[2], &trainer), (&all[3], &watcher)] {
        is_as_planned(planned, &kubelet.grant_of(id)?, id)?;
    }
    kubelet.refused_with(&pod, "big", all[4]["refusal"].as_str().context("words")?)?;
    ensure!(all[4]["nearest_fit"]["annotation"] == "big.berth.dev/gpus", "{:#}", all[4]);
    // What pods of another namespace hear.
    let (plan, code) = planned(&kubelet.node, &["--gpus", "1", "--namespace", "others"])?;
    ensure!(code == 1, "{plan:#}");
    let barred = kubelet.pod_in("others", &[("berth.dev/gpus", "1")])?;
    let words = plan["containers"][0]["refusal"].as_str().context("words")?;
    kubelet.refused_with(&barred, "main", words)?;
    barred.remove(&[])?;
    pod.remove(&[&fetch, &proxy, &trainer, &watcher])?;
    wait::until("all is given back", || kubelet.node.is_free().ok())
}

/// Word for word, where nothing of it depends on the machine.
pub fn a_plan_reads_as_it_should(_: &Stage) -> Result<()> {
    let on = |profile: &str, flags: &[&str]| -> Result<(Said, GpuNode)> {
        let node = GpuNode::up(profile, "")?;
        if profile == "a30" {
            let state = node.sim.change(simnode::Change::Mig {
                gpu: "0".to_owned(),
                mode: simnode::state::MigMode { current: true, pending: true },
            });
            state?;
        }
        let plain = ["plan", "--cpus", "off", "--numa", "off"];
        Ok((node.berth(&[&plain[..], flags].concat())?, node))
    };
    let (said, node) = on("l40s", &["--gpus", "2"])?;
    let gpus = node.sim.state()?.gpus;
    let lines: Vec<&str> = said.out.lines().collect();
    ensure!(said.code() == 0, "{said:?}");
    let expected = [
        "Requested  berth.dev/cpus: \"off\"".to_owned(),
        "           berth.dev/gpus: \"2\"".to_owned(),
        "           berth.dev/numa: \"off\"".to_owned(),
    ];
    ensure!(lines[..3] == expected.each_ref().map(String::as_str), "{}", said.out);
    ensure!(
        lines[3].starts_with("Gets       GPU ") && lines[4].starts_with("           GPU "),
        "{}",
        said.out
    );
    ensure!(
        lines[5].starts_with("Closeness  ") && lines[6] == "Driver     compute,utility",
        "{}",
        said.out
    );
    let looked: Vec<&str> =
        lines[7..].iter().map(|line| line[11..].split(' ').next().unwrap_or_default()).collect();
    ensure!(lines[7].starts_with("Looked at  "), "{}", said.out);
    ensure!(looked == gpus.iter().map(|gpu| gpu.uuid.as_str()).collect::<Vec<_>>(), "{}", said.out);

    let (said, node) = on("a30", &["--mig", "2g.12gb", "--count", "3"])?;
    let (uuid, mut out) = (node.sim.state()?.gpus[0].uuid.clone(), said.out.clone());
    ensure!(said.code() == 1, "{said:?}");
    out = out.replace(&uuid, "UUID");
    for line in [
        "           berth.dev/mig: \"2g.12gb\"",
        "           MIG 2g.12gb@0 on UUID, slices 0-1 (28 SMs, 11968 MiB, to be made)",
        "Steps      make 2g.12gb at slice 0 of UUID",
        "Looked at  UUID chosen",
        "Tried      time 3",
        "2 of 3 fit, one after the other.",
    ] {
        ensure!(out.lines().any(|one| one == line), "{line:?} is not in\n{out}");
    }
    let refused = out.lines().find(|line| line.starts_with("Refused")).context("a refusal")?;
    let begins = "Refused    berth: no room for mig 2g.12gb: UUID: held by 2g.12gb (default/planned) and 2g.12gb (default/planned-2); ";
    ensure!(refused.starts_with(begins), "{refused}");
    Ok(())
}

/// The stable fields.
pub fn a_plan_has_its_documented_fields(_: &Stage) -> Result<()> {
    let node = GpuNode::up("one", "")?;
    let (plan, code) = planned(&node, &["--gpus", "1", "--count", "2"])?;
    ensure!(code == 1, "{plan:#}");
    has_fields(&plan, &["fits", "count", "fitting", "warnings", "containers", "next"])?;
    ensure!(plan["fits"] == false && plan["count"] == 2 && plan["fitting"] == 1, "{plan:#}");
    for container in [&plan["containers"][0], &plan["next"][0]] {
        has_fields(
            container,
            &[
                "pod",
                "container",
                "kind",
                "outcome",
                "requested",
                "gpus",
                "instances",
                "closeness",
                "driver_capabilities",
                "foretold",
                "cpus",
                "memory",
                "steps",
                "candidates",
                "refusal",
                "nearest_fit",
            ],
        )?;
    }
    let (plan, _) = planned(&node, &["--gpus", "2"])?;
    has_fields(&plan["containers"][0]["nearest_fit"], &["annotation", "value"])?;
    // Bad input is told apart from a refusal.
    for (flags, words) in [
        (&["plan"][..], "nothing is asked for"),
        (&["plan", "--annotation", "berth.dev/gpus"], "is not KEY=VALUE"),
        (&["plan", "--gpus", "1", "--annotation", "berth.dev/gpus=2"], "is given twice"),
        (&["plan", "--gpus", "1", "-f", "-"], "cannot be used with"),
        (&["plan", "--gpus", "1", "--count", "0"], "invalid value"),
    ] {
        let said = node.berth(flags)?;
        ensure!(said.code() == 2 && said.err.contains(words), "{flags:?}: {said:?}");
    }
    Ok(())
}

//! The keys of `[node]` that decide where things are, what may be handed out, and how long is waited. (`cdi-dirs` is in `cdi`, `kubelet` in
//! `prior`.)

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use integration_tests::gpu::tool;
use integration_tests::machine::processes;
use integration_tests::wait;

/// Runs a pod with one GPU to its end and gives what was in it.
fn one_gpu(kubelet: &Kubelet) -> Result<integration_tests::gpu::kubelet::Inside> {
    let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let id = pod.run("main", &SLEEP)?;
    let inside = kubelet.has_exactly(&id, &kubelet.only_grant()?)?;
    ensure!(inside.libraries.contains("libcuda.so.1"), "{inside:#?}");
    pod.remove(&[&id])?;
    kubelet.node.is_free()?;
    Ok(inside)
}

/// What a pod that asks for one GPU is refused with.
fn refusal(kubelet: &Kubelet) -> Result<String> {
    let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let words = kubelet.refused(&pod, "main", |_| ())?;
    pod.remove(&[])?;
    Ok(words)
}

/// A program that the shim may run as `berth`.
fn script(kubelet: &Kubelet, name: &str, text: &str) -> Result<String> {
    let path = kubelet.node.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(format!("{path:?}"))
}

/// `node.gpus`: by UUID and by PCI address; the others are left alone, and told of.
pub fn gpus_are_handed_out_by_uuid_and_by_pci_address(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    let gpus = kubelet.node.sim.state()?.gpus;
    let pci = gpus[2].route.device.to_string();
    kubelet.node.configure(&format!("gpus = [{:?}, {pci:?}]\n{TRUSTED}", gpus[1].uuid))?;
    let pod = kubelet.pod(&[("two.berth.dev/gpus", "2"), ("three.berth.dev/gpus", "3")])?;
    let states = ["not in node.gpus", "free", "free", "not in node.gpus"];
    let candidates: Vec<String> =
        gpus.iter().zip(states).map(|(gpu, state)| format!("{}: {state}", gpu.uuid)).collect();
    let words =
        format!("berth: no room for gpus 3: {}; nearest fit: gpus 2", candidates.join("; "));
    kubelet.refused_with(&pod, "three", &words)?;
    let id = pod.run("two", &SLEEP)?;
    let grant = kubelet.only_grant()?;
    let given = [&grant["gpus"][0]["uuid"], &grant["gpus"][1]["uuid"]];
    ensure!(given == [&gpus[1].uuid, &gpus[2].uuid], "{grant:#}");
    kubelet.has_exactly(&id, &grant)?;
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// `node.run` and `node.state`: the ledger and caches in one, the driver's files in the other, and nothing anywhere else.
pub fn run_and_state_hold_what_berth_keeps(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    let (run, state) = (kubelet.node.path("elsewhere/run"), kubelet.node.path("elsewhere/state"));
    kubelet.node.set("run", &format!("{run:?}"))?;
    kubelet.node.set("state", &format!("{state:?}"))?;
    one_gpu(&kubelet)?;
    let boot = fs::read_to_string(kubelet.node.root().join("proc/sys/kernel/random/boot_id"))?;
    ensure!(run.join(boot.trim()).join("ledger.json").is_file(), "the ledger");
    ensure!(run.join(boot.trim()).join("inventory.json").is_file(), "the inventory");
    let driver = kubelet.node.sim.state()?.driver.context("a driver")?.version;
    ensure!(state.join("driver").join(driver).is_dir(), "the driver's files");
    for default in ["run", "state"] {
        ensure!(!kubelet.node.path(default).exists(), "{default} is used, too");
    }
    Ok(())
}

/// `node.driver-root`: as a driver container has it, the driver's files are not where the host's are.
pub fn driver_root_is_where_the_drivers_files_are_looked_for(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    let root = kubelet.node.root();
    let nvml = kubelet.node.sim.nvml_path()?;
    let below = nvml.strip_prefix(&root)?.to_owned();
    let container = root.join("run/nvidia/driver");
    fs::create_dir_all(&container)?;
    fs::rename(root.join("usr"), container.join("usr"))?;
    kubelet.node.set("nvml", &format!("{:?}", container.join(below)))?;
    let words = refusal(&kubelet)?;
    ensure!(
        words.contains(&root.display().to_string()) && !words.contains("run/nvidia/driver"),
        "{words}"
    );
    kubelet.node.set("driver-root", "\"/run/nvidia/driver\"")?;
    one_gpu(&kubelet).map(drop)
}

/// `node.root` and `node.nvml`: what is not there is named.
pub fn root_and_nvml_are_where_the_driver_is_looked_for(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    kubelet.node.set("nvml", "\"/no/such/libnvidia-ml.so.1\"")?;
    let words = refusal(&kubelet)?;
    ensure!(words.contains("/no/such/libnvidia-ml.so.1"), "{words}");
    kubelet.node.configure(TRUSTED)?;
    kubelet.node.set("root", "\"/no/such/root\"")?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let id = pod.create("main", &SLEEP, |_| ())?;
    let answer = kubelet.cri.start_container(&id);
    let words = answer.as_ref().err().map_or("", |status| status.message());
    ensure!(words.contains("berth: ") && words.contains("/no/such/root"), "{answer:?}");
    kubelet.node.configure(TRUSTED)?;
    pod.remove(&[&id])?;
    one_gpu(&kubelet).map(drop)
}

/// `node.tool`: the program that looks at the node for the shim, once; its words are the refusal's when it fails.
pub fn tool_looks_at_the_node_for_the_shim(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    kubelet.node.set("tool", "\"/no/such/berth\"")?;
    let words = refusal(&kubelet)?;
    ensure!(words.contains("/no/such/berth"), "{words}");
    kubelet
        .node
        .set("tool", &script(&kubelet, "failing", "echo the driver is upset >&2; exit 1")?)?;
    let words = refusal(&kubelet)?;
    ensure!(words.contains("the driver is upset") && words.contains("failing"), "{words}");
    let log = kubelet.node.path("calls");
    let text = format!("echo \"$1\" >>{}\nexec {} \"$@\"", log.display(), tool()?.display());
    kubelet.node.set("tool", &script(&kubelet, "noting", &text)?)?;
    for _ in 0..2 {
        one_gpu(&kubelet)?;
    }
    let calls = fs::read_to_string(&log)?;
    ensure!(calls == "observe\nprepare-driver\n", "{calls}");
    Ok(())
}

/// `node.observe-deadline`: a driver that hangs is waited for that long, and the look is ended.
pub fn observe_deadline_ends_a_look_that_hangs(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    kubelet.node.set("tool", &script(&kubelet, "hanging", "exec sleep 86399")?)?;
    kubelet.node.set("observe-deadline", "1")?;
    let words = refusal(&kubelet)?;
    ensure!(words.contains("hanging") && words.contains("1 s"), "{words}");
    let hangs = || processes().values().any(|row| row.command == "sleep 86399" && row.state != 'Z');
    wait::until("the end of the look", || (!hangs()).then_some(()))?;
    kubelet.node.configure(TRUSTED)?;
    one_gpu(&kubelet).map(drop)
}

/// `node.release-wait`: what a release that nobody is carrying out any more still names is free at once, however long may be waited.
pub fn a_release_that_nobody_carries_out_is_not_waited_for(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    for patience in ["0", "600"] {
        kubelet.node.set("release-wait", patience)?;
        let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
        let id = pod.run("main", &SLEEP)?;
        let ledger = kubelet.node.ledger()?;
        let held = fs::read_to_string(&ledger)?;
        pod.remove(&[&id])?;
        kubelet.node.is_free()?;
        write_in_place(&ledger, &held.replace("\"state\":\"applied\"", "\"state\":\"releasing\""))?;
        ensure!(
            kubelet.only_grant()?["state"] == "releasing",
            "as a release leaves it that died half-way"
        );
        one_gpu(&kubelet).with_context(|| format!("release-wait = {patience}"))?;
    }
    Ok(())
}

/// Keeps the file's owner and mode, which the ledger looks at.
fn write_in_place(path: &Path, text: &str) -> Result<()> {
    ensure!(text.contains("releasing"), "the record is not as it was: {text}");
    Ok(fs::write(path, text)?)
}

//! CDI names that a device plugin or a DRA driver leaves on a container: resolved by Berth where containerd does not, found where it did.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::cri::messages::ContainerConfig;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP};
use integration_tests::suite::Lacking;
use serde_json::{Value, json};

/// containerd from 2.0 on resolves every name itself, and refuses what it cannot.
pub fn needs_berth_to_resolve(stage: &Stage) -> Result<()> {
    if stage.installation.series >= (2, 0) {
        return Err(Lacking("this containerd resolves CDI names itself".to_owned()).into());
    }
    Ok(())
}

/// A specification with these devices, each a name and what it brings.
pub fn specify(folder: &Path, file: &str, kind: &str, devices: &[(&str, Value)]) -> Result<()> {
    let device = |(name, edits): &(&str, Value)| json!({ "name": name, "containerEdits": edits });
    let devices: Vec<Value> = devices.iter().map(device).collect();
    let spec = json!({ "cdiVersion": "0.7.0", "kind": kind, "devices": devices });
    fs::create_dir_all(folder)?;
    Ok(fs::write(folder.join(file), spec.to_string())?)
}

/// The node of a GPU, as nvidia-ctk writes it.
pub fn node(minor: u32) -> Value {
    json!({ "path": format!("/dev/nvidia{minor}") })
}

/// The annotation by which the kubelet passes a name on.
pub fn named(name: &str) -> impl FnOnce(&mut ContainerConfig) {
    let annotation = ("cdi.k8s.io/nvidia-device-plugin_x".to_owned(), name.to_owned());
    |config| config.annotations.extend([annotation])
}

/// Everything that a specification may bring, and NVIDIA's hook, whose work Berth does itself.
pub fn a_name_is_resolved_with_all_that_it_brings(stage: &Stage) -> Result<()> {
    needs_berth_to_resolve(stage)?;
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    let file = kubelet.node.path("brought");
    fs::write(&file, "by the specification\n")?;
    let edits = json!({
        "env": ["BROUGHT=yes", "NVIDIA_VISIBLE_DEVICES=void"],
        "deviceNodes": [{ "path": "/dev/nvidia2" }, { "path": "/dev/nvidiactl" }],
        "mounts": [{ "hostPath": file, "containerPath": "/brought", "options": ["ro", "bind"], "type": "bind" }],
        "additionalGids": [4711],
        "hooks": [{ "hookName": "createContainer", "path": "/usr/bin/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", "update-ldcache"] }],
    });
    specify(
        &kubelet.node.path("cdi"),
        "claim.json",
        "k8s.gpu.nvidia.com/claim",
        &[("uid-gpu-2", edits)],
    )?;
    let pod = kubelet.pod(&[])?;
    let id = pod.run_adjusted("main", &SLEEP, named("k8s.gpu.nvidia.com/claim=uid-gpu-2"))?;
    let grant = kubelet.only_grant()?;
    ensure!(grant["decided_by"] == "cdi annotation", "{grant:#}");
    ensure!(grant["gpus"][0]["uuid"] == kubelet.uuid(2)?, "{grant:#}");
    let inside = kubelet.has_exactly(&id, &grant)?;
    ensure!(inside.env.get("BROUGHT").is_some_and(|value| value == "yes"), "{inside:#?}");
    ensure!(inside.libraries.contains("libcuda.so.1"), "completed: {inside:#?}");
    let said =
        kubelet.cri.exec_sync(&id, &["sh", "-c", "cat /brought; grep Groups /proc/1/status"], 0)?;
    let text = String::from_utf8_lossy(&said.stdout);
    ensure!(text.contains("by the specification") && text.contains("4711"), "{said:?}");
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// What no specification has, and what a pod's own annotations name.
pub fn unknown_names_are_refused_and_a_pods_own_are_not_heard(stage: &Stage) -> Result<()> {
    needs_berth_to_resolve(stage)?;
    let kubelet = Kubelet::up(stage, "one", "")?;
    let brings = json!({ "deviceNodes": [node(0)] });
    specify(&kubelet.node.path("cdi"), "nvidia.json", "nvidia.com/gpu", &[("0", brings)])?;
    let pod = kubelet.pod(&[("cdi.k8s.io/forged", "nvidia.com/gpu=0")])?;
    let words = kubelet.refused(&pod, "main", named("nvidia.com/gpu=7"))?;
    let expected = format!(
        "berth: CDI device nvidia.com/gpu=7: no CDI spec has the device nvidia.com/gpu=7; looked into {}; see what there is with berth cdi list, \
             or write the specification anew, as berth cdi generate does",
        kubelet.node.path("cdi").display()
    );
    ensure!(words == expected, "{words}\n  is not\n{expected}");
    let id = pod.run("plain", &SLEEP)?;
    kubelet.has_nothing(&id)?;
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// `policy.cdi-hooks`: hooks of others are refused, or run where the operator wants them.
pub fn policy_cdi_hooks_decides_about_hooks_of_others(stage: &Stage) -> Result<()> {
    needs_berth_to_resolve(stage)?;
    let kubelet = Kubelet::up(stage, "one", "")?;
    let (hook, ran) = (kubelet.node.path("hook"), kubelet.node.path("ran"));
    fs::write(&hook, format!("#!/bin/sh\ncat >{}\n", ran.display()))?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let brings = json!({
        "deviceNodes": [node(0)],
        "hooks": [
            { "hookName": "createRuntime", "path": hook },
            { "hookName": "createRuntime", "path": "/no/such/nvidia-ctk" },
        ],
    });
    specify(&kubelet.node.path("cdi"), "nvidia.json", "nvidia.com/gpu", &[("0", brings)])?;
    let pod = kubelet.pod(&[])?;
    let words = kubelet.refused(&pod, "main", named("nvidia.com/gpu=0"))?;
    let expected = format!(
        "berth: CDI device nvidia.com/gpu=0 brings the hook {hook:?}, which Berth does not run; remove it from the specification, \
         or the node's operator sets policy.cdi-hooks = true"
    );
    ensure!(words == expected && !ran.exists(), "{words}\n  is not\n{expected}");
    pod.remove(&[])?;
    kubelet.node.configure("[policy]\ncdi-hooks = true")?;
    let pod = kubelet.pod(&[])?;
    let id = pod.run_adjusted("main", &SLEEP, named("nvidia.com/gpu=0"))?;
    kubelet.has_exactly(&id, &kubelet.only_grant()?)?;
    let state: Value = serde_json::from_slice(&fs::read(&ran)?)?;
    ensure!(state["id"] == id, "the hook ran for this container: {state}");
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// `node.cdi-dirs`: a later directory beats an earlier one.
pub fn node_cdi_dirs_beat_each_other_in_their_order(stage: &Stage) -> Result<()> {
    needs_berth_to_resolve(stage)?;
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    let folders = ["static", "dynamic"].map(|name| kubelet.node.path(name));
    for (minor, folder) in [1, 3].into_iter().zip(&folders) {
        let brings = json!({ "deviceNodes": [node(minor)] });
        specify(folder, "nvidia.json", "nvidia.com/gpu", &[("mine", brings)])?;
    }
    for (first, second, index) in [(0, 1, 3), (1, 0, 1)] {
        kubelet.node.set("cdi-dirs", &format!("[{:?}, {:?}]", folders[first], folders[second]))?;
        let pod = kubelet.pod(&[])?;
        let id = pod.run_adjusted("main", &SLEEP, named("nvidia.com/gpu=mine"))?;
        let grant = kubelet.only_grant()?;
        ensure!(grant["gpus"][0]["uuid"] == kubelet.uuid(index)?, "{grant:#}");
        kubelet.has_exactly(&id, &grant)?;
        pod.remove(&[&id])?;
    }
    kubelet.node.is_free()
}

/// Where containerd has made the edits, the name on the container is not resolved again.
pub fn what_containerd_resolved_itself_is_found_injected(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    let library =
        kubelet.node.root().join("usr/lib/x86_64-linux-gnu/libcuda.so.1").canonicalize()?;
    let brings = json!({
        "env": ["NVIDIA_VISIBLE_DEVICES=void"],
        "deviceNodes": [{ "path": "/dev/nvidia1", "hostPath": kubelet.node.root().join("dev/nvidia1") }],
        "mounts": [{ "hostPath": library, "containerPath": "/usr/lib64/libcuda.so.1", "options": ["ro", "bind"] }],
    });
    specify(
        &kubelet.containerd.scratch.path("cdi"),
        "nvidia.json",
        "nvidia.com/gpu",
        &[("1", brings)],
    )?;
    let pod = kubelet.pod(&[])?;
    let id = pod.run_adjusted("main", &SLEEP, named("nvidia.com/gpu=1"))?;
    let grant = kubelet.only_grant()?;
    ensure!(
        grant["decided_by"] == "injected" && grant["gpus"][0]["uuid"] == kubelet.uuid(1)?,
        "{grant:#}"
    );
    let inside = kubelet.has_exactly(&id, &grant)?;
    ensure!(inside.libraries.is_empty(), "not brought a second time: {inside:#?}");
    ensure!(inside.env["NVIDIA_VISIBLE_DEVICES"] == "void", "{inside:#?}");
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

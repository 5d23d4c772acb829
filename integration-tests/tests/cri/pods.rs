//! Pods: what their containers share, how they are selected, and that they leave nothing.

use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::{Containerd, leftovers};
use integration_tests::cri::Cri;
use integration_tests::cri::pod::Pod;
use integration_tests::under_test::reference;
use serde_json::Value;

const SLEEP: [&str; 2] = ["sleep", "10000"];

pub fn two_containers_share_one_shim(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let one = pod.run("one", &SLEEP)?;
    let two = pod.run("two", &SLEEP)?;
    let sandbox = pod.shim_of(&pod.id)?;
    for id in [&one, &two] {
        let shim = pod.shim_of(id)?;
        ensure!(shim.pid == sandbox.pid, "{shim:?} serves {id}, {sandbox:?} the sandbox");
    }
    let of_pod = |id: &String| {
        leftovers::of_container(&containerd, "k8s.io", id)
            .into_iter()
            .filter(|line| line.starts_with("process") && line.contains("containerd-shim"))
    };
    ensure!(of_pod(&one).count() + of_pod(&two).count() == 0, "a container has a shim of its own");
    pod.remove(&[&one, &two])
}

pub fn the_handler_by_runtime_type_runs_the_shim(stage: &Stage) -> Result<()> {
    runs_the_shim(stage, "berth")
}

pub fn the_handler_by_path_runs_the_shim(stage: &Stage) -> Result<()> {
    runs_the_shim(stage, "berth-path")
}

pub fn the_options_of_a_handler_by_runtime_type_reach_the_shim(stage: &Stage) -> Result<()> {
    calls_the_witness(stage, "witness")
}

pub fn the_options_of_a_handler_by_path_reach_the_shim(stage: &Stage) -> Result<()> {
    calls_the_witness(stage, "witness-path")
}

/// The handler's options name another OCI runtime: the sandbox and its containers are made by that one.
fn calls_the_witness(stage: &Stage, handler: &str) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, handler, |_| ())?;
    let id = pod.run("only", &SLEEP)?;
    ensure!(cri.exec_sync(&id, &["true"], 0)?.exit_code == 0, "a command in it");
    let calls = containerd.witnessed();
    let called = |verb: &str, id: &str| {
        let verb = format!(" {verb} ");
        calls.lines().any(|call| call.contains(&verb) && call.ends_with(id))
    };
    let made = called("create", &pod.id) && called("create", &id) && called("exec", &id);
    ensure!(made, "the runtime that the options name was called with\n{calls}");
    runs_under(&containerd, &pod, &id)?;
    pod.remove(&[&id])
}

fn runs_the_shim(stage: &Stage, handler: &str) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, handler, |_| ())?;
    let id = pod.run("only", &SLEEP)?;
    runs_under(&containerd, &pod, &id)?;
    let said = cri.exec_sync(&id, &["echo", "hello"], 0)?;
    ensure!(said.stdout == b"hello\n", "{said:?}");
    pod.remove(&[&id])
}

/// The shim under test serves the container.
fn runs_under(containerd: &Containerd, pod: &Pod<'_>, id: &str) -> Result<()> {
    let shim = pod.shim_of(id)?;
    let runs = fs::read_link(format!("/proc/{}/exe", shim.pid))?;
    ensure!(runs == containerd.shim.canonicalize()?, "{} serves the pod", runs.display());
    Ok(())
}

pub fn annotations_reach_the_shim(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let given = [("main.berth.dev/gpus", "1"), ("other.example/x", "y")];
    let pod = Pod::start(&containerd, &cri, "berth", |config| {
        config.annotations =
            given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    })?;
    let annotations = |id: &str| -> Result<Value> {
        let spec = fs::read(pod.bundle(id).join("config.json")).context("read config.json")?;
        Ok(serde_json::from_slice::<Value>(&spec)?["annotations"].take())
    };
    let has = annotations(&pod.id)?;
    ensure!(has["main.berth.dev/gpus"] == "1", "{has}");
    ensure!(has["other.example/x"].is_null(), "the handler lets only its own through: {has}");
    ensure!(has["io.kubernetes.cri.sandbox-id"] == pod.id, "{has}");
    if reference() {
        let id = pod.run("main", &SLEEP)?;
        let has = annotations(&id)?;
        ensure!(has["main.berth.dev/gpus"] == "1", "{has}");
        return pod.remove(&[&id]);
    }
    // The sandbox never asks; the container does, and hears that the node's operator has not let it.
    let id = pod.create("main", &SLEEP, |_| ())?;
    let refused = cri.start_container(&id);
    let words = refused.as_ref().err().map_or("", |status| status.message());
    ensure!(
        words.contains("berth: annotation main.berth.dev/gpus: pods of namespace"),
        "{refused:?}"
    );
    ensure!(cri.container_status(&id)?.reason == "StartError", "the kubelet sees why");
    leftovers::none_of(&containerd, "k8s.io", &id)?;
    pod.remove(&[&id])
}

pub fn a_container_is_restarted_within_its_pod(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let first = pod.run("again", &["sh", "-c", "exit 4"])?;
    ensure!(cri.exited(&first)?.exit_code == 4, "the first exit code");
    let second = pod.run_adjusted("again", &SLEEP, |config| {
        if let Some(metadata) = &mut config.metadata {
            metadata.attempt = 1;
        }
    })?;
    ensure!(pod.shim_of(&second)?.pid == pod.shim_of(&pod.id)?.pid, "the same shim serves it");
    cri.remove_container(&first)?;
    leftovers::none_of(&containerd, "k8s.io", &first)?;
    ensure!(cri.exec_sync(&second, &["true"], 0)?.exit_code == 0, "the second one lives");
    pod.remove(&[&first, &second])
}

pub fn a_removed_pod_leaves_nothing_of_running_containers(stage: &Stage) -> Result<()> {
    let containerd = stage.containerd()?;
    let cri = Cri::connect(&containerd.socket())?;
    let pod = Pod::start(&containerd, &cri, "berth", |_| ())?;
    let family = pod.run("family", &["sh", "-c", "sleep 10000 & sleep 10000 & wait"])?;
    let ended = pod.run("ended", &["true"])?;
    let created = pod.create("created", &SLEEP, |_| ())?;
    cri.exited(&ended)?;
    pod.remove(&[&family, &ended, &created])
}

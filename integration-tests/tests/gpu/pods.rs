//! Pods and their claims: whose they are, who shares them, and how long they last.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::cri::pod::Pod;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use serde_json::Value;

/// Runs a container that is the `attempt`th of its name.
fn run_again(pod: &Pod<'_>, name: &str, attempt: u32) -> Result<String> {
    pod.run_adjusted(name, &SLEEP, |config| {
        if let Some(metadata) = &mut config.metadata {
            metadata.attempt = attempt;
        }
    })
}

fn members(grant: &Value) -> BTreeSet<&str> {
    let members = grant["members"].as_array().into_iter().flatten();
    members.filter_map(|member| member["name"].as_str()).collect()
}

/// Indices of the GPUs of a grant.
fn gpus(grant: &Value) -> BTreeSet<u64> {
    let gpus = grant["gpus"].as_array().into_iter().flatten();
    gpus.filter_map(|gpu| gpu["index"].as_u64()).collect()
}

/// One grant for two containers; the pause container has nothing of it.
pub fn containers_of_a_pod_share_its_claim(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let one = pod.run("one", &SLEEP)?;
    let two = pod.run("two", &SLEEP)?;
    let grant = kubelet.only_grant()?;
    ensure!(grant["owner"] == format!("tests/{}", pod.name()), "{grant:#}");
    ensure!(grant["sandbox"] == pod.id && grant["decided_by"] == "berth", "{grant:#}");
    ensure!(
        grant["requested"]["berth.dev/gpus"] == "1" && grant["state"] == "applied",
        "{grant:#}"
    );
    ensure!(members(&grant) == BTreeSet::from(["one", "two"]), "{grant:#}");
    for id in [&one, &two] {
        let inside = kubelet.has_exactly(id, &grant)?;
        ensure!(inside.libraries.contains("libcuda.so.1"), "{inside:#?}");
    }
    let pause = fs::read_to_string(pod.bundle(&pod.id).join("config.json"))?;
    ensure!(pause.contains("berth.dev/gpus"), "the pod's annotations reach the pause container");
    ensure!(!pause.contains("nvidia") && !pause.contains("BERTH_GRANT"), "{pause}");
    pod.remove(&[&one, &two])?;
    kubelet.node.is_free()
}

/// The shim found by `runtime_path`, under runc's runtime type: as pods with user namespaces need it.
pub fn the_handler_by_path_gives_a_gpu(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    let pod = kubelet.pod_by("berth-path", "tests", &[("berth.dev/gpus", "1")])?;
    let id = pod.run("main", &SLEEP)?;
    let inside = kubelet.has_exactly(&id, &kubelet.only_grant()?)?;
    ensure!(inside.libraries.contains("libcuda.so.1"), "{inside:#?}");
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// Claims of single containers beside the pod's, and a container that wants none.
pub fn a_container_may_have_its_own_claim_or_none(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let pod = kubelet.pod(&[
        ("berth.dev/gpus", "1"),
        ("big.berth.dev/gpus", "2"),
        ("exporter.berth.dev/gpus", "none"),
        ("narrow.berth.dev/driver-capabilities", "utility"),
    ])?;
    let ids = ["plain", "big", "exporter", "narrow"].map(|name| pod.run(name, &SLEEP));
    let ids = ids.into_iter().collect::<Result<Vec<String>>>()?;
    let [plain, big, exporter, narrow] = &ids[..] else { unreachable!("four were run") };
    kubelet.has_nothing(exporter)?;
    let (shared, own) = (kubelet.grant_of(plain)?, kubelet.grant_of(big)?);
    kubelet.has_exactly(plain, &shared)?;
    kubelet.has_exactly(big, &own)?;
    ensure!(gpus(&own).len() == 2 && gpus(&shared).is_disjoint(&gpus(&own)), "{shared:#}{own:#}");
    ensure!(own["owner"] == format!("tests/{}/big", pod.name()), "{own:#}");
    // A field that claims nothing changes how the pod's claim is brought, not whose it is.
    ensure!(kubelet.grant_of(narrow)?["grant"] == shared["grant"], "{shared:#}");
    let libraries = kubelet.has_exactly(narrow, &shared)?.libraries;
    ensure!(!libraries.contains("libcuda.so.1"), "utility alone: {libraries:?}");
    ensure!(libraries.contains("libnvidia-ml.so.1"), "{libraries:?}");
    pod.remove(&ids.iter().map(String::as_str).collect::<Vec<_>>())?;
    kubelet.node.is_free()
}

/// Nobody else gets the GPU while the sandbox lives, even with no container left; the pod itself gets it again.
pub fn a_pods_claim_is_held_until_its_sandbox_is_gone(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    let cri = &kubelet.cri;
    let (pod, other) =
        (kubelet.pod(&[("berth.dev/gpus", "1")])?, kubelet.pod(&[("berth.dev/gpus", "1")])?);
    let first = pod.run("first", &SLEEP)?;
    let grant = kubelet.only_grant()?;
    cri.stop_container(&first, 0)?;
    cri.remove_container(&first)?;
    let held = kubelet.only_grant()?;
    ensure!(held["grant"] == grant["grant"] && members(&held).is_empty(), "{held:#}");
    let words = kubelet.refused(&other, "main", |_| ())?;
    ensure!(words.contains(&format!("held by tests/{}", pod.name())), "{words}");
    let next = pod.run("next", &SLEEP)?;
    kubelet.has_exactly(&next, &grant)?;
    cri.stop_pod_sandbox(&pod.id)?;
    kubelet.node.is_free().context("after StopPodSandbox")?;
    let main = other.run("main", &SLEEP)?;
    kubelet.has_exactly(&main, &kubelet.only_grant()?)?;
    pod.remove(&[&next])?;
    ensure!(kubelet.only_grant()?["sandbox"] == other.id, "one pod's removal is not another's");
    other.remove(&[&main])?;
    kubelet.node.is_free()
}

/// As the kubelet restarts a container: a new one of the same name, then the old one is removed.
pub fn a_restarted_container_keeps_what_it_had(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "1"), ("own.berth.dev/gpus", "1")])?;
    for name in ["shared", "own"] {
        let first = pod.run(name, &["sh", "-c", "test -n \"$BERTH_GRANT\" && exit 3"])?;
        ensure!(kubelet.cri.exited(&first)?.exit_code == 3, "{name} had a grant");
        let before = kubelet.node.grants()?;
        let second = run_again(&pod, name, 1)?;
        kubelet.cri.remove_container(&first)?;
        let after = kubelet.node.grants()?;
        let names =
            |grants: &[Value]| grants.iter().map(|one| one["grant"].clone()).collect::<Vec<_>>();
        ensure!(names(&before) == names(&after), "{before:#?} became {after:#?}");
        let grant = kubelet.grant_of(&second)?;
        ensure!(members(&grant) == BTreeSet::from([name]), "{grant:#}");
        kubelet.has_exactly(&second, &grant)?;
    }
    ensure!(kubelet.node.grants()?.len() == 2, "the pod's and the container's own");
    kubelet.cri.stop_pod_sandbox(&pod.id)?;
    kubelet.node.is_free()
}

/// Containers that come and go in a pod's life: each finds the same GPU.
pub fn init_sidecar_app_and_ephemeral_containers_share_the_claim(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let init = pod.run("init", &["sh", "-c", "echo grant=$BERTH_GRANT; ls /dev/nvidia[0-9]"])?;
    ensure!(kubelet.cri.exited(&init)?.exit_code == 0, "the init container has a GPU");
    let first = kubelet.only_grant()?;
    // A sidecar is an init container that stays; an ephemeral one joins a running pod.
    let ids = ["sidecar", "app", "debugger"].map(|name| pod.run(name, &SLEEP));
    let ids = ids.into_iter().collect::<Result<Vec<String>>>()?;
    for id in &ids {
        kubelet.has_exactly(id, &first)?;
    }
    let grant = kubelet.only_grant()?;
    ensure!(grant["grant"] == first["grant"] && gpus(&grant) == gpus(&first), "{grant:#}");
    ensure!(
        members(&grant).is_superset(&BTreeSet::from(["app", "debugger", "sidecar"])),
        "{grant:#}"
    );
    if stage.installation.series > (1, 6) {
        let log = pod.log("init");
        ensure!(
            log.contains(&format!("grant={}", first["grant"].as_str().unwrap_or("?"))),
            "{log}"
        );
    }
    pod.remove(&[&init, &ids[0], &ids[1], &ids[2]])?;
    kubelet.node.is_free()
}

/// Two pods at once never get the same GPU, and what the first gives back is the third's.
pub fn pods_do_not_share_gpus(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let pods = [(); 3].map(|()| kubelet.pod(&[("berth.dev/gpus", "2")]));
    let [one, two, three] = pods;
    let (one, two, three) = (one?, two?, three?);
    let (first, second) = (one.run("main", &SLEEP)?, two.run("main", &SLEEP)?);
    let (a, b) = (kubelet.grant_of(&first)?, kubelet.grant_of(&second)?);
    ensure!(gpus(&a).is_disjoint(&gpus(&b)) && gpus(&a).len() == 2, "{a:#}{b:#}");
    kubelet.has_exactly(&first, &a)?;
    kubelet.has_exactly(&second, &b)?;
    kubelet.refused(&three, "main", |_| ())?;
    one.remove(&[&first])?;
    let third = three.run("main", &SLEEP)?;
    ensure!(gpus(&kubelet.grant_of(&third)?) == gpus(&a), "what was given back");
    two.remove(&[&second])?;
    three.remove(&[&third])?;
    kubelet.node.is_free()
}

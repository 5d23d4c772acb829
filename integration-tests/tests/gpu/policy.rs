//! The keys of `[policy]` and what each decides about pods, and about containers of ctr where it tells them apart.

use anyhow::{Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::cri::given::Capability;
use integration_tests::cri::messages::ContainerConfig;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use serde_json::json;

/// Asks in a pod of this Kubernetes namespace for one GPU and wants this answer: none for a grant.
fn asks(kubelet: &Kubelet, namespace: &str, answer: Option<&str>) -> Result<()> {
    let pod = kubelet.pod_in(namespace, &[("berth.dev/gpus", "1")])?;
    match answer {
        Some(words) => {
            kubelet.refused_with(&pod, "main", words)?;
            pod.remove(&[])?;
        }
        None => {
            let id = pod.run("main", &SLEEP)?;
            kubelet.has_exactly(&id, &kubelet.only_grant()?)?;
            pod.remove(&[&id])?;
        }
    }
    kubelet.node.is_free()
}

fn may_not_ask(namespace: &str, reason: &str, setting: &str) -> String {
    format!(
        "berth: annotation berth.dev/gpus: pods of namespace {namespace:?} may not ask: {reason}; \
         the node's operator can allow it: {setting}"
    )
}

/// `policy.namespaces`: none by default; names and globs.
pub fn namespaces_say_whose_pods_may_ask(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", "")?;
    let words =
        may_not_ask("tests", "policy.namespaces is empty", "add \"tests\" to policy.namespaces");
    asks(&kubelet, "tests", Some(&words))?;
    kubelet.node.configure("[policy]\nnamespaces = [\"team-?\", \"ml*\"]")?;
    let reason = "policy.namespaces has only \"team-?\" and \"ml*\"";
    let words = may_not_ask("tests", reason, "add \"tests\" to policy.namespaces");
    asks(&kubelet, "tests", Some(&words))?;
    let words = may_not_ask("team-10", reason, "add \"team-10\" to policy.namespaces");
    asks(&kubelet, "team-10", Some(&words))?;
    asks(&kubelet, "team-1", None)?;
    asks(&kubelet, "ml-research", None)
}

/// `policy.annotation-requests`: everybody, nobody.
pub fn annotation_requests_may_be_allowed_or_denied_outright(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", "[policy]\nannotation-requests = \"allow\"")?;
    asks(&kubelet, "anywhere", None)?;
    kubelet.node.configure("[policy]\nannotation-requests = \"deny\"\nnamespaces = [\"tests\"]")?;
    let reason = "policy.annotation-requests is \"deny\"";
    asks(
        &kubelet,
        "tests",
        Some(&may_not_ask("tests", reason, "policy.annotation-requests = \"auto\"")),
    )?;
    // Who opts out asks for nothing.
    let pod = kubelet.pod(&[("main.berth.dev/gpus", "none")])?;
    let id = pod.run("main", &SLEEP)?;
    kubelet.has_nothing(&id)?;
    pod.remove(&[&id])
}

/// Under `auto` another allocator's GPUs are not Berth's to give: a device plugin that has registered, or a DRA driver.
pub fn other_allocators_bar_requests_of_pods_under_auto(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    let words = |allocator: &str| {
        format!(
            "berth: annotation berth.dev/gpus: the GPUs of this node are allocated by {allocator}; ask there \
             (resources.limits or a resource claim), or the node's operator sets policy.annotation-requests = \"allow\""
        )
    };
    let register = |devices: &[&str]| {
        kubelet.checkpoint(&json!({
            "PodDeviceEntries": null, "RegisteredDevices": { "rdma/hca": ["0"], "nvidia.com/gpu": devices },
        }))
    };
    register(&[&kubelet.uuid(0)?])?;
    asks(&kubelet, "tests", Some(&words("the device plugin of nvidia.com/gpu")))?;
    // It is no business of containers outside Kubernetes.
    let flags = ["--annotation", "berth.dev/gpus=1"];
    Task::detached(&kubelet.containerd, "ctr", &flags, &SLEEP)?.end()?;
    register(&[])?;
    asks(&kubelet, "tests", None)?;
    std::fs::create_dir_all(kubelet.node.path("kubelet").join("plugins/gpu.nvidia.com"))?;
    asks(&kubelet, "tests", Some(&words("the DRA driver gpu.nvidia.com")))?;
    kubelet.node.configure("[policy]\nannotation-requests = \"allow\"")?;
    asks(&kubelet, "tests", None)
}

/// `policy.env-requests`: the variable alone asks outside pods, if at all.
pub fn env_requests_are_off_or_for_containers_outside_pods(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    let run = |value: &str| {
        let flags = ["--env".to_owned(), format!("NVIDIA_VISIBLE_DEVICES={value}")];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Task::detached(&kubelet.containerd, "env", &flags, &SLEEP)
    };
    let task = run("all")?;
    kubelet.node.is_free()?;
    task.end()?;
    kubelet.node.configure("[policy]\nenv-requests = \"non-cri\"")?;
    let task = run("1,3")?;
    let grant = kubelet.only_grant()?;
    ensure!(
        grant["decided_by"] == "berth" && grant["gpus"][1]["uuid"] == kubelet.uuid(3)?,
        "{grant:#}"
    );
    let listed = task.exec(&["sh", "-c", "echo /dev/nvidia[0-9]"])?;
    ensure!(listed.out == "/dev/nvidia1 /dev/nvidia3\n", "{listed:?}");
    task.end()?;
    // As NVIDIA's own runtime has it, and only there: images set the variable, and pods run images.
    let pod = kubelet.pod(&[])?;
    let id = pod.run_adjusted("main", &SLEEP, |config| {
        let (key, value) = ("NVIDIA_VISIBLE_DEVICES".to_owned(), "all".to_owned());
        config.envs.push(integration_tests::cri::given::KeyValue { key, value });
    })?;
    kubelet.has_nothing(&id)?;
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// `policy.devices`: pods may name exact devices only under `all`.
pub fn devices_may_be_named_by_pods_under_all_alone(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let uuid = kubelet.uuid(2)?;
    for (configured, shown) in
        [("", "non-cri"), ("devices = \"off\"", "off"), ("devices = \"all\"", "all")]
    {
        kubelet.node.configure(&format!("{TRUSTED}\n{configured}"))?;
        let pod = kubelet.pod(&[("berth.dev/devices", &uuid)])?;
        if shown == "all" {
            let id = pod.run("main", &SLEEP)?;
            let grant = kubelet.only_grant()?;
            ensure!(grant["gpus"][0]["uuid"] == uuid, "{grant:#}");
            kubelet.has_exactly(&id, &grant)?;
            pod.remove(&[&id])?;
            continue;
        }
        let words = format!(
            "berth: annotation berth.dev/devices: pods of namespace \"tests\" may not ask: policy.devices is \"{shown}\", \
             and gpus and mig would not name devices; the node's operator can allow it: policy.devices = \"all\""
        );
        kubelet.refused_with(&pod, "main", &words)?;
        pod.remove(&[])?;
    }
    kubelet.node.is_free()
}

/// `policy.privileged`: with a request, refused or recorded for what it is. Without one it is none of Berth's business.
pub fn privileged_containers_with_a_request_are_refused_or_recorded(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "one", TRUSTED)?;
    let privileged = |config: &mut ContainerConfig| {
        let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        if let Some(context) = context {
            let add_capabilities = vec!["SYS_ADMIN".to_owned()];
            context.capabilities = Some(Capability { add_capabilities });
        }
    };
    let pod = kubelet.pod(&[("asks.berth.dev/gpus", "1")])?;
    let words = kubelet.refused(&pod, "asks", privileged)?;
    let expected = "berth: asks.berth.dev/gpus: the container is privileged (CAP_SYS_ADMIN is in its bounding set), so it could use \
                    every GPU of the node; take that away, or the node's operator sets policy.privileged = true";
    ensure!(words == expected, "{words}\n  is not\n{expected}");
    let quiet = pod.run_adjusted("quiet", &SLEEP, privileged)?;
    kubelet.has_nothing(&quiet)?;
    pod.remove(&[&quiet])?;
    kubelet.node.configure(&format!("{TRUSTED}\nprivileged = true"))?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let id = pod.run_adjusted("asks", &SLEEP, privileged)?;
    let grant = kubelet.only_grant()?;
    ensure!(grant["unconfined"] == true, "{grant:#}");
    ensure!(kubelet.node.berth(&["ps"])?.out.contains("applied (unconfined)"), "and shown");
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

/// `policy.ceilings`: GPUs and memory that a namespace may hold at once; its own name beats globs, and others are not counted.
pub fn ceilings_limit_what_a_namespace_holds(stage: &Stage) -> Result<()> {
    let any = "[policy]\nannotation-requests = \"allow\"\n";
    let ceilings = "[policy.ceilings.\"team-*\"]\ngpus = 2\n[policy.ceilings.team-big]\ngpus = 3\n";
    let kubelet = Kubelet::up(stage, "l40s", &format!("{any}{ceilings}"))?;
    let one = kubelet.pod_in("team-a", &[("berth.dev/gpus", "1")])?;
    let held = one.run("main", &SLEEP)?;
    let two = kubelet.pod_in("team-a", &[("berth.dev/gpus", "2"), ("less.berth.dev/gpus", "1")])?;
    let refused = |held: &str, more: &str| {
        format!(
            "berth: no room for gpus 2 in namespace team-a: it holds {held} (policy.ceilings.\"team-*\"); {more}"
        )
    };
    kubelet.refused_with(&two, "main", &refused("gpus 1 of at most 2", "nearest fit: gpus 1"))?;
    let less = two.run("less", &SLEEP)?;
    kubelet.refused_with(
        &two,
        "main",
        &refused("gpus 2 of at most 2", "release something first"),
    )?;
    two.remove(&[&less])?;
    let big = kubelet.pod_in("team-big", &[("berth.dev/gpus", "3")])?;
    let three = big.run("main", &SLEEP)?;
    ensure!(kubelet.node.grants()?.len() == 2, "its own ceiling, and its own holdings");
    big.remove(&[&three])?;
    one.remove(&[&held])?;
    let memory = kubelet.node.sim.state()?.gpus[0].model().memory;
    kubelet
        .node
        .configure(&format!("{any}[policy.ceilings.\"*\"]\nmemory = {}", memory * 2 - 1))?;
    let pod = kubelet.pod_in("team-a", &[("berth.dev/gpus", "2"), ("less.berth.dev/gpus", "1")])?;
    let words = format!(
        "berth: no room for gpus 2 in namespace team-a: it holds 0 MiB of at most {} MiB (policy.ceilings.\"*\"); nearest fit: gpus 1",
        memory * 2 - 1
    );
    kubelet.refused_with(&pod, "main", &words)?;
    let less = pod.run("less", &SLEEP)?;
    pod.remove(&[&less])?;
    kubelet.node.is_free()
}

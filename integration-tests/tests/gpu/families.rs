//! Each family of refusals, as ctr's user and as the kubelet hear it: word for word the same. Those in which the words say who asks are in
//! `refused` and `policy`, those of CDI in `cdi` and `allocated`.

use std::fs;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::cri::given::{Device, KeyValue};
use integration_tests::gpu::kubelet::{Kubelet, SLEEP, TRUSTED};
use integration_tests::gpu::world::{World, uuids};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use simnode::Change;
use simnode::state::MigMode;

/// What is asked for by annotations of all containers, and said by the image's environment.
type Asked<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);

const NO_DRIVER: &str = "berth: no NVIDIA driver is loaded on this node, so it has no GPU to give; \
                         load the driver (modprobe nvidia) or choose another node";

/// Flags of `ctr run` for what is asked.
fn flags((annotations, env): Asked<'_>) -> Vec<String> {
    let annotations = annotations.iter().flat_map(|(field, value)| {
        ["--annotation".to_owned(), format!("berth.dev/{field}={value}")]
    });
    annotations.chain(env.iter().flat_map(|one| ["--env".to_owned(), (*one).to_owned()])).collect()
}

fn ctr_hears(world: &World, asked: Asked<'_>, words: &str) -> Result<()> {
    let flags = flags(asked);
    world.refuses(&flags.iter().map(String::as_str).collect::<Vec<_>>(), words)
}

fn the_kubelet_hears(kubelet: &Kubelet, (annotations, env): Asked<'_>, words: &str) -> Result<()> {
    let keys: Vec<(String, &str)> =
        annotations.iter().map(|(field, value)| (format!("berth.dev/{field}"), *value)).collect();
    let keys: Vec<(&str, &str)> = keys.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let pod = kubelet.pod(&keys)?;
    let variable = env.and_then(|one| one.split_once('='));
    let heard = kubelet.refused(&pod, "main", |config| {
        config
            .envs
            .extend(variable.map(|(key, value)| KeyValue { key: key.into(), value: value.into() }));
    })?;
    ensure!(heard == words, "{heard}\n  is not\n{words}");
    pod.remove(&[])
}

pub fn the_same_words_reach_ctr_and_the_kubelet(stage: &Stage) -> Result<()> {
    let (world, kubelet) = (World::up(stage, "one", "")?, Kubelet::up(stage, "one", TRUSTED)?);
    let uuid = kubelet.uuid(0)?;
    let full = format!("berth: no room for gpus 9: {uuid}: free; nearest fit: gpus 1");
    let old = format!(
        "berth: the image needs NVIDIA_REQUIRE_CUDA=\"cuda>=99.0\", but this node has driver 550.163.01 with CUDA 12.4, and {uuid} is of \
         arch 9.0, brand nvidia; use a node or an image that fits, or set NVIDIA_DISABLE_REQUIRE=1"
    );
    let families: [(Asked<'_>, &str); 8] = [
        (
            (&[("memory", "8Gi")], None),
            "berth: annotation berth.dev/memory=\"8Gi\": memory is not in this version; ask for whole GPUs with gpus, or for a part of one with mig",
        ),
        (
            (&[("gpus", "many")], None),
            "berth: annotation berth.dev/gpus=\"many\": it is not a whole number of GPUs; write for example berth.dev/gpus: \"2\"",
        ),
        (
            (&[("gpu", "1")], None),
            "berth: annotation berth.dev/gpu=\"1\": there is no such field (did you mean berth.dev/gpus?); the fields are \
             gpus, devices, mig, memory, compute, driver-capabilities, cpus, numa, isolation, extras",
        ),
        (
            (&[("gpus", "1"), ("mig", "1g.10gb")], None),
            "berth: annotations berth.dev/gpus=\"1\" and berth.dev/mig=\"1g.10gb\" contradict each other: \
             a claim is exactly one of gpus, mig, devices, or memory and/or compute; remove one",
        ),
        (
            (&[("cpus", "auto")], None),
            "berth: annotation berth.dev/cpus=\"auto\": it says how to give GPUs, but none are asked for, \
             and nobody has allocated any; add for example berth.dev/gpus: \"1\", or remove it",
        ),
        ((&[("gpus", "9")], None), &full),
        ((&[("gpus", "1")], Some("NVIDIA_REQUIRE_CUDA=cuda>=99.0")), &old),
        (
            (&[("gpus", "1")], Some("NVIDIA_REQUIRE_CUDA=cuda~12")),
            "berth: the image needs NVIDIA_REQUIRE_CUDA, in which \"cuda~12\" compares nothing (use = != < <= > >=); correct it, \
             for example \"cuda>=12.4 brand=tesla,driver>=535\", or set NVIDIA_DISABLE_REQUIRE=1",
        ),
    ];
    for (asked, words) in families {
        ctr_hears(&world, asked, words)?;
        the_kubelet_hears(&kubelet, asked, words)?;
    }
    for node in [&world.node, &kubelet.node] {
        node.sim.change(Change::Unload)?;
    }
    let one: Asked<'_> = (&[("gpus", "1")], None);
    ctr_hears(&world, one, NO_DRIVER)?;
    the_kubelet_hears(&kubelet, one, NO_DRIVER)
}

/// As the device plugin's `volume-mounts` strategy marks a device.
const MARKS: &str = "/var/run/nvidia-container-devices";

/// What another allocator gave: an instance of a GPU that is cut, which this version cannot complete, and what is no GPU here.
pub fn what_another_gave_and_berth_cannot_complete_is_named_to_both(stage: &Stage) -> Result<()> {
    let (world, kubelet) = (World::up(stage, "a30", "")?, Kubelet::up(stage, "a30", TRUSTED)?);
    for node in [&world.node, &kubelet.node] {
        let mode = MigMode { current: true, pending: true };
        node.sim.change(Change::Mig { gpu: "2".to_owned(), mode })?;
    }
    let uuid = kubelet.uuid(2)?;
    let cut = |by: &str| {
        format!(
            "berth: {by} gave this container {uuid} as a whole, which is in MIG mode, so that nothing can run on it; \
             let it give an instance, or switch the mode off (nvidia-smi -i {uuid} -mig 0)"
        )
    };
    let absent = |by: &str, device: &str| {
        format!(
            "berth: {by} gave this container {device}, which is no GPU of this node; \
             its view of the node is out of date: restart it, and compare with berth topo"
        )
    };
    let unknown = "GPU-00000000-1111-2222-3333-444444444444";
    for (device, words) in [
        (uuid.as_str(), cut("device plugin (mounts)")),
        (unknown, absent("device plugin (mounts)", &format!("{MARKS}/{unknown}"))),
    ] {
        let mount = format!("type=bind,src=/dev/null,dst={MARKS}/{device},options=bind:ro");
        world.refuses(&["--mount", &mount], &words)?;
    }
    // One that the driver does not know, as a GPU leaves it that was taken out.
    let left = kubelet.node.path("nvidia9");
    mknod(&left, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(195, 9))?;
    let pod = kubelet.pod(&[])?;
    for (path, from, words) in [
        ("/dev/nvidia2", kubelet.node.root().join("dev/nvidia2"), cut("injected")),
        ("/dev/nvidia9", left, absent("the container's device list", "/dev/nvidia9")),
    ] {
        let heard = kubelet.refused(&pod, "main", |config| {
            config.devices.push(Device {
                host_path: from.to_string_lossy().into_owned(),
                container_path: path.to_owned(),
                permissions: "rw".to_owned(),
            });
        })?;
        ensure!(heard == words, "{heard}\n  is not\n{words}");
    }
    pod.remove(&[])?;
    kubelet.node.is_free()
}

/// A claim outlives its containers. When its GPU has fallen off the bus, the next container of the pod is told, and which.
pub fn a_claim_whose_gpu_is_gone_is_told_to_the_pods_next_container(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", TRUSTED)?;
    let pod = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let main = pod.run("main", &SLEEP)?;
    let grant = kubelet.only_grant()?;
    let (uuid, id) = (uuids(&grant)[0], grant["grant"].as_str().context("an id")?);
    let gpu = kubelet.node.sim.state()?.gpus.into_iter().find(|gpu| gpu.uuid == uuid);
    let address = gpu.context("a GPU of the node")?.route.device.to_string();
    kubelet.node.sim.change(Change::Lost { gpu: uuid.to_owned(), lost: true })?;
    fs::remove_dir_all(kubelet.node.root().join("proc/driver/nvidia/gpus").join(address))?;
    kubelet.refused_with(
        &pod,
        "next",
        &format!(
            "berth: {uuid}, which tests/{} holds by grant {id}, is no longer on this node: it fell off the bus or was taken out; \
             see dmesg and berth doctor, and start the pod anew",
            pod.name()
        ),
    )?;
    pod.remove(&[&main])?;
    kubelet.node.is_free()?;
    let anew = kubelet.pod(&[("berth.dev/gpus", "1")])?;
    let other = anew.run("main", &SLEEP)?;
    ensure!(uuids(&kubelet.only_grant()?) != [uuid], "one that is there");
    anew.remove(&[&other])
}

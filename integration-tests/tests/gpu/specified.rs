//! CDI specifications that `berth cdi` makes and looks at: what a node's own says, and that engines without Berth's shim give by it what
//! Berth would.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::CRI_NAMESPACE;
use integration_tests::containerd::stage::Stage;
use integration_tests::cri::messages::ImageSpec;
use integration_tests::gpu::GpuNode;
use integration_tests::gpu::kubelet::{Kubelet, SLEEP};
use integration_tests::images;
use integration_tests::images::glibc::Layout;
use integration_tests::wait;
use serde_json::{Value, json};

use crate::cdi::{named, specify};
use crate::command::has_fields;

/// The specification of one GPU, word for word; what differs between machines has a name in it.
const ONE: &str = include_str!("specified/one.yaml");

/// Writes the node's specification to a folder of specifications.
pub fn generate(node: &GpuNode, folder: &Path) -> Result<PathBuf> {
    let file = folder.join("nvidia.yaml");
    let said = node.berth(&["cdi", "generate", "--output", &file.to_string_lossy()])?;
    ensure!(said.code() == 0, "{said:?}");
    Ok(file)
}

/// The devices of a specification as JSON: minors of the nodes that each brings.
fn devices(spec: &Value) -> Result<BTreeMap<String, Vec<u64>>> {
    let minors = |device: &Value| {
        let nodes = device["containerEdits"]["deviceNodes"].as_array().into_iter().flatten();
        nodes.filter_map(|node| node["minor"].as_u64()).collect::<Vec<_>>()
    };
    let devices = spec["devices"].as_array().context("devices")?;
    Ok(devices
        .iter()
        .map(|one| (one["name"].as_str().unwrap_or_default().to_owned(), minors(one)))
        .collect())
}

pub fn a_specification_of_one_gpu(stage: &Stage) -> Result<()> {
    let _ = stage;
    let node = GpuNode::up("one", "")?;
    let said = node.berth(&["cdi", "generate", "--device-name", "index"])?;
    ensure!(said.code() == 0, "{said:?}");
    let majors = fs::read_to_string(node.root().join("proc/devices"))?;
    let mut majors = majors.lines().filter_map(|line| line.trim().split_once(' '));
    let uvm = majors.find(|(_, name)| *name == "nvidia-uvm").context("a major")?.0;
    let libraries = format!("/{}-linux-gnu", std::env::consts::ARCH);
    let text = said.out.replace(&node.root().display().to_string(), "ROOT");
    let text = text.replace(&format!("major: {uvm}\n"), "major: UVM\n");
    let text = text.replace(&libraries, "/TRIPLET");
    ensure!(text == ONE, "{text}");
    // The other form says the same.
    let json = node.json(&["cdi", "generate"])?;
    let file = generate(&node, &node.path("cdi"))?;
    ensure!(devices(&json)?.len() == 3, "{json:#}");
    let shown = node.json(&["cdi", "list"])?;
    let listed = shown["devices"].as_array().context("a list")?;
    let names: Vec<&Value> = listed.iter().map(|one| &one["device"]).collect();
    let uuid = format!("nvidia.com/gpu={}", node.sim.state()?.gpus[0].uuid);
    ensure!(names == ["nvidia.com/gpu=0", &uuid, "nvidia.com/gpu=all"], "{shown:#}");
    let checked = node.json(&["cdi", "validate"])?;
    ensure!(
        checked
            == json!({ "valid": true, "files": [{ "file": file, "errors": [], "warnings": [] }] }),
        "{checked:#}"
    );
    let folder: Vec<_> = fs::read_dir(node.path("cdi"))?.collect::<Result<_, _>>()?;
    ensure!(folder.len() == 1, "nothing is left beside it: {folder:?}");
    Ok(())
}

pub fn a_specification_has_every_gpu_by_each_of_its_names(stage: &Stage) -> Result<()> {
    let _ = stage;
    let node = GpuNode::up("p4d", "")?;
    let found = devices(&node.json(&["cdi", "generate"])?)?;
    let gpus = node.sim.state()?.gpus;
    let mut wanted = BTreeMap::from([("all".to_owned(), (0..8).collect::<Vec<u64>>())]);
    for (index, gpu) in gpus.iter().enumerate() {
        wanted.insert(index.to_string(), vec![gpu.minor.into()]);
        wanted.insert(gpu.uuid.clone(), vec![gpu.minor.into()]);
    }
    ensure!(found == wanted, "{found:?} is not {wanted:?}");
    let other = node.json(&[
        "cdi",
        "generate",
        "--device-name",
        "uuid",
        "--vendor",
        "example.com",
        "--class",
        "card",
    ])?;
    ensure!(other["kind"] == "example.com/card" && devices(&other)?.len() == 9, "{other:#}");
    ensure!(other["cdiVersion"] == "0.5.0", "{other:#}");
    Ok(())
}

/// A GPU in MIG mode is of use by its instances alone.
pub fn a_specification_has_mig_devices_in_place_of_their_gpu(stage: &Stage) -> Result<()> {
    let _ = stage;
    let node = GpuNode::up("p5", "")?;
    node.sim.set_mig_mode("1", true)?;
    let large = node.sim.create_instance("1", "3g.40gb", None, true)?;
    let small = node.sim.create_instance("1", "1g.10gb", None, true)?;
    node.sim.create_instance("1", "1g.10gb", None, false)?;
    let found = devices(&node.json(&["cdi", "generate"])?)?;
    let caps = |id: u32| [3 + 135 + 9 * u64::from(id), 4 + 135 + 9 * u64::from(id)];
    let mut all: Vec<u64> = (0..8).collect();
    let mut made = [large, small];
    made.sort_by_key(|one| one.id);
    for (nth, one) in made.iter().enumerate() {
        let nodes = [vec![1], caps(one.id).to_vec()].concat();
        ensure!(found.get(&format!("1:{nth}")) == Some(&nodes), "{nth}: {found:?}");
        ensure!(found.get(&one.compute[0].uuid) == Some(&nodes), "{nth}: {found:?}");
        all.extend(caps(one.id));
    }
    // Seven whole ones and two instances, by two names each; and one without a compute instance is none.
    ensure!(found.len() == 2 * 9 + 1 && !found.contains_key("1"), "{found:?}");
    let mut everything = found["all"].clone();
    everything.sort_unstable();
    all.sort_unstable();
    ensure!(everything == all, "{everything:?} is not {all:?}");
    Ok(())
}

pub fn what_cannot_be_specified_is_said(stage: &Stage) -> Result<()> {
    let _ = stage;
    let bare = GpuNode::up("none", "")?;
    let file = bare.path("nvidia.yaml");
    let file = file.to_string_lossy();
    let refused = |node: &GpuNode, flags: &[&str], words: &str| -> Result<()> {
        let said = node.berth(&[&["cdi", "generate"], flags].concat())?;
        ensure!(said.code() == 1 && said.out.is_empty(), "{said:?}");
        ensure!(said.err.trim_end() == format!("berth: {words}"), "{}", said.err);
        Ok(())
    };
    refused(
        &bare,
        &["--output", &file],
        "no NVIDIA driver is loaded on this node, so it has no GPU to give; load the driver (modprobe nvidia) or choose another node",
    )?;
    ensure!(!bare.path("nvidia.yaml").exists(), "nothing is written");
    let node = GpuNode::up("one", "")?;
    refused(
        &node,
        &["--output", "/no/where.conf"],
        "readers of CDI specifications go by the file's name: end /no/where.conf in .yaml",
    )?;
    refused(
        &node,
        &["--class", "../x"],
        "this would be no CDI specification: kind \"nvidia.com/../x\": vendor and class begin with a letter",
    )?;
    let said = node.berth(&["cdi", "generate", "--output", "/dev/null/cdi/x.yaml"])?;
    ensure!(said.code() == 1 && said.err.contains("/dev/null/cdi/x.yaml"), "{said:?}");
    Ok(())
}

/// Errors, conflicts and what beats what, by file and device; as text, and as JSON with fields that stay.
pub fn files_are_listed_and_judged(stage: &Stage) -> Result<()> {
    let _ = stage;
    let node = GpuNode::up("one", "")?;
    let (folder, more) = (node.path("cdi"), node.path("more"));
    let brings = |minor: u32| json!({ "deviceNodes": [{ "path": format!("/dev/nvidia{minor}") }] });
    specify(&folder, "a.json", "v.com/gpu", &[("0", brings(0)), ("x", brings(0))])?;
    specify(&folder, "b.json", "v.com/gpu", &[("x", brings(7))])?;
    specify(&more, "c.json", "v.com/gpu", &[("0", brings(0))])?;
    fs::write(folder.join("d.yaml"), "kind: v.com/gpu\ndevices: [{name: y, colour: red}]\n")?;
    let more = more.to_string_lossy().into_owned();
    let text = node.berth(&["cdi", "list", "--spec-dir", &more])?;
    ensure!(text.code() == 0, "{text:?}");
    let [a, b, d] =
        ["a.json", "b.json", "d.yaml"].map(|name| folder.join(name).display().to_string());
    let c = format!("{more}/c.json");
    for line in [
        format!("v.com/gpu=0  {c}  beats {a}"),
        format!("v.com/gpu=x  {a}  given to nobody: it is in {b}, too"),
        format!("v.com/gpu=x  {b}  given to nobody: it is in {a}, too"),
        format!(
            "error: {d}: unknown field `colour`, expected one of `name`, `annotations`, `containerEdits`"
        ),
    ] {
        let is_it = |said: &str| said.split_whitespace().eq(line.split_whitespace());
        ensure!(text.out.lines().any(is_it), "{line} is not in {}", text.out);
    }
    let listed = node.json(&["cdi", "list"])?;
    has_fields(&listed, &["directories", "devices", "errors"])?;
    has_fields(&listed["devices"][0], &["device", "file", "conflicts", "overridden"])?;
    has_fields(&listed["errors"][0], &["file", "error"])?;
    let text = node.berth(&["cdi", "validate"])?;
    ensure!(text.code() == 1, "{text:?}");
    let expected = [
        format!("{a}: error: device \"v.com/gpu=x\" is in {b}, too; remove it from one of them"),
        format!("{b}: error: device \"v.com/gpu=x\" is in {a}, too; remove it from one of them"),
        format!(
            "{b}: warning: device \"x\": containerEdits.deviceNodes[0].path \"/dev/nvidia7\" is not on this node"
        ),
        format!("{d}: error: device \"y\": colour is no field that is known here"),
        format!(
            "{d}: error: cdiVersion \"\" is not one that is read here: 0.3.0, 0.4.0, 0.5.0, 0.6.0, 0.7.0, 0.8.0, 1.0.0, 1.1.0"
        ),
        format!("{d}: warning: device \"y\" brings nothing of its own, which other readers refuse"),
        "3 files, 4 errors, 2 warnings".to_owned(),
    ];
    ensure!(text.out.lines().eq(expected.iter().map(String::as_str)), "{}", text.out);
    let one = node.berth(&["--json", "cdi", "validate", &c])?;
    let judged: Value = serde_json::from_str(&one.out)?;
    ensure!(one.code() == 0 && judged["valid"] == true, "{one:?}");
    let bad: Value = serde_json::from_str(&node.berth(&["--json", "cdi", "validate", &d])?.out)?;
    has_fields(&bad["files"][0]["errors"][0], &["device", "field", "problem"])?;
    ensure!(bad["valid"] == false && bad["files"][0]["errors"][0]["field"] == "colour", "{bad:#}");
    Ok(())
}

/// By containerd's own shim, which knows no GPUs: the nodes, the rules, and the driver where each image's loader looks.
pub fn another_shim_gives_what_a_specification_says(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    generate(&kubelet.node, &kubelet.containerd.scratch.path("cdi"))?;
    let pod = kubelet.pod_by("runc", "tests", &[])?;
    let id = pod.run_adjusted("main", &SLEEP, named("nvidia.com/gpu=2"))?;
    let inside = kubelet.inside(&id)?;
    let gpu = &kubelet.node.sim.state()?.gpus[2];
    ensure!(inside.nodes == [format!("nvidia{}", gpu.minor)].into(), "{inside:#?}");
    ensure!(inside.open == [u64::from(gpu.minor)].into(), "{inside:#?}");
    ensure!(inside.env["NVIDIA_VISIBLE_DEVICES"] == "void", "{inside:#?}");
    let mut ids = vec![id];
    for (name, layout) in [("debian", Layout::Debian), ("redhat", Layout::RedHat)] {
        let archive = kubelet.containerd.scratch.path(format!("{name}.tar"));
        images::write_built(&archive, layout.name(), |root| layout.build(root))?;
        let ctr = kubelet.containerd.ctr_in(CRI_NAMESPACE);
        ctr.ok(&["images", "import", archive.to_string_lossy().as_ref()])?;
        let create = || {
            let created = pod.create(name, &SLEEP, |config| {
                config.image = Some(ImageSpec { image: layout.name().to_owned() });
                named("nvidia.com/gpu=2")(config);
            });
            created.ok()
        };
        // The CRI plugin learns of an image that another client imports.
        let id = wait::until("the image is known", create)?;
        kubelet.cri.start_container(&id)?;
        // It opens libnvidia-ml.so.1 by that name. The simulated driver behind shows itself in /proc, where only Berth puts it.
        let said = kubelet.cri.exec_sync(&id, &["nvidia-smi", "-L"], 0)?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        ensure!(text.contains("couldn't communicate with the NVIDIA driver"), "{name}: {said:?}");
        ids.push(id);
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    pod.remove(&ids)?;
    kubelet.node.is_free()
}

/// Under Berth's shim the same specification is an allocation by another, whoever resolves it.
pub fn berth_records_what_its_own_specification_gave(stage: &Stage) -> Result<()> {
    let kubelet = Kubelet::up(stage, "l40s", "")?;
    generate(&kubelet.node, &kubelet.containerd.scratch.path("cdi"))?;
    generate(&kubelet.node, &kubelet.node.path("cdi"))?;
    let pod = kubelet.pod(&[])?;
    let id = pod.run_adjusted("main", &SLEEP, named("nvidia.com/gpu=0"))?;
    let grant = kubelet.only_grant()?;
    let resolved = stage.installation.series >= (2, 0);
    let by = if resolved { "injected" } else { "cdi annotation" };
    ensure!(grant["decided_by"] == by && grant["gpus"][0]["uuid"] == kubelet.uuid(0)?, "{grant:#}");
    kubelet.has_exactly(&id, &grant)?;
    pod.remove(&[&id])?;
    kubelet.node.is_free()
}

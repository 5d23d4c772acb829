//! GPUs that somebody else has allocated, where ctr's user is that somebody: recorded, completed, never decided anew.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::{BERTH, Task};
use integration_tests::gpu::world::{ONE_GPU, World, uuids};
use integration_tests::images::glibc::Layout;
use serde_json::{Value, json};

use crate::layouts::finds_the_driver;

/// As ctr's user asks for the device that [`specify`] describes.
const CDI: [&str; 2] = ["--annotation", "cdi.k8s.io/gpu=nvidia.com/gpu=2"];

/// A CDI specification of the GPU of index 2, as `nvidia-ctk cdi generate` writes it: with this hook.
fn specify(world: &World, hook: &str) -> Result<()> {
    let node = format!("/dev/nvidia{}", world.state()?.gpus[2].minor);
    let specification = json!({
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "2", "containerEdits": {"deviceNodes": [{"path": node}]}}],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void", "FROM_CDI=yes"],
            "deviceNodes": [{"path": "/dev/nvidiactl"}, {"path": "/dev/nvidia-uvm"}],
            "hooks": [{"hookName": "createContainer", "path": hook, "args": ["nvidia-cdi-hook", "update-ldcache"]}],
        },
    });
    fs::create_dir_all(world.node.path("cdi"))?;
    Ok(fs::write(world.node.path("cdi").join("nvidia.json"), specification.to_string())?)
}

pub fn a_cdi_annotation_is_resolved_and_completed(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "a30", "")?;
    specify(&world, "/usr/bin/nvidia-cdi-hook")?;
    let image = world.has(Layout::Debian)?;
    let task = world.sleeper_of(image, &CDI)?;
    let (grant, gpu) = (world.grant()?, world.state()?.gpus[2].clone());
    ensure!(uuids(&grant) == [&gpu.uuid] && grant["decided_by"] == "cdi annotation", "{grant:#}");
    // Nothing of NVIDIA's hook, which is not even there, and all that it would have done.
    finds_the_driver(&task)?;
    let env = task.exec(&["env"])?.out;
    ensure!(env.lines().any(|line| line == "FROM_CDI=yes"), "what the specification says: {env}");
    ensure!(world.node.berth(&["ps"])?.out.contains("cdi annotation"), "shown");
    // Nobody else gets it.
    let next = world.sleeper_of(image, &["--annotation", "berth.dev/gpus=3"])?;
    let grants = world.node.grants()?;
    let holders = grants.iter().filter(|grant| uuids(grant).contains(&gpu.uuid.as_str()));
    ensure!(holders.count() == 1, "{grants:#?}");
    next.end()?;
    task.end()?;
    world.node.is_free()
}

pub fn a_request_must_agree_with_a_cdi_annotation(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "a30", "")?;
    specify(&world, "/usr/bin/nvidia-cdi-hook")?;
    let uuid = world.state()?.gpus[2].uuid.clone();
    world.refuses(
        &[&CDI[..], &["--annotation", "berth.dev/gpus=2"]].concat(),
        &format!(
            "berth: annotation berth.dev/gpus=\"2\": cdi annotation has already given this container {uuid}; \
             ask for the same, or ask for nothing"
        ),
    )?;
    let task = world.sleeper(&[&CDI[..], &ONE_GPU].concat())?;
    ensure!(uuids(&world.grant()?) == [&uuid], "one it is");
    task.end()?;
    // Nor can another allocator give what Berth has given already.
    let all = world.sleeper(&["--annotation", "berth.dev/gpus=4"])?;
    let holder = world.grant()?["owner"].as_str().context("an owner")?.to_owned();
    world.refuses(
        &CDI,
        &format!(
            "berth: cdi annotation gave this container {uuid}, which Berth has given to {holder}; \
             let one of the two allocate: set node.gpus so that Berth leaves the other's GPUs alone"
        ),
    )?;
    all.end()
}

pub fn a_cdi_device_that_cannot_be_had_is_named(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "a30", "")?;
    specify(&world, "/opt/vendor/bin/do-as-i-say")?;
    world.refuses(
        &CDI,
        "berth: CDI device nvidia.com/gpu=2 brings the hook \"/opt/vendor/bin/do-as-i-say\", which Berth does not run; \
         remove it from the specification, or the node's operator sets policy.cdi-hooks = true",
    )?;
    world.refuses(
        &["--annotation", "cdi.k8s.io/gpu=nvidia.com/gpu=9"],
        &format!(
            "berth: CDI device nvidia.com/gpu=9: no CDI spec has the device nvidia.com/gpu=9; looked into {}; see what there is with berth cdi list, \
             or write the specification anew, as berth cdi generate does",
            world.node.path("cdi").display()
        ),
    )?;
    world.node.is_free()
}

pub fn a_device_plugin_s_mounts_are_believed_outside_pods(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "a30", "")?;
    let gpu = world.state()?.gpus[3].clone();
    let folder = "/var/run/nvidia-container-devices";
    let mount = |name: &str| format!("type=bind,src=/dev/null,dst={folder}/{name},options=bind:ro");
    let variable = format!("NVIDIA_VISIBLE_DEVICES={folder}");
    let task = world.sleeper(&["--mount", &mount(&gpu.uuid), "--env", &variable])?;
    let grant = world.grant()?;
    ensure!(
        uuids(&grant) == [&gpu.uuid] && grant["decided_by"] == "device plugin (mounts)",
        "{grant:#}"
    );
    let nodes = task.exec(&["sh", "-c", "echo /dev/nvidia[0-9]*"])?.out;
    ensure!(nodes == format!("/dev/nvidia{}\n", gpu.minor), "{nodes}");
    task.end()?;
    let unknown = "GPU-00000000-1111-2222-3333-444444444444";
    world.refuses(
        &["--mount", &mount(unknown)],
        &format!(
            "berth: device plugin (mounts) gave this container {folder}/{unknown}, which is no GPU of this node; \
             its view of the node is out of date: restart it, and compare with berth topo"
        ),
    )?;
    world.node.is_free()
}

/// The specification of a container with the GPU of this minor in it already, as one who speaks to containerd's API writes it.
fn with_node(task: &Task<'_>, root: &Path, minor: u32) -> Result<Value> {
    let mut spec: Value = serde_json::from_str(&task.ctr.ok(&["oci", "spec"])?)?;
    spec["root"] = json!({"path": root});
    spec["process"]["args"] = json!(["sleep", "100000"]);
    spec["process"]["env"] = json!(["PATH=/bin:/sbin"]);
    spec["process"]["terminal"] = json!(false);
    spec["linux"]["cgroupsPath"] = json!(format!("/{}/{}", task.ctr.namespace(), task.id));
    spec["linux"]["devices"] = json!([
        {"path": format!("/dev/nvidia{minor}"), "type": "c", "major": 195, "minor": minor, "fileMode": 0o666},
    ]);
    let rules = spec["linux"]["resources"]["devices"].as_array_mut().context("device rules")?;
    rules.push(json!({"type": "c", "major": 195, "minor": minor, "access": "rwm", "allow": true}));
    Ok(spec)
}

pub fn a_node_that_is_there_already_is_recorded_and_completed(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "a30", "")?;
    let gpu = world.state()?.gpus[1].clone();
    let root = world.containerd.scratch.folder("own-root")?;
    Layout::Debian.build(&root)?;
    let task = Task::named(&world.containerd, "injected");
    let file = world.containerd.scratch.path("spec.json");
    fs::write(&file, with_node(&task, &root, gpu.minor)?.to_string())?;
    let file = file.to_string_lossy();
    let run =
        ["run", "--runtime", BERTH, "--detach", "--null-io", "--config", file.as_ref(), &task.id];
    task.ctr.ok(&run)?;
    world.containerd.note_socket(world.containerd.namespace(), &task.id);
    let grant = world.grant()?;
    ensure!(uuids(&grant) == [&gpu.uuid] && grant["decided_by"] == "injected", "{grant:#}");
    let nodes = task.exec(&["sh", "-c", "ls /dev | grep nvidia"])?.out;
    let own = format!("nvidia{}", gpu.minor);
    let wanted = ["nvidia-uvm", "nvidia-uvm-tools", &own, "nvidiactl"].join("\n");
    ensure!(nodes.trim_end() == wanted, "once each: {nodes}");
    finds_the_driver(&task)?;
    task.end()?;
    world.node.is_free()
}

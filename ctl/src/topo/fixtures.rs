//! Nodes to be drawn, for tests: machines as the inventory has them, with grants on them.

use std::sync::Arc;

use engine::{CpuSet, Grant, Inventory, Origin, State};
use serde_json::{Value, from_value, json};

use super::seating::Seating;

pub fn set(text: &str) -> CpuSet {
    text.parse().expect("a list")
}

fn uuid(index: usize) -> String {
    format!("GPU-00000000-0000-4000-8000-{index:012}")
}

/// GPUs as the driver tells them: address and NUMA node of each; `near` says how close two are.
fn gpus(
    model: &str,
    memory: u64,
    places: &[(&str, i64)],
    near: &dyn Fn(usize, usize) -> &'static str,
) -> Vec<Value> {
    let gpu = |(index, (pci, node)): (usize, &(&str, i64))| {
        let others = (0..places.len()).filter(|other| *other != index);
        let peers = others
            .map(|other| (uuid(other), json!({"nvlinks": 12, "ancestor": near(index, other)})));
        json!({
            "index": index, "uuid": uuid(index), "pci": pci, "minor": index, "model": model, "brand": "nvidia",
            "compute_capability": {"major": 8, "minor": 0}, "memory": memory,
            "numa_node": (*node >= 0).then_some(node), "mig": false, "mig_capable": true,
            "peers": peers.collect::<serde_json::Map<_, _>>(),
        })
    };
    places.iter().enumerate().map(gpu).collect()
}

/// Puts a GPU into MIG mode: eight slices, with what `instances` says of profile, start and size.
pub fn cut(inventory: &mut Inventory, index: usize, instances: &[(u32, u32, u32)]) {
    let profile = |id: u32, name: &str, slices: u32, starts: &[u32]| {
        json!({"id": id, "name": name, "slices": slices, "compute": slices.min(7), "sms": 14 * slices,
            "memory": 4864 * slices, "max": 7, "starts": starts, "media": false})
    };
    let profiles = [
        profile(19, "1g.5gb", 1, &[0, 1, 2, 3, 4, 5, 6]),
        profile(14, "2g.10gb", 2, &[0, 2, 4]),
        profile(9, "3g.20gb", 4, &[0, 4]),
        profile(0, "7g.40gb", 8, &[0]),
    ];
    let instance = |(nth, (profile, start, size)): (usize, &(u32, u32, u32))| {
        let id = 7 + nth;
        json!({"gpu_instance": id, "profile": profile, "start": start, "size": size,
            "compute_instances": []})
    };
    let gpu = &mut inventory.gpus[index];
    gpu.mig = true;
    gpu.profiles = from_value(json!(profiles)).expect("profiles");
    let all: Vec<Value> = instances.iter().enumerate().map(instance).collect();
    gpu.instances = from_value(json!(all)).expect("instances");
}

fn inventory(gpus: &[Value], topology: &Value) -> Inventory {
    from_value(json!({
        "driver": {"version": "550.163.01", "cuda": {"major": 12, "minor": 4}},
        "gpus": gpus, "topology": topology,
    }))
    .expect("an inventory")
}

/// So many cores from `first` on, with a second thread `second` further; 0 for none.
fn cores(first: u32, number: u32, second: u32) -> Vec<String> {
    let core =
        |cpu: u32| if second == 0 { cpu.to_string() } else { format!("{cpu},{}", cpu + second) };
    (first..first + number).map(core).collect()
}

/// Two sockets of 24 cores, eight A100: pairs on a switch, four below each host bridge.
pub fn p4d() -> Inventory {
    let places = [
        ("0000:10:1c.0", 0),
        ("0000:10:1d.0", 0),
        ("0000:20:1c.0", 0),
        ("0000:20:1d.0", 0),
        ("0000:90:1c.0", 1),
        ("0000:90:1d.0", 1),
        ("0000:a0:1c.0", 1),
        ("0000:a0:1d.0", 1),
    ];
    let near = |one: usize, other: usize| match () {
        () if one / 2 == other / 2 => "single-switch",
        () if one / 4 == other / 4 => "host-bridge",
        () => "system",
    };
    let all = [cores(0, 24, 48), cores(24, 24, 48)].concat();
    inventory(
        &gpus("NVIDIA A100-SXM4-40GB", 40960, &places, &near),
        &json!({
            "nodes": [
                {"id": 0, "cpus": "0-23,48-71", "memory": true, "distances": [10, 21]},
                {"id": 1, "cpus": "24-47,72-95", "memory": true, "distances": [21, 10]},
            ],
            "packages": ["0-23,48-71", "24-47,72-95"], "caches": [], "cores": all,
            "isolated": "", "nohz_full": "", "gpu_memory": {},
        }),
    )
}

/// Two Grace processors, four GPUs with a memory node each, and the nodes that are kept for MIG.
pub fn gb200() -> Inventory {
    let places =
        [("0008:01:00.0", 0), ("0009:01:00.0", 0), ("0018:01:00.0", 1), ("0019:01:00.0", 1)];
    let distances: Vec<u32> = vec![10; 34];
    let memory = |id: u32| (id - 2).is_multiple_of(8);
    let mut nodes = vec![
        json!({"id": 0, "cpus": "0-71", "memory": true, "distances": distances}),
        json!({"id": 1, "cpus": "72-143", "memory": true, "distances": distances}),
    ];
    nodes.extend(
        (2..34)
            .map(|id| json!({"id": id, "cpus": "", "memory": memory(id), "distances": distances})),
    );
    inventory(
        &gpus("NVIDIA GB200", 189_471, &places, &|_, _| "system"),
        &json!({
            "nodes": nodes, "packages": ["0-71", "72-143"], "caches": [], "cores": cores(0, 144, 0),
            "isolated": "70-71", "nohz_full": "",
            "gpu_memory": {"0008:01:00.0": 2, "0009:01:00.0": 10, "0018:01:00.0": 18, "0019:01:00.0": 26},
        }),
    )
}

/// One GPU, one socket.
pub fn one() -> Inventory {
    inventory(
        &gpus("NVIDIA H100 PCIe", 81559, &[("0000:01:00.0", 0)], &|_, _| "system"),
        &json!({
            "nodes": [{"id": 0, "cpus": "0-31", "memory": true, "distances": [10]}],
            "packages": ["0-31"], "caches": [], "cores": cores(0, 16, 16),
            "isolated": "", "nohz_full": "", "gpu_memory": {},
        }),
    )
}

/// A grant of whole GPUs to `label`, with the annotations that asked for them.
pub fn grant(inventory: &Inventory, label: &str, asked: &[(&str, &str)], gpus: &[usize]) -> Grant {
    let given = |index: &usize| {
        let gpu = &inventory.gpus[*index];
        json!({"uuid": gpu.uuid, "pci": gpu.pci, "minor": gpu.minor, "index": gpu.index, "model": gpu.model,
            "memory": gpu.memory, "numa_node": gpu.numa_node})
    };
    let given: Vec<Value> = gpus.iter().map(given).collect();
    let given: Vec<engine::GivenGpu> = from_value(json!(given)).expect("GPUs");
    let name = label.rsplit('/').next().unwrap_or_default();
    let member = json!([{"container": name, "name": "", "init": null, "cgroup": null}]);
    Grant {
        id: "g-00c0ffee00c0ffee".parse().expect("an id"),
        owner: from_value(json!({"namespace": "k8s.io", "sandbox": name, "container": null}))
            .expect("an owner"),
        label: label.to_owned(),
        kubernetes_namespace: None,
        origin: Origin::Berth,
        state: State::Applied,
        requested: asked
            .iter()
            .map(|(key, value)| (format!("berth.dev/{key}"), (*value).to_owned()))
            .collect(),
        gpus: Arc::from(given),
        slots: Vec::new(),
        capabilities: engine::Capabilities::default(),
        unconfined: false,
        candidates: Arc::from(Vec::new()),
        closeness: String::new(),
        exclusive: std::collections::BTreeMap::new(),
        sandbox_init: None,
        members: from_value(member).expect("a member"),
        notes: Vec::new(),
        created: 0,
    }
}

/// A grant of instances: profile, name, start, size.
pub fn sliced(
    inventory: &Inventory,
    label: &str,
    gpu: usize,
    slots: &[(u32, &str, u32, u32)],
) -> Grant {
    let asked = slots.first().map_or("", |slot| slot.1);
    let mut grant = grant(inventory, label, &[("mig", asked)], &[gpu]);
    let slot = |(nth, (profile, name, start, size)): (usize, &(u32, &str, u32, u32))| {
        json!({"gpu": inventory.gpus[gpu].uuid, "profile": profile, "name": name, "start": start, "size": size,
            "memory": 4864 * size, "sms": 14 * size, "stage": "made",
            "instance": {"gpu_instance": 7 + nth, "compute_instance": 0, "uuid": null, "inode": 1}})
    };
    let slots: Vec<Value> = slots.iter().enumerate().map(slot).collect();
    grant.slots = from_value(json!(slots)).expect("slots");
    grant
}

/// Says what the grant's only container is pinned to.
pub fn pinned(mut grant: Grant, cpus: &str, memory: &str, exclusively: bool) -> Grant {
    let pinning = &mut grant.members[0].pinning;
    pinning.effective = Some(set(cpus));
    pinning.preferred = set(memory);
    pinning.exclusive = exclusively;
    if exclusively {
        grant.exclusive.insert(String::new(), set(cpus));
    }
    grant
}

/// The p4d with grants of every kind on it.
pub fn busy_p4d() -> Seating {
    let mut node = p4d();
    cut(&mut node, 0, &[(9, 0, 4), (19, 4, 1), (19, 6, 1)]);
    cut(&mut node, 5, &[(14, 2, 2)]);
    let (near, far) = ("2-19,50-67", "24-47,72-95");
    let mut external = grant(&node, "team-b/shared/main", &[], &[7]);
    external.origin = Origin::External { by: "device plugin (env)".into() };
    let mut also = grant(&node, "team-b/shared-too/main", &[], &[7]);
    also.origin = external.origin.clone();
    let asked = [("gpus", "1"), ("numa", "strict")];
    let mut strict = pinned(grant(&node, "research/llm-0/worker", &asked, &[4]), far, "", false);
    strict.members[0].pinning.memory = Some(set("1"));
    let grants = [
        pinned(grant(&node, "default/train", &[("gpus", "2")], &[2, 3]), near, "0", false),
        pinned(
            grant(&node, "default/infer", &[("cpus", "2"), ("gpus", "1")], &[1]),
            "20-21,68-69",
            "0",
            true,
        ),
        pinned(sliced(&node, "ml/notebook-1", 0, &[(9, "3g.20gb", 0, 4)]), near, "0", false),
        pinned(sliced(&node, "ml/notebook-2", 0, &[(19, "1g.5gb", 4, 1)]), near, "0", false),
        strict,
        external,
        also,
    ];
    Seating::of(&node, &grants, &set("20-23,68-71"), &set("0-1,48-49"))
}

/// The GB200 with two grants.
pub fn busy_gb200() -> Seating {
    let mut node = gb200();
    cut(&mut node, 3, &[(9, 4, 4)]);
    let grants = [
        pinned(grant(&node, "default/train", &[("gpus", "2")], &[0, 1]), "0-69", "0", false),
        pinned(sliced(&node, "ml/eval", 3, &[(9, "3g.20gb", 4, 4)]), "72-143", "1", false),
    ];
    Seating::of(&node, &grants, &CpuSet::none(), &CpuSet::none())
}

/// The node of one GPU, with CPUs of which a thread is somebody's.
pub fn busy_one() -> Seating {
    let node = one();
    let grants = [pinned(
        grant(&node, "default/solo", &[("gpus", "1"), ("cpus", "3")], &[0]),
        "4-5,20",
        "0",
        true,
    )];
    Seating::of(&node, &grants, &set("4-7,20-23"), &CpuSet::none())
}

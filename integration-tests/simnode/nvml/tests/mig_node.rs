//! MIG beyond one process and one call: what the kernel shows of instances, what ends them, many processes at once, faults,
//! and what a container sees.

mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use lab::mig::{Device, IN_USE, INSUFFICIENT_RESOURCES, NOT_SUPPORTED, Raw};
use lab::{Lab, text};
use simnode::code::Code;
use simnode::fault::{Action, Fault};
use simnode::mig::admin;
use simnode::state::MigMode;
use simnode::store::Store;
use simnode::{Change, Node, NodeError, Options, Profile, container};

const TIMEOUT: u32 = 10;

/// A node of this profile, this GPU of it in MIG mode.
fn cut(profile: &str, gpu: u32) -> Lab {
    let lab = Lab::up(profile);
    let mode = MigMode { current: true, pending: true };
    lab.change(Change::Mig { gpu: gpu.to_string(), mode });
    lab
}

fn fault(lab: &Lab, function: &str, nth: u64, action: Action) {
    let function = function.to_owned();
    let fault = Fault { function, gpu: None, nth, onwards: false, action, seen: 0 };
    lab.change(Change::Inject(fault));
}

/// The capability files of a node, below `capabilities`.
fn files(root: &Path) -> BTreeSet<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => walk(&path, found),
                path => found.push(path),
            }
        }
    }
    let root = root.join("proc/driver/nvidia/capabilities");
    let mut found = Vec::new();
    walk(&root, &mut found);
    let name = |path: &PathBuf| path.strip_prefix(&root).expect("below").display().to_string();
    found.iter().map(name).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    ["mig/config", "mig/monitor"].iter().chain(names).map(|name| (*name).to_owned()).collect()
}

#[test]
fn capability_files_are_there_as_long_as_their_instances_with_the_minors_of_the_formula() {
    let lab = cut("p5", 2);
    let root = lab.node.root();
    let raw = Raw::new(&lab);
    let gpu = raw.gpu(2);
    assert_eq!(files(&root), set(&[]));
    let gi = raw.create_at(gpu, 9, (4, 4)).expect("room");
    assert_eq!(files(&root), set(&["gpu2/mig/gi1/access"]));
    let first = raw.create_compute(gi, 0).expect("room");
    raw.create_compute(gi, 0).expect("room");
    raw.create_at(gpu, 19, (3, 1)).expect("room");
    let all = [
        ("gpu2/mig/gi1/access", 3 + 135 * 2 + 9),
        ("gpu2/mig/gi1/ci0/access", 3 + 135 * 2 + 9 + 1),
        ("gpu2/mig/gi1/ci1/access", 3 + 135 * 2 + 9 + 2),
        ("gpu2/mig/gi10/access", 3 + 135 * 2 + 9 * 10),
    ];
    assert_eq!(files(&root), set(&all.map(|(name, _)| name)));
    let folder = root.join("proc/driver/nvidia/capabilities");
    let config = fs::read_to_string(folder.join("mig/config")).expect("a file");
    assert_eq!(config, "DeviceFileMinor: 1\nDeviceFileMode: 256\nDeviceFileModify: 1\n");
    let table = root.join("proc/driver/nvidia-caps/mig-minors");
    let table = fs::read_to_string(table).expect("a table");
    for (name, minor) in all {
        let file = fs::read_to_string(folder.join(name)).expect("a file");
        let expected =
            format!("DeviceFileMinor: {minor}\nDeviceFileMode: 256\nDeviceFileModify: 1\n");
        assert_eq!(file, expected, "{name}");
        let line = format!("{} {minor}", name.replace("/mig", ""));
        assert!(table.lines().any(|found| found == line), "{line}");
    }
    raw.destroy_compute(first).expect("it goes");
    let left = ["gpu2/mig/gi1/access", "gpu2/mig/gi1/ci1/access", "gpu2/mig/gi10/access"];
    assert_eq!(files(&root), set(&left));
    lab.node.destroy_instance("2", 1).expect("it goes");
    lab.node.destroy_instance("2", 10).expect("it goes");
    assert_eq!(files(&root), set(&[]));
    assert!(folder.join("gpu2/mig").is_dir() && !folder.join("gpu1").exists());
    assert_eq!(raw.set_mode(gpu, 0), Ok(0));
    assert!(!folder.join("gpu2").exists());
}

#[test]
fn the_table_of_minors_is_the_formula_and_nothing_else() {
    let lab = Lab::up("a30");
    let table = lab.node.root().join("proc/driver/nvidia-caps/mig-minors");
    let table = fs::read_to_string(table).expect("a table");
    let mut expected = "config 1\nmonitor 2\n".to_owned();
    for gpu in 0..32 {
        for gi in 0..15 {
            let access = 3 + 135 * gpu + 9 * gi;
            expected += &format!("gpu{gpu}/gi{gi}/access {access}\n");
            for ci in 0..8 {
                expected += &format!("gpu{gpu}/gi{gi}/ci{ci}/access {}\n", access + 1 + ci);
            }
        }
    }
    assert_eq!(table, expected);
}

#[test]
fn device_nodes_of_instances_are_made_where_the_node_is_told_to() {
    for capability_nodes in [false, true] {
        let lab = Lab::up("none");
        let options = Options { capability_nodes, ..Options::default() };
        let dir = lab.beside().join("other");
        let node = Node::up(&dir, &Profile::named("one").expect("one"), options).expect("a node");
        assert_eq!(node.set_mig_mode("0", true).expect("a mode"), None);
        node.create_instance("0", "1g.10gb", Some(0), true).expect("room");
        let made = [66, 67]
            .map(|minor| node.root().join(format!("dev/nvidia-caps/nvidia-cap{minor}")).exists());
        assert_eq!(made, [capability_nodes; 2]);
        node.down().expect("gone");
    }
}

#[test]
fn unload_reload_reboot_and_reset_leave_no_instance() {
    type End = fn(&Lab);
    let ends: [(&str, End); 4] = [
        ("unload", |lab| lab.change(Change::Unload)),
        ("reload", |lab| lab.change(Change::Load)),
        ("reboot", |lab| lab.change(Change::Reboot)),
        ("reset", |lab| lab.node.reset_gpu("1").expect("a reset")),
    ];
    for (name, end) in ends {
        let lab = cut("p4d", 1);
        lab.node.create_instance("1", "2g.10gb", None, true).expect("room");
        let foreign = lab.node.create_instance("1", "9", None, false).expect("room");
        assert!(foreign.compute.is_empty());
        assert_eq!(files(&lab.node.root()).len(), 2 + 3);
        end(&lab);
        assert!(lab.node.state().expect("a state").gpus[1].instances.is_empty(), "{name}");
        let left = if name == "unload" { BTreeSet::new() } else { set(&[]) };
        assert_eq!(files(&lab.node.root()), left, "{name}");
        if name == "unload" {
            lab.change(Change::Load);
        }
        assert_eq!(Raw::new(&lab).gis(Raw::new(&lab).gpu(1), 14), Ok(Vec::new()), "{name}");
    }
}

#[test]
fn what_the_driver_refuses_an_operator_is_refused_whole() {
    let lab = cut("p5", 0);
    lab.node.create_instance("0", "3g.40gb", Some(4), true).expect("room");
    let before = lab.node.state().expect("a state");
    let refused = [
        lab.node.create_instance("0", "3g.40gb", Some(4), true),
        lab.node.create_instance("0", "1g.5gb", None, true),
        lab.node.create_instance("1", "1g.10gb", None, true),
    ];
    let codes = refused.map(|answer| match answer {
        Err(NodeError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    });
    assert_eq!(codes, [Code::INSUFFICIENT_RESOURCES, Code::INVALID_ARGUMENT, Code::NOT_SUPPORTED]);
    // And what fails half way leaves nothing.
    let half = admin::carry_out(&Store::of(lab.node.dir()), 0, |gpu, count| {
        gpu.create_instance(count, 19, None)?;
        Err::<(), Code>(Code::UNKNOWN)
    });
    assert_eq!(half.expect("a state"), Err(Code::UNKNOWN));
    assert_eq!(lab.node.state().expect("a state"), before);
}

/// Run by [`processes_at_once_never_get_the_same_slice`] in processes of their own; without a node in the environment it has
/// nothing to do.
#[test]
fn one_of_many_processes() {
    let Some(dir) = std::env::var_os("MIG_TEST_NODE") else { return };
    let node = Node::open(Path::new(&dir)).expect("a node");
    let raw = Raw::of(&node);
    let gpu = raw.gpu(0);
    // Each keeps one and gives one back, so that ends and beginnings mingle.
    let make = || raw.create(gpu, 19).and_then(|gi| raw.create_compute(gi, 0).map(|ci| (gi, ci)));
    for _ in 0..3 {
        match make() {
            Ok((gi, ci)) => {
                raw.destroy_compute(ci).expect("one's own goes");
                raw.destroy(gi).expect("one's own goes");
            }
            Err(code) => assert_eq!(code, INSUFFICIENT_RESOURCES),
        }
    }
    match make() {
        Ok(_) | Err(INSUFFICIENT_RESOURCES) => {}
        Err(code) => panic!("{code}"),
    }
}

/// This program again, with one test alone.
fn myself(test: &str, lab: &Lab) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a program"));
    command.args(["--exact", test, "--nocapture"]).env("MIG_TEST_NODE", lab.node.dir());
    command.stdout(Stdio::null());
    command
}

#[test]
fn processes_at_once_never_get_the_same_slice() {
    let lab = cut("p5", 0);
    let start = |_| myself("one_of_many_processes", &lab).spawn().expect("it runs");
    let children: Vec<_> = (0..10).map(start).collect();
    for mut child in children {
        assert!(child.wait().expect("an end").success());
    }
    let gpu = lab.node.state().expect("a state").gpus[0].clone();
    let starts: BTreeSet<u32> = gpu.instances.iter().map(|one| one.placement.start).collect();
    let uuids: BTreeSet<&str> = gpu.mig_devices().map(|mig| mig.compute.uuid.as_str()).collect();
    assert_eq!(starts.len(), gpu.instances.len(), "{:?}", gpu.instances);
    assert_eq!(uuids.len(), gpu.instances.len());
    // Ten want one each. Only a GPU that seven others hold refuses one, so three at most go without.
    assert_eq!(starts.len(), 7);
    let expected = gpu.instances.iter().flat_map(|one| {
        let folder = format!("gpu0/mig/gi{}", one.id);
        [format!("{folder}/access"), format!("{folder}/ci0/access")]
    });
    let expected: BTreeSet<String> = expected.chain(set(&[])).collect();
    assert_eq!(files(&lab.node.root()), expected);
}

/// Run by [`a_process_can_die_at_every_call_before_or_after_the_deed`].
#[test]
fn makes_and_ends_one() {
    let Some(dir) = std::env::var_os("MIG_TEST_NODE") else { return };
    let raw = Raw::of(&Node::open(Path::new(&dir)).expect("a node"));
    let gi = raw.create(raw.gpu(0), 19).expect("room");
    let ci = raw.create_compute(gi, 0).expect("room");
    raw.destroy_compute(ci).expect("it goes");
    raw.destroy(gi).expect("it goes");
}

#[test]
fn a_process_can_die_at_every_call_before_or_after_the_deed() {
    use std::os::unix::process::ExitStatusExt;
    // GPU instances and MIG devices that are left.
    let cases = [
        ("nvmlDeviceCreateGpuInstance", Action::Die, (0, 0)),
        ("nvmlDeviceCreateGpuInstance", Action::DieAfter, (1, 0)),
        ("nvmlGpuInstanceCreateComputeInstance", Action::Die, (1, 0)),
        ("nvmlGpuInstanceCreateComputeInstance", Action::DieAfter, (1, 1)),
        ("nvmlComputeInstanceDestroy", Action::Die, (1, 1)),
        ("nvmlComputeInstanceDestroy", Action::DieAfter, (1, 0)),
        ("nvmlGpuInstanceDestroy", Action::Die, (1, 0)),
        ("nvmlGpuInstanceDestroy", Action::DieAfter, (0, 0)),
    ];
    let lab = cut("p5", 0);
    for (function, action, left) in cases {
        fault(&lab, function, 1, action);
        let status: ExitStatus = myself("makes_and_ends_one", &lab).status().expect("it runs");
        assert_eq!(status.signal(), Some(9), "{function} {action:?}");
        let gpu = lab.node.state().expect("a state").gpus[0].clone();
        let found = (gpu.instances.len(), gpu.mig_devices().count());
        assert_eq!(found, left, "{function} {action:?}");
        assert_eq!(files(&lab.node.root()).len(), 2 + found.0 + found.1, "{function} {action:?}");
        lab.change(Change::ClearFaults);
        for instance in gpu.instances {
            lab.node.destroy_instance("0", instance.id).expect("it goes");
        }
    }
}

#[test]
fn an_error_comes_instead_of_the_deed_or_after_it() {
    let lab = cut("p5", 0);
    let raw = Raw::new(&lab);
    let gpu: Device = raw.gpu(0);
    fault(&lab, "nvmlDeviceCreateGpuInstance", 1, Action::Error(Code::IN_USE));
    assert_eq!(raw.create(gpu, 19), Err(IN_USE));
    assert_eq!(raw.gis(gpu, 19), Ok(Vec::new()));
    fault(&lab, "nvmlDeviceCreateGpuInstance", 1, Action::ErrorAfter(Code::TIMEOUT));
    assert_eq!(raw.create(gpu, 19), Err(TIMEOUT));
    let made = raw.gis(gpu, 19).expect("a list");
    assert_eq!(made.len(), 1, "the driver was too slow, and did it");
    // A handle counts for its GPU.
    let function = "nvmlGpuInstanceDestroy".to_owned();
    let action = Action::Error(Code::UNKNOWN);
    let fault = Fault { function, gpu: Some(0), nth: 1, onwards: false, action, seen: 0 };
    lab.change(Change::Inject(Fault { gpu: Some(1), ..fault.clone() }));
    raw.destroy(made[0]).expect("that was for another GPU");
    lab.change(Change::Inject(fault));
    let other = raw.create(gpu, 19).expect("room");
    assert_eq!(raw.destroy(other), Err(Code::UNKNOWN.number()));
    raw.destroy(other).expect("that was one call");
}

/// A root with what a container gets that was given MIG devices of GPU 0: instance ids, with compute instance 0 each.
fn container_with(lab: &Lab, instances: &[u32]) -> PathBuf {
    let (host, root) = (lab.node.root(), lab.beside().join("container"));
    let _ = fs::remove_dir_all(&root);
    let copy = |path: &str| {
        let to = root.join(path);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        let done = Command::new("cp").arg("-a").arg(host.join(path)).arg(to).status().expect("cp");
        assert!(done.success(), "{path}");
    };
    let state = lab.node.state().expect("a state");
    copy("proc/driver/nvidia/version");
    copy(&format!("proc/driver/nvidia/gpus/{}", state.gpus[0].route.device));
    copy("dev/nvidiactl");
    copy("dev/nvidia0");
    for id in instances {
        copy(&format!("proc/driver/nvidia/capabilities/gpu0/mig/gi{id}"));
        for minor in [3 + 9 * id, 3 + 9 * id + 1] {
            copy(&format!("dev/nvidia-caps/nvidia-cap{minor}"));
        }
    }
    root
}

#[test]
fn a_container_sees_the_mig_devices_whose_capabilities_it_has_and_no_others() {
    let dir = Lab::up("none");
    let place = dir.beside().join("other");
    let options = Options { capability_nodes: true, ..Options::default() };
    let node = Node::up(&place, &Profile::named("p5").expect("one"), options).expect("a node");
    let lab = dir.with(node);
    lab.node.set_mig_mode("0", true).expect("a mode");
    let make = |profile| lab.node.create_instance("0", profile, None, true).expect("room");
    let (three, one, other) = (make("3g.40gb"), make("1g.10gb"), make("1g.10gb+me"));
    let library = lab.node.nvml_path().expect("a path");
    let seen = |instances: &[u32]| {
        let found = container::observe(&container_with(&lab, instances), &library);
        let gpu = found.expect("a state").gpus.remove(0);
        let device =
            |mig: simnode::mig::MigDevice<'_>| (mig.profile_name(), mig.compute.uuid.clone());
        gpu.mig_devices().map(device).collect::<Vec<_>>()
    };
    let uuid = |instance: &simnode::mig::GpuInstance| instance.compute[0].uuid.clone();
    assert_eq!(seen(&[]), []);
    assert_eq!(seen(&[one.id]), [("1g.10gb".to_owned(), uuid(&one))]);
    let both = [("3g.40gb".to_owned(), uuid(&three)), ("1g.10gb+me".to_owned(), uuid(&other))];
    assert_eq!(seen(&[three.id, other.id]), both);
    // A capability file without its node is no capability, and neither is a node without its file.
    let root = container_with(&lab, &[one.id]);
    let devices =
        || container::observe(&root, &library).expect("a state").gpus[0].mig_devices().count();
    assert_eq!(devices(), 1);
    let file =
        root.join(format!("proc/driver/nvidia/capabilities/gpu0/mig/gi{}/ci0/access", one.id));
    let words = fs::read_to_string(&file).expect("a file");
    fs::remove_file(&file).expect("a file");
    assert_eq!(devices(), 0);
    fs::write(&file, words).expect("a file");
    fs::remove_file(root.join(format!("dev/nvidia-caps/nvidia-cap{}", 3 + 9 * one.id)))
        .expect("a node");
    assert_eq!(devices(), 0);
    // What is ended is gone there too, though the container still has its files.
    let root = container_with(&lab, &[one.id]);
    lab.node.destroy_instance("0", one.id).expect("it goes");
    let found = container::observe(&root, &library).expect("a state");
    assert_eq!(found.gpus[0].mig_devices().count(), 0);
}

#[test]
fn nvidia_smi_lists_mig_devices_below_their_gpu() {
    let lab = cut("p5", 1);
    let made = lab.node.create_instance("1", "3g.40gb", None, true).expect("room");
    let listed = text(&lab.smi(&["-L"]).stdout);
    let line = format!("  MIG 3g.40gb     Device  0: (UUID: {})", made.compute[0].uuid);
    assert_eq!(listed.lines().nth(2), Some(line.as_str()), "{listed}");
    assert_eq!(Raw::new(&lab).mig_device(Raw::new(&lab).gpu(0), 0), Err(NOT_SUPPORTED));
}

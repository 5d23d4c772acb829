//! The files of a node: what loaders, ldconfig and the kernel make of them, and that nothing is left.

mod lab;

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{Lab, text};
use simnode::{Change, Layout, Node, NodeError, Options, Profile, elf};

/// What ldconfig finds in folders of `lab`, in the words of `ldconfig -p`.
fn ldconfig(lab: &Lab, folder: &str) -> String {
    let cache = lab.beside().join("cache");
    let conf = lab.beside().join("conf");
    fs::write(&conf, "").expect("a file");
    let run = |arguments: &[&Path]| {
        let output = Command::new("/sbin/ldconfig").args(arguments).output().expect("ldconfig");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let folder = lab.node.root().join(folder);
    run(&["-X".as_ref(), "-C".as_ref(), &cache, "-f".as_ref(), &conf, &folder]);
    run(&["-p".as_ref(), "-C".as_ref(), &cache])
}

#[test]
fn ldconfig_lists_the_sonames() {
    let lab = Lab::up("p5");
    let listed = ldconfig(&lab, "usr/lib/x86_64-linux-gnu");
    for soname in [
        "libcuda.so.1",
        "libcuda.so",
        "libnvidia-ml.so.1",
        "libcudadebugger.so.1",
        "libnvidia-nvvm.so.4",
        "libnvidia-gpucomp.so.550.163.01",
        "libnvidia-nscq.so.2",
        "libGLX_nvidia.so.0",
        "libnvidia-ngx.so.1",
    ] {
        let line = format!("\t{soname} (libc6,x86-64) => ");
        assert!(listed.contains(&line), "{soname} in:\n{listed}");
    }
    let listed = ldconfig(&lab, "usr/lib/i386-linux-gnu");
    assert!(listed.contains("\tlibcuda.so.1 (libc6) => "), "{listed}");
}

#[test]
fn the_nodes_own_loader_cache_knows_them_in_every_layout() {
    for (name, layout) in Layout::ALL {
        let lab = Lab::laid_out("b200", layout);
        let cache = lab.node.root().join(layout.driver_root()).join("etc/ld.so.cache");
        let listing = Command::new("/sbin/ldconfig").arg("-p").arg("-C").arg(cache).output();
        let listing = text(&listing.expect("ldconfig").stdout);
        for soname in ["libcuda.so.1", "libnvidia-ml.so.1"] {
            assert!(listing.contains(&format!("\t{soname} (libc6,x86-64)")), "{name}:\n{listing}");
        }
    }
}

#[test]
fn a_driver_container_brings_all_files_and_the_host_has_none() {
    let lab = Lab::laid_out("p5", Layout::DriverContainer);
    let (host, own) = (lab.node.root(), lab.node.root().join("run/nvidia/driver"));
    for file in
        ["usr/bin/nvidia-smi", "usr/lib/x86_64-linux-gnu/libcuda.so.1", "lib/firmware/nvidia"]
    {
        assert!(own.join(file).exists() && !host.join(file).exists(), "{file}");
    }
    // What is the kernel's is the host's.
    for file in ["proc/driver/nvidia/version", "dev/nvidia0", "sys/module/nvidia"] {
        assert!(host.join(file).exists() && !own.join(file).exists(), "{file}");
    }
    let firmware = host.join("sys/module/firmware_class/parameters/path");
    let firmware = fs::read_to_string(firmware).expect("a path");
    assert_eq!(firmware, "/run/nvidia/driver/lib/firmware\n");
    assert_eq!(lab.nvml().device_count().expect("a count"), 8);
    let lines = lab.node.configuration().expect("lines");
    assert!(lines.contains("driver-root = \"/run/nvidia/driver\""), "{lines}");
}

#[test]
fn a_stub_loads_and_has_its_symbol() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("libstub.so.7");
    let bytes = elf::shared_object(elf::Machine::host(), "libstub.so.7");
    fs::write(&path, bytes).expect("a file");
    let name = CString::new(path.into_os_string().into_encoded_bytes()).expect("a path");
    let symbol = CString::new(elf::SYMBOL).expect("a name");
    // SAFETY: the library has nothing to run, and the symbol is an address that is not followed.
    let value = unsafe {
        let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null(), "dlopen");
        libc::dlsym(handle, symbol.as_ptr())
    };
    // Some loaders take an absolute symbol for one relative to the library.
    assert!(!value.is_null(), "dlsym");
}

#[test]
fn every_stub_of_every_layout_loads() {
    for (name, layout) in Layout::ALL {
        let lab = Lab::laid_out("h200", layout);
        let folder = lab.node.nvml_path().expect("a path");
        let folder = folder.parent().expect("a folder");
        let mut loaded = 0;
        for entry in fs::read_dir(folder).expect("a list").flatten() {
            if entry.file_type().expect("a kind").is_file() {
                let path = entry.path().into_os_string().into_encoded_bytes();
                let path = CString::new(path).expect("a path");
                // SAFETY: none of them runs code when it is loaded.
                let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
                assert!(!handle.is_null(), "{name}: {path:?}");
                loaded += 1;
            }
        }
        assert!(loaded > 25, "{name}: {loaded}");
    }
    // A library that does not say otherwise makes the loader turn every stack executable, or refuse.
    let maps = fs::read_to_string("/proc/self/maps").expect("a list");
    let stack = maps.lines().find(|line| line.ends_with("[stack]")).expect("a stack");
    assert!(!stack.contains("rwx"), "{stack}");
}

/// Follows absolute links within `root`, as a chroot would.
fn inside(root: &Path, path: &str) -> PathBuf {
    let mut place = root.join(path);
    for _ in 0..8 {
        match fs::read_link(&place) {
            Ok(target) if target.is_absolute() => {
                place = root.join(target.strip_prefix("/").expect("absolute"));
            }
            Ok(target) => place = place.parent().expect("a folder").join(target),
            Err(_) => return place,
        }
    }
    panic!("{path}: a ring of links");
}

#[test]
fn debians_links_lead_through_alternatives_and_stay_inside() {
    let lab = Lab::laid_out("a30", Layout::DebianAlternatives);
    let root = lab.node.root();
    let link = fs::read_link(root.join("usr/lib/x86_64-linux-gnu/libcuda.so.1")).expect("a link");
    assert_eq!(link, Path::new("/etc/alternatives/nvidia--libcuda.so.1-x86_64-linux-gnu"));
    let file = inside(&root, "usr/lib/x86_64-linux-gnu/libcuda.so.1");
    assert!(file.ends_with("nvidia/current/libcuda.so.535.261.03"), "{file:?}");
    assert!(inside(&root, "usr/bin/nvidia-smi").is_file());
    assert_eq!(lab.nvml().device_count().expect("a count"), 4);
}

#[test]
fn device_nodes_have_the_real_numbers_and_nobody_drives_them() {
    let lab = Lab::up("p5");
    let root = lab.node.root();
    let devices = fs::read_to_string(root.join("proc/devices")).expect("a list");
    let major = |name: &str| -> u64 {
        let line = devices.lines().find(|line| line.ends_with(&format!(" {name}")));
        line.expect("an entry").split_whitespace().next().expect("a number").parse().expect("one")
    };
    let real = fs::read_to_string("/proc/devices").expect("a list");
    for (path, major, minor) in [
        ("dev/nvidia0", 195, 0),
        ("dev/nvidia7", 195, 7),
        ("dev/nvidiactl", 195, 255),
        ("dev/nvidia-modeset", 195, 254),
        ("dev/nvidia-uvm", major("nvidia-uvm"), 0),
        ("dev/nvidia-uvm-tools", major("nvidia-uvm"), 1),
        ("dev/nvidia-caps/nvidia-cap1", major("nvidia-caps"), 1),
        ("dev/nvidia-nvswitch3", major("nvidia-nvswitch"), 3),
    ] {
        let found = fs::metadata(root.join(path)).expect("a node");
        assert!(found.file_type().is_char_device(), "{path}");
        let number = found.rdev();
        let pair = (u64::from(libc::major(number)), libc::minor(number));
        assert_eq!(pair, (major, minor), "{path}");
        assert!(!real.contains(&format!("\n{major} ")), "{path}: {major} is taken here");
        let error = fs::File::open(root.join(path)).expect_err("no driver");
        assert_eq!(error.raw_os_error(), Some(libc::ENXIO), "{path}: {error}");
    }
    assert_eq!(fs::metadata(root.join("dev/nvidia0")).expect("a node").mode() & 0o777, 0o666);
    assert_eq!(major("nvidia"), 195);
}

#[test]
fn sockets_and_switches_are_where_the_machine_has_them() {
    let socket = |lab: &Lab, path: &str| {
        let found = fs::metadata(lab.node.root().join(path));
        found.is_ok_and(|found| found.file_type().is_socket())
    };
    let [p5, t4] = ["p5", "t4"].map(Lab::up);
    assert!(socket(&p5, "run/nvidia-persistenced/socket"));
    assert!(socket(&p5, "var/run/nvidia-fabricmanager/socket"));
    assert!(socket(&t4, "run/nvidia-persistenced/socket"));
    assert!(!socket(&t4, "run/nvidia-fabricmanager/socket"));
}

#[test]
fn sysfs_and_procfs_agree_about_every_gpu() {
    for profile in Profile::all() {
        let lab = Lab::up(profile.name);
        let root = lab.node.root();
        for gpu in lab.node.state().expect("a state").gpus {
            let address = gpu.route.device.to_string();
            let folder = root.join("sys/bus/pci/devices").join(&address);
            let real = folder.canonicalize().expect("a device");
            assert!(real.starts_with(root.join("sys/devices").canonicalize().expect("a folder")));
            let read = |name: &str| fs::read_to_string(folder.join(name)).expect("a file");
            assert_eq!(read("vendor").trim(), "0x10de");
            assert_eq!(read("class").trim(), "0x030200");
            let node = gpu.node.map_or("-1".to_owned(), |node| node.to_string());
            assert_eq!(read("numa_node").trim(), node, "{}", profile.name);
            let information = root.join("proc/driver/nvidia/gpus").join(&address);
            let information = fs::read_to_string(information.join("information")).expect("it");
            assert!(information.contains(&gpu.uuid) && information.contains(&gpu.model));
        }
    }
}

#[test]
fn grace_blackwell_has_nodes_of_memory_alone() {
    let lab = Lab::up("gb200");
    let nodes = lab.node.root().join("sys/devices/system/node");
    let read = |name: &str| fs::read_to_string(nodes.join(name)).expect("a file").trim().to_owned();
    assert_eq!(read("online"), "0-33");
    assert_eq!(read("has_cpu"), "0-1");
    assert_eq!(read("has_normal_memory"), "0-2,10,18,26");
    assert_eq!(read("node2/cpulist"), "");
    assert_eq!(read("node1/cpulist"), "72-143");
    assert_eq!(read("node0/distance").split(' ').count(), 34);
}

#[test]
fn a_reboot_is_another_boot() {
    let lab = Lab::up("one");
    let boot_id = || {
        fs::read_to_string(lab.node.root().join("proc/sys/kernel/random/boot_id")).expect("an id")
    };
    let before = boot_id();
    assert_eq!(before.trim().len(), 36);
    lab.change(Change::Reboot);
    assert_ne!(boot_id(), before);
}

#[test]
fn a_machine_without_driver_has_nothing_of_it() {
    let lab = Lab::up("none");
    let root = lab.node.root();
    for path in ["proc/driver/nvidia", "dev/nvidiactl", "usr/bin/nvidia-smi", "sys/module/nvidia"] {
        assert!(!root.join(path).exists(), "{path}");
    }
    assert!(lab.load().is_err());
    assert!(root.join("sys/devices/system/node/node0/cpulist").exists());
}

#[test]
fn down_leaves_nothing_and_up_overwrites_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let place = dir.path().join("node");
    let profile = Profile::named("p5").expect("a profile");
    let node = Node::up(&place, &profile, Options::default()).expect("a node");
    let again = Node::up(&place, &profile, Options::default()).expect_err("occupied");
    assert!(matches!(again, NodeError::Occupied { .. }), "{again}");
    assert!(node.root().exists());
    node.down().expect("gone");
    assert!(!place.exists());
    assert!(matches!(Node::open(dir.path()), Err(NodeError::NoNode { .. })));
}

#[test]
fn down_touches_nothing_while_something_is_mounted_there() {
    let lab = Lab::up("none");
    let place = lab.node.root().join("run");
    let mount = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).arg(&place).status().expect("it runs");
        assert!(status.success());
    };
    mount("mount", &["-t", "tmpfs", "simnode"]);
    let refused = lab.node.clone().down();
    mount("umount", &[]);
    let refused = refused.expect_err("mounted");
    assert!(matches!(refused, NodeError::Mounted { .. }), "{refused}");
    assert!(lab.node.root().join("usr/lib").exists());
}

//! Drivers as distributions lay them out, and the trees that come of them.

mod breadth;

use super::layout::LIB_DIR;
use super::*;
use crate::nvidia::fake::{Fake, VERSION, driver};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::time::Duration;

const DEBIAN: &str = "/usr/lib/x86_64-linux-gnu/nvidia/current";
const RED_HAT: &str = "/usr/lib64";

fn all() -> Capabilities {
    Capabilities::default()
}

fn only(name: &str) -> Capabilities {
    name.parse().expect("a capability")
}

/// A node with the driver's files in `dir`.
fn installed(dir: &str) -> Fake {
    let fake = Fake::new();
    install(&fake, dir);
    fake
}

fn install(fake: &Fake, dir: &str) {
    for (stem, soname) in [
        ("libcuda", "libcuda.so.1"),
        ("libnvidia-ml", "libnvidia-ml.so.1"),
        ("libnvidia-ptxjitcompiler", "libnvidia-ptxjitcompiler.so.1"),
        ("libnvidia-encode", "libnvidia-encode.so.1"),
        ("libnvidia-pkcs11", "libnvidia-pkcs11.so"),
        ("libnvidia-glcore", "libnvidia-glcore.so.550.163.01"),
    ] {
        fake.library(&format!("{dir}/{stem}.so.{VERSION}"), soname);
        fake.library(&format!("{dir}/{stem}.so.535.1.2"), soname);
    }
    let gpucomp = format!("libnvidia-gpucomp.so.{VERSION}");
    fake.library(&format!("{dir}/{gpucomp}"), &gpucomp);
    fake.library(&format!("{dir}/libnvidia-nvvm70.so.4"), "libnvidia-nvvm70.so.4");
    fake.link(&format!("{dir}/libnvidia-nvvm70.so.4.0"), "libnvidia-nvvm70.so.4");
    fake.library(&format!("{dir}/libother.so.{VERSION}"), "libother.so.1");
    // Named like ours, and for another machine.
    fake.write(&format!("{dir}/libnvidia-opencl.so.{VERSION}"), "\x7fELF\x01\x01 32 bits");
    fake.write("/usr/lib/nvidia/current/nvidia-smi", "#!/bin/sh\n");
    fake.link("/etc/alternatives/nvidia-smi", "/usr/lib/nvidia/current/nvidia-smi");
    fake.link("/usr/bin/nvidia-smi", "/etc/alternatives/nvidia-smi");
    fake.write("/usr/bin/nvidia-cuda-mps-control", "");
    fake.write(&format!("/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin"), "firmware");
    fake.write(&format!("/lib/firmware/nvidia/{VERSION}/README"), "");
}

fn prepare(fake: &Fake, capabilities: &Capabilities) -> DriverTree {
    prepare_driver(&fake.host, &driver(), capabilities).expect("prepared")
}

fn libraries(tree: &DriverTree) -> Vec<&str> {
    tree.libraries.iter().map(|library| library.soname.as_str()).collect()
}

/// A file of the tree, as its links lead inside it.
fn in_tree(tree: &DriverTree, place: &str) -> PathBuf {
    let path = tree.path.join(place.trim_start_matches('/'));
    fs::canonicalize(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_tree_has_the_libraries_of_the_loaded_version_under_all_their_names() {
    let elsewhere = ["/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/local/nvidia/lib64"];
    for dir in [DEBIAN, RED_HAT].into_iter().chain(elsewhere) {
        let fake = installed(dir);
        let tree = prepare(&fake, &all());
        assert_eq!(
            libraries(&tree),
            [
                "libcuda.so",
                "libcuda.so.1",
                "libnvidia-gpucomp.so.550.163.01",
                "libnvidia-ml.so",
                "libnvidia-ml.so.1",
                "libnvidia-nvvm70.so.4",
                "libnvidia-pkcs11.so",
                "libnvidia-pkcs11.so.550.163.01",
                "libnvidia-ptxjitcompiler.so.1",
            ],
            "{dir}"
        );
        for library in &tree.libraries {
            assert!(library.path.starts_with("/usr/local/nvidia/lib64/"), "{}", library.path);
            assert!(in_tree(&tree, &library.path).starts_with(&tree.path));
        }
        let found = in_tree(&tree, "/usr/local/nvidia/lib64/libcuda.so");
        assert!(found.ends_with(format!("libcuda.so.{VERSION}")), "{}", found.display());
    }
}

#[test]
fn capabilities_narrow_the_tree() {
    let fake = installed(RED_HAT);
    let utility = prepare(&fake, &only("utility"));
    assert_eq!(libraries(&utility), ["libnvidia-ml.so", "libnvidia-ml.so.1"]);
    assert_eq!(utility.binaries, ["/usr/bin/nvidia-smi"]);
    let compute = prepare(&fake, &only("compute"));
    assert!(!libraries(&compute).contains(&"libnvidia-ml.so.1"));
    assert_eq!(compute.binaries, ["/usr/bin/nvidia-cuda-mps-control"]);
    assert_ne!(utility.path, compute.path);
    let video = prepare(&fake, &only("video"));
    assert_eq!(libraries(&video), ["libnvidia-encode.so", "libnvidia-encode.so.1"]);
}

#[test]
fn programs_and_firmware_have_their_usual_places() {
    let fake = installed(DEBIAN);
    let tree = prepare(&fake, &all());
    assert_eq!(tree.binaries, ["/usr/bin/nvidia-smi", "/usr/bin/nvidia-cuda-mps-control"]);
    assert_eq!(fs::read(in_tree(&tree, &tree.binaries[0])).expect("there"), b"#!/bin/sh\n");
    assert_eq!(tree.firmware, ["/usr/lib/firmware/nvidia/550.163.01/gsp_ga10x.bin"]);
    assert_eq!(fs::read(in_tree(&tree, &tree.firmware[0])).expect("there"), b"firmware");
    let conf = in_tree(&tree, DriverTree::LOADER_CONF);
    assert_eq!(fs::read_to_string(conf).expect("there"), "/usr/local/nvidia/lib64\n");
}

#[test]
fn the_tree_is_a_root_directory_with_nothing_else_in_it() {
    let fake = installed(RED_HAT);
    let tree = prepare(&fake, &all());
    assert_eq!(keep::names(&tree.path).expect("listed"), ["etc", "usr"]);
    let directories: Vec<String> =
        tree.directories.iter().map(|dir| dir.display().to_string()).collect();
    assert_eq!(
        directories,
        [
            "etc",
            "etc/ld.so.conf.d",
            "usr",
            "usr/bin",
            "usr/lib",
            "usr/lib/firmware",
            "usr/lib/firmware/nvidia",
            "usr/lib/firmware/nvidia/550.163.01",
            "usr/local",
            "usr/local/nvidia",
            "usr/local/nvidia/lib64",
        ]
    );
    for dir in directories {
        let mode = fs::metadata(tree.path.join(&dir)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{dir}");
    }
    let path = tree.path.display().to_string();
    let (_, below) = path.split_once("/state/").expect("below the state");
    assert!(!below.contains([',', ':']), "an overlay would misread {below}");
}

#[test]
fn files_are_linked_where_they_can_be() {
    let fake = installed(RED_HAT);
    let tree = prepare(&fake, &all());
    let name = format!("libcuda.so.{VERSION}");
    let real = fs::metadata(fake.host.path(&format!("{RED_HAT}/{name}"))).expect("there");
    let ours = fs::metadata(in_tree(&tree, &format!("{LIB_DIR}/{name}"))).expect("there");
    assert_eq!((ours.dev(), ours.ino()), (real.dev(), real.ino()));
}

#[test]
fn files_of_another_filesystem_are_copied() {
    let mut fake = installed(RED_HAT);
    let other = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let device = |path: &Path| fs::metadata(path).expect("there").dev();
    if device(other.path()) == device(fake.dir.path()) {
        return eprintln!("skipped: /tmp and /dev/shm are one filesystem");
    }
    fake.host.state = other.path().to_owned();
    let tree = prepare(&fake, &all());
    let name = format!("libcuda.so.{VERSION}");
    let copy = in_tree(&tree, &format!("{LIB_DIR}/{name}"));
    let real = fs::read(fake.host.path(&format!("{RED_HAT}/{name}"))).expect("there");
    assert_eq!(fs::read(&copy).expect("there"), real);
    let inode = fs::metadata(&copy).expect("there").ino();
    assert_eq!(prepare(&fake, &all()), tree);
    assert_eq!(fs::metadata(&copy).expect("there").ino(), inode, "and copied once");
}

#[test]
fn a_driver_containers_links_mean_its_own_root() {
    let mut fake = Fake::new();
    fake.host.driver_root = "/run/nvidia/driver".into();
    let inside = |path: &str| format!("/run/nvidia/driver{path}");
    for stem in ["libcuda", "libnvidia-ml"] {
        let name = format!("{stem}.so.{VERSION}");
        fake.library(&inside(&format!("/opt/driver/{name}")), &format!("{stem}.so.1"));
        fake.link(&inside(&format!("/usr/lib64/{name}")), &format!("/opt/driver/{name}"));
        // The host's own of the same name, which an escape would find.
        fake.write(&format!("/opt/driver/{name}"), "the host's");
    }
    fake.write("/sys/module/firmware_class/parameters/path", "/run/nvidia/driver/fw\n");
    fake.write(&inside(&format!("/fw/nvidia/{VERSION}/gsp_tu10x.bin")), "");
    let tree = prepare(&fake, &all());
    assert_eq!(
        libraries(&tree),
        ["libcuda.so", "libcuda.so.1", "libnvidia-ml.so", "libnvidia-ml.so.1"]
    );
    assert_eq!(tree.firmware, ["/usr/lib/firmware/nvidia/550.163.01/gsp_tu10x.bin"]);
}

#[test]
fn a_driver_without_its_main_library_is_refused_with_where_it_was_looked_for() {
    let fake = installed(RED_HAT);
    fs::remove_file(fake.host.path(&format!("{RED_HAT}/libcuda.so.{VERSION}"))).expect("removed");
    let error = prepare_driver(&fake.host, &driver(), &all()).expect_err("no CUDA").to_string();
    for word in ["libcuda of driver 550.163.01", "/usr/lib64", "node.driver-root"] {
        assert!(error.contains(word), "{error}");
    }
    prepare(&fake, &only("utility"));
}

#[test]
fn preparing_again_changes_nothing_and_a_changed_driver_gets_another_tree() {
    let fake = installed(RED_HAT);
    let tree = prepare(&fake, &all());
    let inode = fs::metadata(&tree.path).expect("there").ino();
    assert_eq!(prepare(&fake, &all()), tree);
    assert_eq!(fs::metadata(&tree.path).expect("there").ino(), inode);
    let library = fake.host.path(&format!("{RED_HAT}/libnvidia-ptxjitcompiler.so.{VERSION}"));
    fs::remove_file(library).expect("removed");
    let other = prepare(&fake, &all());
    assert_ne!(other.path, tree.path);
    assert!(tree.path.exists(), "containers may still use it");
}

#[test]
fn a_tree_that_lost_something_is_made_anew() {
    let fake = installed(RED_HAT);
    let tree = prepare(&fake, &all());
    let name = format!("{LIB_DIR}/libcuda.so.{VERSION}");
    let file = tree.path.join(name.trim_start_matches('/'));
    let folder = tree.path.parent().expect("in a folder");
    let damages: [&dyn Fn(); 4] = [
        &|| fs::remove_file(&file).expect("there"),
        // Not through the hard link: that would change the driver's own.
        &|| {
            fs::remove_file(&file).expect("there");
            fs::write(&file, "").expect("written");
        },
        &|| fs::write(folder.join("manifest.json"), "{").expect("written"),
        &|| fs::remove_file(tree.path.join("usr/local/nvidia/lib64/libcuda.so.1")).expect("there"),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        damage();
        assert_eq!(prepare(&fake, &all()), tree, "damage {number}");
        assert!(
            fs::metadata(in_tree(&tree, &format!("{LIB_DIR}/libcuda.so.1"))).expect("there").len()
                > 0
        );
        assert!(folder.join("manifest.json").metadata().expect("there").len() > 2);
    }
}

#[test]
fn what_a_killed_one_left_unfinished_is_swept() {
    let fake = installed(RED_HAT);
    let trees = fake.host.state.join("driver").join(VERSION);
    fs::create_dir_all(trees.join(".new-compute.1.0/root/usr")).expect("made");
    let tree = prepare(&fake, &all());
    let left = keep::names(&trees).expect("listed");
    let ours = tree.path.parent().and_then(Path::file_name).expect("a name").to_string_lossy();
    assert_eq!(left, [ours.as_ref(), "lock"]);
}

#[test]
fn many_at_once_make_one_tree() {
    let fake = installed(RED_HAT);
    let paths: BTreeSet<PathBuf> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| prepare(&fake, &all()).path)).collect();
        threads.into_iter().map(|thread| thread.join().expect("prepared")).collect()
    });
    assert_eq!(paths.len(), 1);
}

#[test]
fn the_launch_path_reads_what_was_prepared_in_this_boot_and_starts_no_child() {
    let fake = installed(RED_HAT);
    let nowhere = Tool { program: "/nowhere/berth".into(), ..fake.tool("") };
    let find = |names| driver_tree(&fake.host, &nowhere, &driver(), &only(names));
    let error = find("compute,utility").expect_err("nothing is prepared").to_string();
    assert!(error.contains("/nowhere/berth"), "{error}");
    let tree = prepare(&fake, &all());
    assert_eq!(find("compute,utility").expect("prepared"), tree);
    assert!(find("utility").is_err(), "another set");
    let newer = Driver { version: "570.1.2".into(), ..driver() };
    assert!(driver_tree(&fake.host, &nowhere, &newer, &all()).is_err(), "another version");
    fake.write("/proc/sys/kernel/random/boot_id", "0a0b-0c0d\n");
    assert!(find("compute,utility").is_err(), "another boot");
}

#[test]
fn a_tree_that_was_removed_is_asked_for_again() {
    let fake = installed(RED_HAT);
    prepare(&fake, &all());
    fs::remove_dir_all(fake.host.state.join("driver")).expect("removed");
    let record = fake.dir.path().join("asked");
    let tool = fake.tool(&format!("echo \"$@\" > {}; echo cannot; exit 1", record.display()));
    let error = driver_tree(&fake.host, &tool, &driver(), &all()).expect_err("gone").to_string();
    assert!(error.contains("could not prepare the driver's files: cannot"), "{error}");
    let asked = fs::read_to_string(record).expect("it was asked");
    assert_eq!(asked, "prepare-driver --capabilities compute,utility\n");
}

#[test]
fn sockets_are_those_that_exist_now() {
    let fake = installed(RED_HAT);
    assert!(prepare(&fake, &all()).sockets.is_empty());
    fake.write("/run/nvidia-persistenced/socket", "");
    fake.write("/run/nvidia-fabricmanager/socket", "");
    let tool = Tool { deadline: Duration::ZERO, ..fake.tool("") };
    let found = driver_tree(&fake.host, &tool, &driver(), &all()).expect("prepared").sockets;
    assert_eq!(found, ["/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket"]);
    assert_eq!(prepare(&fake, &only("utility")).sockets, ["/run/nvidia-persistenced/socket"]);
}

#[test]
fn trees_of_other_versions_are_old() {
    let fake = installed(RED_HAT);
    prepare(&fake, &all());
    fs::create_dir_all(fake.host.state.join("driver/535.183.01")).expect("made");
    fs::create_dir_all(fake.host.state.join("driver/not a version")).expect("made");
    let old = old_trees(&fake.host, Some(&driver())).expect("listed");
    assert_eq!(old, [fake.host.state.join("driver/535.183.01")]);
    assert_eq!(old_trees(&fake.host, None).expect("listed").len(), 2);
}

#[test]
fn files_that_are_replaced_while_a_tree_is_made_are_those_that_were_found() {
    let fake = installed(RED_HAT);
    let found = files::find(&fake.host, &driver(), &all()).expect("found");
    let path = fake.host.path(&format!("{RED_HAT}/libcuda.so.{VERSION}"));
    fs::rename(&path, path.with_extension("old")).expect("renamed");
    fs::write(&path, "another").expect("written");
    let cuda = found.libraries.iter().find(|(file, _)| file.name.starts_with("libcuda.so."));
    let (file, _) = cuda.expect("found");
    let mut magic = [0; 4];
    file.file.read_exact_at(&mut magic, 0).expect("read");
    assert_eq!(&magic, b"\x7fELF");
}

//! Placing for real: into containers of runc that were created and not started, and into bare namespaces.

mod stage;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ArmError, Need, Placing, call, place};
use stage::{Bare, Container, RUNC, UNSHARE, mounts_at, placing, prepared, skipped};

#[test]
fn a_tree_over_a_directory_of_proc_shows_inside_and_nowhere_else() {
    if skipped(&RUNC) || skipped(&["/proc/driver"]) {
        return;
    }
    let tree = prepared();
    let of_node: Vec<_> =
        fs::read_dir("/proc/driver").unwrap().map(|it| it.unwrap().path()).collect();
    let ours = fs::read_link("/proc/thread-self/ns/mnt").unwrap();
    let script = "cat /proc/driver/nvidia/version; ls /proc/driver/nvidia; echo x >/proc/driver/nvidia/version";
    let container = Container::create(script, false, |_| {});

    let placings = Placing::proc_driver(tree.path());
    let warnings = place(container.init, &placings).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");

    let mounts = container.mounts(&placings[0].targets[0]);
    assert_eq!(mounts.len(), 1);
    assert!(mounts[0].contains(" ro,nosuid,nodev,noexec"), "{}", mounts[0]);
    assert!(!mounts[0].contains("shared:"), "{}", mounts[0]);

    // Neither the node nor this thread is in there, and no descriptor of it stays open.
    assert_eq!(fs::read_link("/proc/thread-self/ns/mnt").unwrap(), ours);
    assert!(mounts_at(std::process::id(), "/proc/driver").is_empty());
    let here = fs::read_dir("/proc/driver").unwrap().map(|it| it.unwrap().path());
    assert_eq!(here.collect::<Vec<_>>(), of_node);
    let theirs = fs::read_link(format!("/proc/{}/ns/mnt", container.init)).unwrap();
    let open: Vec<PathBuf> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|it| fs::read_link(it.unwrap().path()).ok())
        .collect();
    assert!(!open.contains(&theirs) && !open.contains(&tree.path().to_owned()), "{open:?}");

    let said = container.run();
    assert!(said.contains("granted only\nversion\n"), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert_eq!(fs::read_to_string(tree.path().join("nvidia/version")).unwrap(), "granted only\n");
}

#[test]
fn a_file_goes_over_a_file_of_a_read_only_root() {
    if skipped(&RUNC) {
        return;
    }
    let sources = tempfile::tempdir().unwrap();
    let file = sources.path().join("cache");
    fs::write(&file, "merged\n").unwrap();
    let container = Container::create("cat /etc/ld.so.cache", true, |root| {
        fs::write(root.join("etc/ld.so.cache"), "the image's\n").unwrap();
    });
    place(container.init, &[placing(&file, &["/none", "/etc/ld.so.cache"])]).unwrap();
    assert_eq!(container.run(), "merged\nexit code 0\n");
    let kept = fs::read_to_string(container.file("rootfs/etc/ld.so.cache")).unwrap();
    assert_eq!(kept, "the image's\n");
}

#[test]
fn programs_run_only_from_what_was_placed_as_executable() {
    if skipped(&RUNC) {
        return;
    }
    let tools = tempfile::tempdir().unwrap();
    fs::copy("/bin/busybox", tools.path().join("busybox")).unwrap();
    for (executable, said) in [(true, "ran\nexit code 0\n"), (false, "Permission denied")] {
        let container = Container::create("/opt/busybox echo ran", false, |_| {});
        let placing = Placing { executable, ..placing(tools.path(), &["/opt"]) };
        place(container.init, &[placing]).unwrap();
        let output = container.run();
        assert!(output.contains(said), "{output}");
    }
}

#[test]
fn links_of_the_image_never_lead_to_the_node() {
    if skipped(&RUNC) {
        return;
    }
    let (tree, node) = (prepared(), tempfile::tempdir().unwrap());
    let outside = node.path().to_owned();
    let container = Container::create("ls /opt", false, |root| {
        symlink(&outside, root.join("absolute")).unwrap();
        symlink(
            Path::new("../../../..").join(outside.strip_prefix("/").unwrap()),
            root.join("etc/relative"),
        )
        .unwrap();
        symlink("/proc/1/root", root.join("magic")).unwrap();
        symlink("/opt", root.join("inside")).unwrap();
    });
    let into = |target: &str| place(container.init, &[placing(tree.path(), &[target])]);
    for target in ["/absolute", "/etc/relative", "/../../../../absolute"] {
        let refusal = into(target);
        assert!(matches!(refusal, Err(ArmError::NoTarget { .. })), "{target}: {refusal:?}");
    }
    let refusal = into("/magic").unwrap_err();
    assert!(refusal.to_string().contains("symbolic link"), "{refusal}");
    // One that stays inside is followed.
    into("/inside").unwrap();
    assert!(container.run().contains("nvidia"));
    assert!(fs::read_dir(node.path()).unwrap().next().is_none());
}

#[test]
fn a_proc_that_is_no_procfs_is_refused() {
    if skipped(&UNSHARE[..1]) {
        return;
    }
    let tree = prepared();
    // As an image does that has something else mounted there.
    let world = Bare::start(
        UNSHARE,
        "mount -t tmpfs none /proc && mkdir -p /proc/driver && test -d /proc/driver",
    );
    let refusal = place(world.pid(), &[placing(tree.path(), &["/proc/driver"])]).unwrap_err();
    assert!(refusal.to_string().contains("not on a procfs"), "{refusal}");
    assert_eq!(mounts_at(world.pid(), "/proc/driver").len(), 0);
}

#[test]
fn targets_count_from_the_containers_root_and_not_from_its_namespaces() {
    if skipped(&["/usr/sbin/chroot", "/bin/busybox"]) {
        return;
    }
    // As an OCI runtime leaves it that cannot pivot: the node's files are still in the namespace.
    let (tree, root) = (prepared(), tempfile::tempdir().unwrap());
    fs::create_dir_all(root.path().join("only")).unwrap();
    fs::create_dir(root.path().join("dev")).unwrap();
    fs::create_dir(root.path().join("bin")).unwrap();
    fs::copy("/bin/busybox", root.path().join("bin/sh")).unwrap();
    symlink("sh", root.path().join("bin/cat")).unwrap();
    symlink("/usr", root.path().join("link")).unwrap();
    let chroot = ["/usr/sbin/chroot", root.path().to_str().unwrap()];
    let world = Bare::start(&[UNSHARE, &chroot].concat(), "true");
    for target in ["/usr/bin", "/link/bin", "/../../../../usr/bin"] {
        let refusal = place(world.pid(), &[placing(tree.path(), &[target])]);
        assert!(matches!(refusal, Err(ArmError::NoTarget { .. })), "{target}: {refusal:?}");
    }
    place(world.pid(), &[placing(tree.path(), &["/only"])]).unwrap();
    assert_eq!(world.sees("/only/nvidia/version").unwrap(), "granted only\n");
}

#[test]
fn below_proc_no_link_is_followed_at_all() {
    if skipped(&UNSHARE[..1]) {
        return;
    }
    let (tree, world) = (prepared(), Bare::start(UNSHARE, "test -L /proc/net"));
    let refusal = place(world.pid(), &[placing(tree.path(), &["/proc/net"])]).unwrap_err();
    assert!(refusal.to_string().contains("symbolic link"), "{refusal}");
}

#[test]
fn only_like_goes_onto_like() {
    if skipped(&UNSHARE[..1]) {
        return;
    }
    let tree = prepared();
    let world = Bare::start(UNSHARE, "true");
    let file = tree.path().join("nvidia/version");
    for (source, target, words) in
        [(tree.path(), "/etc/passwd", "not a directory"), (&*file, "/etc", "not a regular file")]
    {
        let refusal = place(world.pid(), &[placing(source, &[target])]).unwrap_err();
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
}

#[test]
fn what_was_only_wished_for_is_a_warning_and_the_rest_is_placed() {
    if skipped(&UNSHARE[..1]) {
        return;
    }
    let tree = prepared();
    let world = Bare::start(UNSHARE, "true");
    let wished =
        |source: &Path, target| Placing { need: Need::BestEffort, ..placing(source, &[target]) };
    let placings = [
        wished(Path::new("/nonexistent/source"), "/mnt"),
        wished(tree.path(), "/nonexistent/target"),
        placing(tree.path(), &["/nonexistent/one", "/mnt", "/opt"]),
    ];
    let warnings = place(world.pid(), &placings).unwrap();
    assert!(matches!(warnings[..], [ArmError::Source { .. }, ArmError::NoTarget { .. }]));
    assert_eq!(world.sees("/mnt/nvidia/version").unwrap(), "granted only\n");
    assert_eq!(world.sees("/opt/nvidia/version"), None);
    assert!(!Path::new("/mnt/nvidia").exists());
}

#[test]
fn sources_that_others_could_have_made_are_refused() {
    if skipped(&UNSHARE[..1]) {
        return;
    }
    let tree = prepared();
    let world = Bare::start(UNSHARE, "true");
    let refusal =
        |source: &Path| place(world.pid(), &[placing(source, &["/mnt"])]).unwrap_err().to_string();
    let link = tree.path().join("link");
    symlink(tree.path().join("nvidia"), &link).unwrap();
    assert!(refusal(&link).contains("neither a directory nor a regular file"));
    let open = tree.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refusal(&open).contains("written by other users"));
    let foreign = tree.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    chown(&foreign, Some(12_345), None).unwrap();
    assert!(refusal(&foreign).contains("belongs to another user"));
}

#[test]
fn nothing_is_placed_where_others_would_see_it() {
    if skipped(&UNSHARE[..1]) {
        return;
    }
    let (tree, point) = (prepared(), tempfile::tempdir().unwrap());
    let mounted = point.path().to_str().unwrap();
    let world = Bare::start(
        UNSHARE,
        &format!(
            "mount -t tmpfs none {mounted} && mkdir {mounted}/x && mount --make-shared {mounted}"
        ),
    );
    let target = format!("{mounted}/x");
    let refusal = place(world.pid(), &[placing(tree.path(), &[&target])]).unwrap_err();
    assert!(matches!(refusal, ArmError::Shared { .. }), "{refusal:?}");
    assert!(mounts_at(world.pid(), &target).is_empty());
}

#[test]
fn a_shared_proc_is_made_private_before_anything_is_placed_in_it() {
    if skipped(&UNSHARE[..1]) || skipped(&["/proc/driver"]) {
        return;
    }
    let tree = prepared();
    // The inner namespace's /proc is a peer of the outer one's.
    let outer = Bare::start(UNSHARE, "mount -t proc none /proc && mount --make-shared /proc");
    let inner = Bare::start(
        &[
            "/usr/bin/nsenter",
            &format!("--mount=/proc/{}/ns/mnt", outer.pid()),
            "/usr/bin/unshare",
            "--mount",
            "--propagation",
            "unchanged",
        ],
        "grep -q shared: /proc/self/mountinfo",
    );
    place(inner.pid(), &[placing(tree.path(), &["/proc/driver"])]).unwrap();
    assert_eq!(inner.sees("/proc/driver/nvidia/version").unwrap(), "granted only\n");
    assert_eq!(outer.sees("/proc/driver/nvidia/version"), None);
    assert!(mounts_at(outer.pid(), "/proc/driver").is_empty());
}

#[test]
fn a_container_with_a_user_namespace_gets_its_tree_too() {
    if skipped(&UNSHARE[..1]) || skipped(&["/proc/driver"]) {
        return;
    }
    let tree = prepared();
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let world = Bare::start(&["/usr/bin/unshare", "--user", "--map-root-user", "--mount"], "true");
    place(world.pid(), &[placing(tree.path(), &["/proc/driver"])]).unwrap();
    assert_eq!(world.sees("/proc/driver/nvidia/version").unwrap(), "granted only\n");
    assert!(mounts_at(std::process::id(), "/proc/driver").is_empty());
}

#[test]
fn a_process_in_our_own_namespace_is_refused() {
    if skipped(&[]) {
        return;
    }
    let tree = prepared();
    let world = Bare::start(&["/usr/bin/env"], "true");
    let refusal = place(world.pid(), &[placing(tree.path(), &["/mnt"])]).unwrap_err();
    assert!(matches!(refusal, ArmError::NotIsolated { .. }), "{refusal:?}");
    assert!(!Path::new("/mnt/nvidia").exists());
}

#[test]
fn a_process_that_ended_is_said_to_be_gone() {
    if skipped(&[]) {
        return;
    }
    let tree = prepared();
    let placings = [placing(tree.path(), &["/mnt"])];
    let own = call::process(std::process::id()).unwrap();
    assert!(!call::has_ended(own.as_fd()).unwrap());

    // Dead, and not yet waited for.
    let mut child = Command::new("/bin/true").spawn().unwrap();
    let id = nix::sys::wait::Id::Pid(nix::unistd::Pid::from_raw(child.id() as i32));
    let left = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
    nix::sys::wait::waitid(id, left).unwrap();
    let held = call::process(child.id()).unwrap();
    assert!(call::has_ended(held.as_fd()).unwrap());
    let zombie = place(child.id(), &placings);
    assert!(matches!(zombie, Err(ArmError::Gone { .. })), "{zombie:?}");
    child.wait().unwrap();
    let gone = place(child.id(), &placings);
    assert!(matches!(gone, Err(ArmError::Gone { .. })), "{gone:?}");
}

#[test]
fn only_the_drivers_own_directory_is_covered_where_the_kernel_has_it() {
    let over = |has| Placing::over_proc_driver(Path::new("/tree"), has);
    assert_eq!(over(true), placing(Path::new("/tree/nvidia"), &["/proc/driver/nvidia"]));
    assert_eq!(over(false), placing(Path::new("/tree"), &["/proc/driver"]));
}

#[test]
fn nothing_to_place_needs_no_container() {
    assert!(place(u32::MAX, &[]).unwrap().is_empty());
}

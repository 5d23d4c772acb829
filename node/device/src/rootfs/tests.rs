//! A hostile image against `Root`: whatever it arranges, nothing outside of it is read or written.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Uid, chown, mkfifo};

use super::{Kind, Root, RootError};

const SECRET: &[u8] = b"the node's own";

/// A node with a secret file, and an image's root beside it.
struct Stage {
    node: tempfile::TempDir,
    root: Root,
}

impl Stage {
    fn new() -> Self {
        let node = tempfile::tempdir().unwrap();
        fs::create_dir_all(node.path().join("root/etc")).unwrap();
        fs::create_dir(node.path().join("outside")).unwrap();
        fs::write(node.path().join("outside/file"), SECRET).unwrap();
        let root = Root::open(&node.path().join("root")).unwrap();
        Self { node, root }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.node.path().join("root").join(path)
    }

    fn outside(&self) -> PathBuf {
        self.node.path().join("outside")
    }

    /// The names below a directory with what regular files hold.
    fn picture(&self, directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut open = vec![directory.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let entry = entry.unwrap();
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    open.push(entry.path());
                }
                let bytes = match kind {
                    kind if kind.is_file() => fs::read(entry.path()).unwrap(),
                    kind if kind.is_symlink() => {
                        fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().to_vec()
                    }
                    _ => Vec::new(),
                };
                found.push((entry.path(), bytes));
            }
        }
        found.sort();
        found
    }
}

/// Every way in which an image may try to lead `/etc/x` to the node's `outside/file`.
fn ways_out(stage: &Stage) -> Vec<(&'static str, PathBuf)> {
    let outside = stage.outside().join("file");
    vec![
        ("absolute", outside.clone()),
        ("relative", PathBuf::from("../../outside/file")),
        (
            "climbing",
            Path::new("/../../../../../../../../../..").join(outside.strip_prefix("/").unwrap()),
        ),
        ("magic", PathBuf::from("/proc/self/root").join(outside.strip_prefix("/").unwrap())),
    ]
}

#[test]
fn a_link_out_of_the_root_is_not_read() {
    let stage = Stage::new();
    for (way, target) in ways_out(&stage) {
        let link = stage.inside("etc/x");
        symlink(&target, &link).unwrap();
        assert_eq!(stage.root.read("/etc/x", 100).unwrap(), None, "{way}");
        assert_eq!(stage.root.kind("/etc/x").unwrap(), Kind::Symlink, "{way}");
        assert_eq!(stage.root.target_kind("/etc/x").unwrap(), Kind::Absent, "{way}");
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn a_link_out_of_the_root_is_replaced_and_not_written_through() {
    let stage = Stage::new();
    let before = stage.picture(&stage.outside());
    for (way, target) in ways_out(&stage) {
        let link = stage.inside("etc/x");
        symlink(&target, &link).unwrap();
        stage.root.replace("/etc/x", b"new", 0o644).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_file(), "{way}");
        assert_eq!(fs::read(&link).unwrap(), b"new", "{way}");
        fs::remove_file(link).unwrap();
    }
    assert_eq!(stage.picture(&stage.outside()), before);
}

#[test]
fn a_directory_that_is_a_link_out_of_the_root_leads_nowhere() {
    let stage = Stage::new();
    let before = stage.picture(&stage.outside());
    symlink(stage.outside(), stage.inside("absolute")).unwrap();
    symlink("../../outside", stage.inside("etc/relative")).unwrap();
    for directory in ["/absolute", "/etc/relative"] {
        let file = format!("{directory}/file");
        assert_eq!(stage.root.read(&file, 100).unwrap(), None);
        assert_eq!(stage.root.list(directory, 10).unwrap(), None);
        assert!(matches!(
            stage.root.replace(&file, b"new", 0o644),
            Err(RootError::Failed { action: "find the directory of", .. })
        ));
        assert!(stage.root.make_dirs(&format!("{directory}/made"), 0o755).is_err());
    }
    assert_eq!(stage.picture(&stage.outside()), before);
}

#[test]
fn links_that_stay_inside_are_followed_as_the_container_would() {
    let stage = Stage::new();
    fs::create_dir_all(stage.inside("usr/lib")).unwrap();
    fs::write(stage.inside("usr/lib/real"), b"bytes").unwrap();
    symlink("/usr/lib", stage.inside("lib")).unwrap();
    symlink("../../../lib/real", stage.inside("etc/x")).unwrap();
    assert_eq!(stage.root.read("/etc/x", 5).unwrap().unwrap(), b"bytes");
    assert_eq!(stage.root.target_kind("etc/x").unwrap(), Kind::File);
    assert_eq!(stage.root.target_kind("/lib").unwrap(), Kind::Directory);

    stage.root.make_dirs("/lib/a/b", 0o755).unwrap();
    stage.root.replace("/lib/a/b/c", b"new", 0o600).unwrap();
    let made = stage.inside("usr/lib/a/b/c");
    assert_eq!(fs::read(&made).unwrap(), b"new");
    assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn a_loop_of_links_is_an_error_and_not_a_hang() {
    let stage = Stage::new();
    symlink("y", stage.inside("etc/x")).unwrap();
    symlink("x", stage.inside("etc/y")).unwrap();
    let error = stage.root.read("/etc/x", 100).unwrap_err();
    assert!(error.to_string().contains("/etc/x"), "{error}");
    assert!(stage.root.target_kind("/etc/x").is_err());
    assert!(stage.root.replace("/etc/x/z", b"", 0o644).is_err());
    stage.root.replace("/etc/x", b"new", 0o644).unwrap();
    assert_eq!(stage.root.read("/etc/y", 100).unwrap().unwrap(), b"new");
}

#[test]
fn what_is_no_regular_file_is_refused_without_being_opened() {
    let stage = Stage::new();
    mkfifo(&stage.inside("etc/fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(stage.inside("etc/socket")).unwrap();
    symlink("fifo", stage.inside("etc/link")).unwrap();
    let mut paths = vec!["/etc/fifo", "/etc/socket", "/etc/link", "/etc"];
    if Uid::effective().is_root() {
        // A device that does not exist: opening it would fail with ENXIO and not with our words.
        let device = makedev(60, 200);
        mknod(&stage.inside("etc/device"), SFlag::S_IFCHR, Mode::S_IRWXU, device).unwrap();
        paths.push("/etc/device");
    } else {
        println!("skipped: the device, which needs root");
    }
    for path in paths {
        let refusal = stage.root.read(path, 100);
        assert!(matches!(refusal, Err(RootError::Unexpected { .. })), "{path}: {refusal:?}");
    }
    assert_eq!(stage.root.kind("/etc/fifo").unwrap(), Kind::Other);

    stage.root.replace("/etc/fifo", b"new", 0o644).unwrap();
    assert_eq!(stage.root.read("/etc/fifo", 3).unwrap().unwrap(), b"new");
}

#[test]
fn a_directory_in_the_place_of_the_file_is_refused_and_nothing_is_left() {
    let stage = Stage::new();
    fs::create_dir(stage.inside("etc/x")).unwrap();
    let before = stage.picture(&stage.inside(""));
    assert!(matches!(
        stage.root.replace("/etc/x", b"new", 0o644),
        Err(RootError::Unexpected { found: "a directory", .. })
    ));
    assert_eq!(stage.picture(&stage.inside("")), before);
}

#[test]
fn a_replacement_that_fails_at_the_end_leaves_nothing() {
    let stage = Stage::new();
    let before = stage.picture(&stage.inside(""));
    // Longer than a name can be: the temporary file is written, the rename fails.
    let path = format!("/etc/{}", "x".repeat(300));
    assert!(stage.root.replace(&path, b"new", 0o644).is_err());
    let directory = super::open(
        &stage.inside("etc"),
        super::OFlag::O_PATH | super::OFlag::O_DIRECTORY,
        Mode::empty(),
    )
    .unwrap();
    drop(super::write::Fresh::create(&directory).unwrap());
    assert_eq!(stage.picture(&stage.inside("")), before);
}

#[test]
fn more_than_the_limit_is_refused() {
    let stage = Stage::new();
    fs::write(stage.inside("etc/x"), b"12345").unwrap();
    assert_eq!(stage.root.read("/etc/x", 5).unwrap().unwrap(), b"12345");
    assert!(matches!(
        stage.root.read("/etc/x", 4),
        Err(RootError::TooLarge { limit: 4, unit: "bytes", .. })
    ));
    fs::write(stage.inside("etc/y"), b"").unwrap();
    assert_eq!(stage.root.list("/etc", 2).unwrap().unwrap().len(), 2);
    assert!(matches!(stage.root.list("/etc", 1), Err(RootError::TooLarge { .. })));
}

#[test]
fn a_list_says_what_stands_there_and_follows_nothing() {
    let stage = Stage::new();
    fs::create_dir(stage.inside("etc/directory")).unwrap();
    fs::write(stage.inside("etc/file"), b"").unwrap();
    symlink("file", stage.inside("etc/link")).unwrap();
    mkfifo(&stage.inside("etc/other"), Mode::S_IRWXU).unwrap();
    let listed = stage.root.list("etc", 10).unwrap().unwrap();
    let expected = [
        ("directory", Kind::Directory),
        ("file", Kind::File),
        ("link", Kind::Symlink),
        ("other", Kind::Other),
    ];
    assert_eq!(listed, expected.map(|(name, kind)| (name.to_owned(), kind)));
    assert_eq!(stage.root.list("/none", 10).unwrap(), None);
    assert_eq!(stage.root.list("/etc/file", 10).unwrap(), None);
}

#[test]
fn a_path_without_a_name_is_not_written() {
    let stage = Stage::new();
    for path in ["", "/", "/etc/", "/etc/..", "."] {
        assert!(
            matches!(stage.root.replace(path, b"", 0o644), Err(RootError::BadPath { .. })),
            "{path}"
        );
    }
    assert!(matches!(stage.root.make_dirs("/a/../b", 0o755), Err(RootError::BadPath { .. })));
}

#[test]
fn a_replaced_file_keeps_its_owner_and_gets_no_set_user_id_bit() {
    if !Uid::effective().is_root() {
        println!("skipped: needs root");
        return;
    }
    let stage = Stage::new();
    chown(&stage.inside("etc"), Some(100_000.into()), Some(100_000.into())).unwrap();
    stage.root.replace("/etc/x", b"new", 0o4755).unwrap();
    let status = fs::metadata(stage.inside("etc/x")).unwrap();
    assert_eq!((status.uid(), status.gid()), (100_000, 100_000));
    assert_eq!(status.mode() & 0o7777, 0o755);

    chown(&stage.inside("etc/x"), Some(100_007.into()), Some(100_008.into())).unwrap();
    stage.root.replace("/etc/x", b"newer", 0o644).unwrap();
    let status = fs::metadata(stage.inside("etc/x")).unwrap();
    assert_eq!((status.uid(), status.gid()), (100_007, 100_008));
}

#[test]
fn a_root_moved_away_and_replaced_by_a_link_is_still_the_root_that_was_opened() {
    let stage = Stage::new();
    fs::rename(stage.inside(""), stage.node.path().join("moved")).unwrap();
    symlink(stage.outside(), stage.node.path().join("root")).unwrap();
    let before = stage.picture(&stage.outside());
    stage.root.replace("/file", b"new", 0o644).unwrap();
    assert_eq!(stage.picture(&stage.outside()), before);
    assert_eq!(fs::read(stage.node.path().join("moved/file")).unwrap(), b"new");
}

#[test]
fn a_root_that_nobody_may_write_says_so() {
    if !Uid::effective().is_root() {
        println!("skipped: needs root");
        return;
    }
    let stage = Stage::new();
    let mounted = std::process::Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            "mount --bind -o ro \"$0\" \"$0\" && echo ready && cat >/dev/null",
        ])
        .arg(stage.inside(""))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut world = mounted.unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(world.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let path = format!("/proc/{}/root{}", world.id(), stage.inside("").display());
    let error = Root::open(Path::new(&path)).unwrap().replace("/etc/x", b"", 0o644).unwrap_err();
    drop(world.stdin.take());
    world.wait().unwrap();
    assert!(error.is_read_only(), "{error}");
    assert!(!stage.root.replace("/none/x", b"", 0o644).unwrap_err().is_read_only());
}

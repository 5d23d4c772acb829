//! The stages on which placing is tested: containers of runc, bare namespaces, prepared trees.
//!
//! Everything made here is taken away again when it is dropped, and nothing else is touched.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::Uid;

use crate::arm::{Need, Placing};

/// Says why a test does nothing here, if so.
pub(super) fn skipped(needed: &[&str]) -> bool {
    if !Uid::effective().is_root() {
        println!("skipped: needs root");
        return true;
    }
    if let Some(missing) = needed.iter().find(|path| !Path::new(path).exists()) {
        println!("skipped: needs {missing}");
        return true;
    }
    false
}

pub(super) fn placing(source: &Path, targets: &[&str]) -> Placing {
    Placing {
        source: source.to_owned(),
        targets: targets.iter().map(|target| (*target).to_owned()).collect(),
        need: Need::Essential,
        executable: false,
    }
}

/// A prepared tree as Berth makes one: `nvidia/version` in a directory of its own.
pub(super) fn prepared() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("nvidia")).unwrap();
    fs::write(tree.path().join("nvidia/version"), "granted only\n").unwrap();
    tree
}

/// A container of runc, created and not started; deleted at the end whatever happens.
pub(super) struct Container {
    directory: tempfile::TempDir,
    id: String,
    pub(super) init: u32,
}

pub(super) const RUNC: [&str; 2] = ["/usr/sbin/runc", "/bin/busybox"];

impl Container {
    /// `script` is what its shell will run; `change` may arrange its root before.
    pub(super) fn create(script: &str, readonly: bool, change: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("rootfs");
        for name in ["bin", "proc", "etc", "opt"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        change(&root);
        let id = format!(
            "berth-arm-test-{}-{}",
            std::process::id(),
            directory.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.')
        );
        fs::write(directory.path().join("config.json"), config(&id, script, readonly)).unwrap();
        let mut container = Self { directory, id, init: 0 };
        let mut create = container.runc();
        let output = fs::File::create(container.file("output")).unwrap();
        let errors = output.try_clone().unwrap();
        let bundle = container.directory.path().to_owned();
        let created = create
            .args(["create", "--bundle"])
            .arg(bundle)
            .arg(&container.id)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .status()
            .unwrap();
        assert!(created.success(), "{}", container.output());
        container.init = container.state()["pid"].as_u64().unwrap().try_into().unwrap();
        container
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn runc(&self) -> Command {
        let mut runc = Command::new(RUNC[0]);
        runc.arg("--root").arg(self.file("state"));
        runc
    }

    fn state(&self) -> serde_json::Value {
        let output = self.runc().args(["state", &self.id]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts it and says what it printed until it ended.
    pub(super) fn run(&self) -> String {
        assert!(self.runc().args(["start", &self.id]).status().unwrap().success());
        // Each question takes runc a while; the script ends by itself.
        while self.state()["status"] != "stopped" {}
        self.output()
    }

    fn output(&self) -> String {
        fs::read_to_string(self.file("output")).unwrap()
    }

    /// The lines of its mount table for this mount point.
    pub(super) fn mounts(&self, point: &str) -> Vec<String> {
        mounts_at(self.init, point)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.runc().args(["delete", "--force", &self.id]).output();
    }
}

pub(super) fn config(id: &str, script: &str, readonly: bool) -> Vec<u8> {
    let namespaces = ["mount", "pid", "ipc", "uts"].map(|kind| serde_json::json!({"type": kind}));
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/busybox", "sh", "-c", format!("{script}; echo exit code $?")],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"], "permitted": ["CAP_SYS_ADMIN"]},
        },
        "root": {"path": "rootfs", "readonly": readonly},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": namespaces, "cgroupsPath": format!("/{id}")},
    });
    serde_json::to_vec(&config).unwrap()
}

pub(super) fn mounts_at(pid: u32, point: &str) -> Vec<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let lines = table.lines().filter(|line| line.split(' ').nth(4) == Some(point));
    lines.map(str::to_owned).collect()
}

/// A process in a namespace of its own that a shell script arranged; ends when this is dropped.
pub(super) struct Bare {
    child: Child,
}

impl Bare {
    /// Runs `program` (`unshare` with options, or nothing to stay in ours) around a shell that runs `script`.
    pub(super) fn start(program: &[&str], script: &str) -> Self {
        let script = format!("{script} && echo ready && exec cat >/dev/null");
        let all = [program, &["/bin/sh", "-c", &script]].concat();
        let mut child = Command::new(all[0])
            .args(&all[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A file as this process sees it.
    pub(super) fn sees(&self, path: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/root{path}", self.pid())).ok()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) const UNSHARE: &[&str] = &["/usr/bin/unshare", "--mount"];

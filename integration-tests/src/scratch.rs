//! A private place for one trial: its folder, its cgroup, its socket names; and what is taken down
//! when the trial ends, however it ends. It kills, unmounts and removes only what carries this
//! scratch's name. Must not know how shims or containerd are driven.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use crate::deadline::Process;
use crate::machine::{self, ProcessRow};

/// Environment variable that marks a trial's processes; its value is the scratch folder.
pub const MARK: &str = "BERTH_TEST_SCRATCH";

/// One trial's private folder and names. Dropping it removes everything that carries them.
#[derive(Debug)]
pub struct Scratch {
    root: PathBuf,
    unique: String,
    sockets: Mutex<BTreeSet<PathBuf>>,
}

impl Scratch {
    /// Makes the folder: short enough that a socket path in it stays below the kernel's 108 bytes.
    pub fn new() -> Result<Scratch> {
        let base = std::env::temp_dir();
        let base = if base.as_os_str().len() > 24 { PathBuf::from("/tmp") } else { base };
        let kept = tempfile::Builder::new().prefix("berth-").rand_bytes(8).tempdir_in(&base);
        let root = kept.context("making a scratch folder")?.keep().canonicalize()?;
        // User-namespaced containers reach their root file system through it.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o711))?;
        Self::again(&root)
    }

    /// The folder of a trial whose process is gone; what is left of it goes when this is dropped.
    ///
    /// # Errors
    /// When it is not there.
    pub fn again(folder: &Path) -> Result<Scratch> {
        let root = folder.canonicalize().with_context(|| folder.display().to_string())?;
        let name = root.file_name().map(|name| name.to_string_lossy().into_owned());
        let unique = name.context("a scratch folder has a name")?.replace("berth-", "berth-test-");
        Ok(Scratch { root, unique, sockets: Mutex::default() })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A configuration with nothing but folders of the trial's own for what a node keeps: the machine's never decides what a trial sees, and
    /// its `/run` and `/var/lib` stay as they are.
    pub fn node_config(&self) -> Result<PathBuf> {
        let file = self.path("node.toml");
        let (run, state) = (self.path("node-run"), self.path("node-state"));
        fs::write(&file, format!("[node]\nrun = {run:?}\nstate = {state:?}\n"))
            .with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }

    /// A path in the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// A folder in the folder, made with its parents when it is not there.
    pub fn folder(&self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let folder = self.path(name);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(folder)
    }

    /// Name of the top-level cgroup that all containers of the trial live below (no slash).
    pub fn cgroup(&self) -> &str {
        &self.unique
    }

    /// Notes a socket that a shim is expected to make outside the folder, so that it is audited and removed.
    pub fn expect_socket(&self, path: PathBuf) {
        self.sockets.lock().expect("no panic while held").insert(path);
    }

    /// The noted sockets that exist.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let noted = self.sockets.lock().expect("no panic while held");
        noted.iter().filter(|path| path.symlink_metadata().is_ok()).cloned().collect()
    }

    /// The processes that carry the scratch's mark, sit in its cgroups, or descend from one that does.
    /// This process is never one of them.
    pub fn processes(&self) -> Vec<ProcessRow> {
        let all = machine::processes();
        let me = std::process::id();
        let carriers = all.keys().copied().filter(|pid| *pid != me && self.marks(*pid));
        let mut ours: BTreeSet<u32> = carriers.collect();
        loop {
            let before = ours.len();
            let heirs: Vec<u32> =
                all.values().filter(|row| ours.contains(&row.parent)).map(|row| row.pid).collect();
            ours.extend(heirs.into_iter().filter(|pid| *pid != me));
            if ours.len() == before {
                break;
            }
        }
        all.into_values().filter(|row| ours.contains(&row.pid)).collect()
    }

    /// Whether a process carries this scratch's mark by itself. A logger has neither environment nor folder of
    /// the trial's, but its program lies in the scratch or is told of it.
    fn marks(&self, pid: u32) -> bool {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let cgroup = fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
        if cgroup.contains(&format!("/{}/", self.unique)) {
            return true;
        }
        let environment = fs::read(proc.join("environ")).unwrap_or_default();
        let mark = format!("{MARK}={}", self.root.display());
        if environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()) {
            return true;
        }
        let root = self.root.as_os_str().as_encoded_bytes();
        let arguments = fs::read(proc.join("cmdline")).unwrap_or_default();
        if arguments.windows(root.len()).any(|window| window == root) {
            return true;
        }
        let below = |link: &str| {
            fs::read_link(proc.join(link)).is_ok_and(|target| target.starts_with(&self.root))
        };
        below("cwd") || below("root") || below("exe")
    }

    /// Kills every process of this scratch and waits for their ends. Frozen cgroups are thawed first.
    fn kill_all(&self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            self.thaw();
            let left = self.processes();
            let held: Vec<Process> = left
                .iter()
                .filter(|row| row.state != 'Z')
                .filter_map(|row| Process::open(row.pid))
                .collect();
            // Looked at again with the pidfd in hand: the pid may have been reused in between.
            let still: BTreeSet<u32> = self.processes().iter().map(|row| row.pid).collect();
            let held: Vec<Process> =
                held.into_iter().filter(|held| still.contains(&held.pid)).collect();
            if held.is_empty() {
                return;
            }
            for process in &held {
                process.signal(libc::SIGKILL);
            }
            for process in &held {
                process.exited_within(Duration::from_secs(5));
            }
        }
        eprintln!("{}: processes survive SIGKILL", self.unique);
    }

    fn thaw(&self) {
        for folder in machine::cgroups_named(&self.unique).unwrap_or_default() {
            for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                let file = folder.join(file);
                if file.exists() {
                    fs::write(&file, word).ok();
                }
            }
        }
    }

    fn unmount_all(&self) {
        for row in machine::mounts_below(&self.root).unwrap_or_default().iter().rev() {
            umount2(&row.target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).ok();
        }
    }

    fn remove_cgroups(&self) {
        let start = Instant::now();
        loop {
            let left = machine::cgroups_named(&self.unique).unwrap_or_default();
            if left.is_empty() {
                return;
            }
            if start.elapsed() > Duration::from_secs(10) {
                eprintln!("{}: cgroups stay: {left:?}", self.unique);
                return;
            }
            for folder in left.iter().rev() {
                fs::remove_dir(folder).ok();
            }
            // The kernel empties a killed cgroup some time after its last process is reaped.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("BERTH_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.root.display());
            return;
        }
        self.kill_all();
        self.unmount_all();
        self.remove_cgroups();
        for socket in self.sockets() {
            fs::remove_file(socket).ok();
        }
        // Of what is read-only, only root can remove anything.
        if !nix::unistd::geteuid().is_root() {
            make_writable(&self.root);
        }
        if let Err(err) = fs::remove_dir_all(&self.root) {
            eprintln!("{}: {err}", self.root.display());
        }
    }
}

/// Folders at and below `folder`, as far as they are this user's.
fn make_writable(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).ok();
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.for_each(|entry| make_writable(&entry.path()));
}

//! A private containerd: its own folder, sockets, configuration and images; ended and cleaned up
//! after when dropped.
//!
//! Knows how to start, kill and restart one, and which shim it is to use. What runs in it is the
//! business of [`ctr`] and of [`crate::cri`]; what it left behind that of [`leftovers`].

mod config;
pub mod ctr;
pub mod leftovers;
pub mod stage;
pub mod task;
pub mod watch;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::deadline::STUCK;
use crate::scratch::{MARK, Scratch};
use crate::under_test::in_path;
use crate::{images, versions::Installation, wait};
use ctr::Ctr;

/// The namespace of containerd's CRI plugin.
pub const CRI_NAMESPACE: &str = "k8s.io";

/// A private containerd and the folder that holds all it has.
pub struct Containerd {
    /// The version that runs.
    pub installation: Installation,
    /// Everything of it: `c.sock`, `root/`, `state/`, `log`, `config.toml`, and `bin/` with the
    /// shim under test.
    pub scratch: Scratch,
    /// The shim under test by a path whose name is what its runtime type asks for.
    pub shim: PathBuf,
    /// The node's configuration that its shims read; never the machine's.
    berth_config: PathBuf,
    /// Noted sockets, by namespace and id of the container whose shim made them.
    sockets: Mutex<BTreeMap<(String, String), PathBuf>>,
    process: Mutex<Option<Child>>,
}

/// A name that no other trial has, in this run or another: `<what>-<pid>-<number>`.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Containerd {
    /// Starts one that uses the program `shim`, and gives it the test images.
    ///
    /// # Errors
    /// When it does not start, with the end of its log, or the images cannot be made.
    pub fn start(installation: &Installation, shim: &Path) -> Result<Self> {
        Self::start_on(installation, shim, None)
    }

    /// As [`Self::start`], on the node that `berth_config` describes to the shims.
    ///
    /// # Errors
    /// As there.
    pub fn start_on(
        installation: &Installation,
        shim: &Path,
        berth_config: Option<&Path>,
    ) -> Result<Self> {
        let shim = shim.canonicalize().with_context(|| {
            format!("the shim under test, {}, is not there: build it first", shim.display())
        })?;
        let scratch = Scratch::new()?;
        let named = scratch.folder("bin")?.join("containerd-shim-berth-v2");
        symlink(&shim, &named)?;
        if let Some(runtime) = in_path("runc") {
            // Found before the machine's, which another may stand in for.
            symlink(runtime.canonicalize()?, scratch.path("bin/runc"))?;
        }
        let (witness, text) = config::witness(scratch.root());
        fs::write(&witness, text)?;
        fs::set_permissions(&witness, fs::Permissions::from_mode(0o755))?;
        fs::write(scratch.path(config::OPTIONS), config::witness_options(scratch.root()))?;
        let settings = config::render(installation, scratch.root(), &named);
        fs::write(scratch.path("config.toml"), settings)?;
        scratch.folder("conf.d")?;
        if let Some((place, text)) = config::drop_in(installation, scratch.root()) {
            fs::write(place, text)?;
        }
        let berth_config =
            berth_config.map_or_else(|| scratch.node_config(), |own| Ok(own.to_owned()))?;
        let containerd = Self {
            installation: installation.clone(),
            scratch,
            shim: named,
            berth_config,
            sockets: Mutex::default(),
            process: Mutex::new(None),
        };
        containerd.launch()?;
        let archive = containerd.scratch.path("images.tar");
        images::write_archive(&archive)?;
        for namespace in [containerd.namespace(), CRI_NAMESPACE] {
            let archive = archive.to_string_lossy();
            containerd.ctr_in(namespace).ok(&["images", "import", archive.as_ref()])?;
        }
        Ok(containerd)
    }

    /// Gives it the image `name`, of the files that `build` makes in a folder.
    ///
    /// # Errors
    /// When they cannot be made or imported.
    pub fn import_built(&self, name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let archive = self.scratch.path(format!("{}.tar", unique("image")));
        images::write_built(&archive, name, build)?;
        self.ctr().ok(&["images", "import", archive.to_string_lossy().as_ref()])?;
        Ok(fs::remove_file(archive)?)
    }

    /// The socket that clients dial.
    pub fn socket(&self) -> PathBuf {
        self.scratch.path("c.sock")
    }

    /// Where the bundles of `namespace` are.
    pub fn bundles(&self, namespace: &str) -> PathBuf {
        self.scratch.path("state/io.containerd.runtime.v2.task").join(namespace)
    }

    /// The socket of the shim that serves the container `id`, as its bundle tells. Noted, too, to be
    /// removed at the end: the reference leaves it behind when it is killed.
    pub fn note_socket(&self, namespace: &str, id: &str) -> Option<PathBuf> {
        let bundle = self.bundles(namespace).join(id);
        let plain = fs::read_to_string(bundle.join("address")).ok();
        // What containerd 2.x keeps of a reply to `start` that was not a plain address.
        let address = plain.or_else(|| {
            let reply = fs::read(bundle.join("bootstrap.json")).ok()?;
            let reply: serde_json::Value = serde_json::from_slice(&reply).ok()?;
            reply["address"].as_str().map(str::to_owned)
        })?;
        let socket = PathBuf::from(address.trim().strip_prefix("unix://")?);
        self.scratch.expect_socket(socket.clone());
        self.noted().insert((namespace.to_owned(), id.to_owned()), socket.clone());
        Some(socket)
    }

    /// The noted socket of the container `id`, if it exists.
    pub fn socket_left(&self, namespace: &str, id: &str) -> Option<PathBuf> {
        let noted = self.noted().get(&(namespace.to_owned(), id.to_owned())).cloned();
        noted.filter(|socket| socket.symlink_metadata().is_ok())
    }

    fn noted(&self) -> MutexGuard<'_, BTreeMap<(String, String), PathBuf>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The namespace for containers from ctr. It names their top-level cgroup too, so it is this
    /// scratch's alone.
    pub fn namespace(&self) -> &str {
        self.scratch.cgroup()
    }

    /// How the OCI runtime of the handlers `witness` and `witness-path` has been called so far, a line each.
    pub fn witnessed(&self) -> String {
        fs::read_to_string(config::witnessed(self.scratch.root())).unwrap_or_default()
    }

    /// This version's `ctr`, in [`Self::namespace`].
    pub fn ctr(&self) -> Ctr {
        self.ctr_in(self.namespace())
    }

    /// This version's `ctr`, in another namespace.
    pub fn ctr_in(&self, namespace: &str) -> Ctr {
        Ctr::new(self.installation.bin.join("ctr"), self.socket(), namespace)
    }

    /// Kills it with SIGKILL. Its containers and shims stay.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.process().take().context("containerd is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to end and waits until it has. Its containers and shims stay.
    ///
    /// # Errors
    /// When it is not running, or does not end.
    pub fn stop(&self) -> Result<()> {
        let mut child = self.process().take().context("containerd is not running")?;
        kill(pid_of(&child), Signal::SIGTERM)?;
        let ended = wait::until("containerd's end after SIGTERM", || child.try_wait().ok()?);
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        ended.map(drop)
    }

    /// Starts it (again) and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends early or never says so, with the end of its log.
    pub fn launch(&self) -> Result<()> {
        let mut process = self.process();
        ensure!(process.is_none(), "containerd is running already");
        let notify = self.scratch.path("notify");
        let _ = fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify)?;
        ready.set_read_timeout(Some(Duration::from_millis(100)))?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let path = format!(
            "{}:{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            self.scratch.path("bin").display(),
            self.installation.bin.display()
        );
        let mut child = Command::new(self.installation.bin.join("containerd"))
            .arg("--config")
            .arg(self.scratch.path("config.toml"))
            .env("PATH", path)
            .env("NOTIFY_SOCKET", &notify)
            .env(MARK, self.scratch.root())
            .env("BERTH_CONFIG", &self.berth_config)
            // Where it unpacks checkpoints, which it never removes.
            .env("XDG_RUNTIME_DIR", self.scratch.root())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("start containerd")?;
        let deadline = Instant::now() + STUCK;
        let mut message = [0; 256];
        loop {
            if let Ok(length) = ready.recv(&mut message)
                && message[..length].starts_with(b"READY=1")
            {
                *process = Some(child);
                return Ok(());
            }
            let ended = child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                bail!("containerd did not start ({ended:?}):\n{}", self.log_tail());
            }
        }
    }

    /// Namespace and id of each bundle that is there.
    fn all_bundles(&self) -> Vec<(String, String)> {
        let names = |folder: &Path| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.collect::<Vec<_>>()
        };
        let namespaces = names(&self.bundles(""));
        let in_one = |namespace: &String| {
            let ids = names(&self.bundles(namespace));
            ids.into_iter().map(|id| (namespace.clone(), id)).collect::<Vec<_>>()
        };
        namespaces.iter().flat_map(in_one).collect()
    }

    /// What containerd has logged and, through it, its shims.
    pub fn log_text(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The last lines of [`Self::log_text`].
    pub fn log_tail(&self) -> String {
        let log = self.log_text();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn log(&self) -> PathBuf {
        self.scratch.path("log")
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.stop();
        // The scratch, dropped next, ends what still runs. What lies outside its folder is known
        // from the bundles alone.
        for (namespace, id) in self.all_bundles() {
            self.note_socket(&namespace, &id);
            if std::env::var_os("BERTH_TEST_KEEP").is_none() {
                let _ = fs::remove_dir_all(leftovers::runtime_state(&namespace, &id));
            }
        }
        let _ = fs::remove_dir(leftovers::runtime_state(self.namespace(), ""));
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

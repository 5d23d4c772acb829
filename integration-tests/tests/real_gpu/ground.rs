//! What there is to try on: the machine's driver, Berth's own things beside it, and a private containerd if one can run here.
//!
//! Decides what cannot be tried and says why. Must not know what is tried.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use integration_tests::busybox;
use integration_tests::containerd::Containerd;
use integration_tests::containerd::ctr::{Said, said};
use integration_tests::containerd::task::{RUNC, Task};
use integration_tests::gpu::Berth;
use integration_tests::images::glibc::Layout;
use integration_tests::suite::Lacking;
use integration_tests::under_test::{in_path, under_test};
use integration_tests::versions;

use crate::cuda;

/// Names a configuration whose `[node]` is to be tried instead of this machine.
const OTHER_NODE: &str = "BERTH_GPU_TEST_CONFIG";

/// Where trials keep Berth's things, whatever that configuration says.
const OURS: [&str; 5] = ["run", "state", "tool", "kubelet", "cdi-dirs"];

/// The image with the CUDA program in it.
pub const IMAGE: &str = "localhost/berth/cuda:test";

/// What trials are played on.
pub struct Ground {
    /// Why nothing can be tried here.
    pub skip: Option<String>,
    root: PathBuf,
    /// Ended first: its shims use Berth's things.
    containerd: OnceLock<Result<Containerd, String>>,
    berth: OnceLock<Result<Berth, String>>,
    others: toml::Table,
    turn: Mutex<()>,
}

impl Ground {
    /// Looks at what there is.
    pub fn look() -> Self {
        let (others, unreadable) = match other_node() {
            Ok(table) => (table, None),
            Err(error) => (toml::Table::new(), Some(format!("{OTHER_NODE}: {error:#}"))),
        };
        let root = others.get("root").and_then(toml::Value::as_str).unwrap_or("/");
        let root = PathBuf::from(root);
        let skip = unreadable.or_else(|| no_driver(&root));
        Self {
            skip,
            root,
            containerd: OnceLock::new(),
            berth: OnceLock::new(),
            others,
            turn: Mutex::default(),
        }
    }

    /// The node's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Berth's things, the same for all trials: the driver is looked at once.
    ///
    /// # Errors
    /// When `berth` is not built or the configuration cannot be written.
    pub fn berth(&self) -> Result<&Berth> {
        let made = self.berth.get_or_init(|| {
            Berth::of_the_machine(&self.others.to_string()).map_err(|error| format!("{error:#}"))
        });
        made.as_ref().map_err(|words| anyhow!("{words}"))
    }

    /// The driver's own `nvidia-smi`.
    ///
    /// # Errors
    /// [`Lacking`] where there is none.
    pub fn nvidia_smi(&self, arguments: &[&str]) -> Result<String> {
        let own = ["usr/bin", "usr/local/nvidia/bin", "opt/bin"];
        let own = own.map(|folder| self.root.join(folder).join("nvidia-smi"));
        let found = own.into_iter().find(|path| path.is_file()).or_else(|| in_path("nvidia-smi"));
        let program = found.ok_or_else(|| lacking("no nvidia-smi to compare with"))?;
        let answer = said(Command::new(program).args(arguments))?;
        ensure!(answer.code() == 0, "nvidia-smi {arguments:?}: {}{}", answer.out, answer.err);
        Ok(answer.out)
    }

    /// Whether the module is loaded without which CUDA does not start: on the node CUDA loads it itself, in a container it cannot.
    ///
    /// # Errors
    /// When the kernel's list of devices cannot be read.
    pub fn has_uvm(&self) -> Result<bool> {
        let devices = std::fs::read_to_string(self.root.join("proc/devices"))?;
        Ok(devices.lines().any(|line| line.split_whitespace().nth(1) == Some("nvidia-uvm")))
    }

    /// Waits until no other trial holds GPUs.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A private containerd with [`IMAGE`], if containers can run here at all.
    ///
    /// # Errors
    /// [`Lacking`], with the reason, where they cannot; plain ones are tried first, without Berth.
    pub fn containerd(&self) -> Result<&Containerd> {
        let lacks = |reason: &str| lacking(&format!("no containers here: {reason}"));
        if let Some(reason) = Self::containers_need() {
            return Err(lacks(&reason));
        }
        // Where they can, what is tested must be there.
        let (shim, config) = (&under_test()?.shim, &self.berth()?.config);
        let program = cuda::program()?;
        let made = self
            .containerd
            .get_or_init(|| start(shim, config, &program).map_err(|error| format!("{error:#}")));
        made.as_ref().map_err(|reason| lacks(reason))
    }

    fn containers_need() -> Option<String> {
        if !nix::unistd::geteuid().is_root() {
            return Some("launching them needs root".into());
        }
        for program in ["runc", "ldconfig"] {
            if in_path(program).is_none() {
                return Some(format!("{program} is not installed"));
            }
        }
        if !Path::new(busybox::BUSYBOX).is_file() {
            return Some("busybox-static is not installed".into());
        }
        versions::find().installations.is_empty().then(|| "containerd is not installed".into())
    }

    /// What a program says that runs with the libraries and programs of a prepared tree.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn with_tree(&self, tree: &Path, program: &Path, arguments: &[&str]) -> Result<Said> {
        let libraries = tree.join("usr/local/nvidia/lib64");
        said(Command::new(program).args(arguments).env("LD_LIBRARY_PATH", libraries))
    }
}

/// A private containerd that has run a plain container, without Berth: what fails up to there is the machine's lack.
fn start(shim: &Path, config: &Path, program: &Path) -> Result<Containerd> {
    let installation = versions::find().installations.into_iter().next();
    let installation = installation.context("containerd is not installed")?;
    let containerd = Containerd::start_on(&installation, shim, Some(config))?;
    let plain = Task::named(&containerd, "plain").foreground(RUNC, &[], &["true"])?;
    ensure!(plain.code() == 0, "a plain container does not run: {}", plain.err.trim());
    containerd.import_built(IMAGE, |root| {
        Layout::Debian.build(root)?;
        std::fs::copy(program, root.join("usr/bin").join(cuda::NAME))?;
        Ok(())
    })?;
    Ok(containerd)
}

/// A reason to skip, as an error.
pub fn lacking(reason: &str) -> anyhow::Error {
    Lacking(reason.to_owned()).into()
}

/// `[node]` of the configuration that the environment names, without what is the trials' own.
fn other_node() -> Result<toml::Table> {
    let Some(path) = std::env::var_os(OTHER_NODE) else { return Ok(toml::Table::new()) };
    let mut whole: toml::Table = std::fs::read_to_string(&path)?.parse()?;
    let node = whole.remove("node").context("it has no [node]")?;
    let mut node: toml::Table = node.try_into().context("its [node] is no table")?;
    node.retain(|key, _| !OURS.contains(&key));
    Ok(node)
}

fn no_driver(root: &Path) -> Option<String> {
    let version = root.join("proc/driver/nvidia/version");
    (!version.is_file()).then(|| {
        let seen = if in_path("nvidia-smi").is_some() { ", though nvidia-smi is here" } else { "" };
        format!("no NVIDIA driver is loaded: there is no {}{seen}", version.display())
    })
}

//! A node with simulated GPUs for one trial: the node, Berth's configuration for it, and the operator's command on it.
//!
//! Decides where things are, so that trials never share a ledger. Must not know what is tried.

pub mod evil;
pub mod kubelet;
pub mod world;

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use simnode::{Node, Options, Profile};

use crate::containerd::ctr::{Said, said};
use crate::scratch::Scratch;

/// The operator's command under test.
///
/// # Errors
/// When it has not been built.
pub fn tool() -> Result<PathBuf> {
    let named = std::env::var_os("BERTH_TEST_TOOL").map(PathBuf::from);
    let found = named
        .context("BERTH_TEST_TOOL is not set: run `make test`, or eval \"$(scripts/simnode)\"")?;
    ensure!(found.is_file(), "no berth at {}: run `make build`", found.display());
    Ok(found)
}

/// Berth's things on a node, private to one trial: configuration, ledger, prepared files. Dropping it takes them down.
pub struct Berth {
    /// Its configuration file.
    pub config: PathBuf,
    scratch: Scratch,
}

/// A simulated node, and Berth on it.
pub struct GpuNode {
    /// The node.
    pub sim: Node,
    berth: Berth,
}

impl Deref for GpuNode {
    type Target = Berth;

    fn deref(&self) -> &Berth {
        &self.berth
    }
}

impl GpuNode {
    /// A node of this profile, with `more` in its configuration (TOML: further keys of `[node]`, then tables of their own).
    ///
    /// # Errors
    /// When the node cannot be made: device nodes need root.
    pub fn up(profile: &str, more: &str) -> Result<Self> {
        Self::with(profile, &Options::default(), more)
    }

    /// As [`Self::up`], made by these options.
    ///
    /// # Errors
    /// As there.
    pub fn with(profile: &str, options: &Options, more: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let sim = Node::up(&scratch.path("node"), &Profile::named(profile)?, options.clone())?;
        let node = Self { sim, berth: Berth::in_folder(scratch) };
        node.configure(more)?;
        Ok(node)
    }

    /// The node in this folder, which a former boot of the machine left.
    ///
    /// # Errors
    /// When there is none.
    pub fn again(folder: &Path) -> Result<Self> {
        let scratch = Scratch::again(folder)?;
        let sim = Node::open(&scratch.path("node"))?;
        Ok(Self { sim, berth: Berth::in_folder(scratch) })
    }

    /// Writes the configuration anew.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn configure(&self, more: &str) -> Result<()> {
        // A node without a driver has no library either.
        let nvml = self.sim.nvml_path().unwrap_or_else(|_| "libnvidia-ml.so.1".into());
        self.berth.write(&format!("root = {:?}\nnvml = {nvml:?}\n{more}", self.sim.root()))
    }

    /// The node's own root, as Berth is configured to see it.
    pub fn root(&self) -> PathBuf {
        self.sim.root()
    }

    /// The ledger's file, of this boot.
    ///
    /// # Errors
    /// When the boot's id cannot be read.
    pub fn ledger(&self) -> Result<PathBuf> {
        let boot = fs::read_to_string(self.root().join("proc/sys/kernel/random/boot_id"))?;
        Ok(self.path("run").join(boot.trim()).join("ledger.json"))
    }
}

impl Berth {
    /// On this machine's own GPUs, with `more` in its configuration.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    pub fn of_the_machine(more: &str) -> Result<Self> {
        let berth = Self::in_folder(Scratch::new()?);
        berth.write(more)?;
        Ok(berth)
    }

    fn in_folder(scratch: Scratch) -> Self {
        Self { config: scratch.path("berth.toml"), scratch }
    }

    fn write(&self, more: &str) -> Result<()> {
        let text = format!(
            "[node]\nrun = {run:?}\nstate = {state:?}\ntool = {tool:?}\nkubelet = {kubelet:?}\n\
             cdi-dirs = [{cdi:?}]\n{more}\n",
            run = self.path("run"),
            state = self.path("state"),
            tool = tool()?,
            kubelet = self.path("kubelet"),
            cdi = self.path("cdi"),
        );
        Ok(fs::write(&self.config, text)?)
    }

    /// Changes one key of `[node]` to this value, as TOML has it.
    ///
    /// # Errors
    /// When the configuration cannot be read or written.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let text = fs::read_to_string(&self.config)?;
        let ours = format!("{key} = ");
        let others = text.lines().filter(|line| !line.starts_with(&ours) && *line != "[node]");
        let others = others.collect::<Vec<_>>().join("\n");
        Ok(fs::write(&self.config, format!("[node]\n{ours}{value}\n{others}\n"))?)
    }

    /// A path in the trial's folder: `run`, `state`, `kubelet`, `cdi` are Berth's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// Runs `berth` on this node.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub fn berth(&self, arguments: &[&str]) -> Result<Said> {
        said(Command::new(tool()?).args(arguments).env("BERTH_CONFIG", &self.config))
    }

    /// What `berth --json …` answers.
    ///
    /// # Errors
    /// When it fails, with its words.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let answer = self.berth(&[&["--json"], arguments].concat())?;
        ensure!(answer.code() == 0, "berth {arguments:?} failed: {}{}", answer.out, answer.err);
        serde_json::from_str(&answer.out).context("berth answers JSON")
    }

    /// The grants, as `berth ps --json` shows them.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn grants(&self) -> Result<Vec<Value>> {
        let answer = self.json(&["ps"])?;
        Ok(answer["grants"].as_array().cloned().unwrap_or_default())
    }

    /// That nobody holds anything and the ledger is sound.
    ///
    /// # Errors
    /// Naming what is held.
    pub fn is_free(&self) -> Result<()> {
        let held = self.grants()?;
        ensure!(held.is_empty(), "still held: {held:#?}");
        let verified = self.berth(&["ledger", "verify"])?;
        ensure!(verified.code() == 0, "{}{}", verified.out, verified.err);
        Ok(())
    }

    /// The folder of the trial.
    pub fn folder(&self) -> &Path {
        self.scratch.root()
    }
}

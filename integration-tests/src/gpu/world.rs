//! A simulated node with a private containerd on it: what trials of containers with GPUs play in.
//!
//! Decides how a container asks, and what a refusal must leave: nothing. Must not know what is tried.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use simnode::{Options, State};

use super::GpuNode;
use crate::containerd::Containerd;
use crate::containerd::stage::Stage;
use crate::containerd::task::{BERTH, Task};
use crate::images::glibc::Layout;

/// What keeps a container running.
pub const SLEEP: [&str; 2] = ["sleep", "100000"];

/// One whole GPU, as flags of `ctr run`.
pub const ONE_GPU: [&str; 2] = ["--annotation", "berth.dev/gpus=1"];

/// A node and a containerd whose shims act on it. The containerd goes first.
pub struct World {
    /// The containerd.
    pub containerd: Containerd,
    /// The node, and Berth's things on it.
    pub node: GpuNode,
}

impl World {
    /// A node of this profile, with `more` in Berth's configuration.
    ///
    /// # Errors
    /// When either cannot be made.
    pub fn up(stage: &Stage, profile: &str, more: &str) -> Result<Self> {
        Self::with(stage, profile, &Options::default(), more)
    }

    /// As [`Self::up`], with a node that is made by these options.
    ///
    /// # Errors
    /// As there.
    pub fn with(stage: &Stage, profile: &str, options: &Options, more: &str) -> Result<Self> {
        let node = GpuNode::with(profile, options, more)?;
        let containerd = Self::containerd_on(stage, &node)?;
        Ok(Self { containerd, node })
    }

    /// Another containerd on the same node.
    ///
    /// # Errors
    /// When it does not start.
    pub fn another(&self, stage: &Stage) -> Result<Containerd> {
        Self::containerd_on(stage, &self.node)
    }

    fn containerd_on(stage: &Stage, node: &GpuNode) -> Result<Containerd> {
        Containerd::start_on(&stage.installation, &stage.shim()?, Some(&node.config))
    }

    /// Imports the image of this layout.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn has(&self, layout: Layout) -> Result<&'static str> {
        self.built(layout.name(), |root| layout.build(root))?;
        Ok(layout.name())
    }

    /// Imports an image that `build` makes.
    ///
    /// # Errors
    /// As [`Self::has`].
    pub fn built(&self, name: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        self.containerd.import_built(name, build)
    }

    /// A container that sleeps.
    ///
    /// # Errors
    /// When ctr fails.
    pub fn sleeper(&self, flags: &[&str]) -> Result<Task<'_>> {
        Task::detached(&self.containerd, "gpu", flags, &SLEEP)
    }

    /// A container of another image that sleeps.
    ///
    /// # Errors
    /// When ctr fails.
    pub fn sleeper_of(&self, image: &str, flags: &[&str]) -> Result<Task<'_>> {
        let task = Task::named(&self.containerd, "gpu").of(image);
        task.start(flags, &SLEEP)?;
        Ok(task)
    }

    /// That such a container is refused with exactly these words, and that nothing of it is left.
    ///
    /// # Errors
    /// Saying what happened instead.
    pub fn refuses(&self, flags: &[&str], words: &str) -> Result<()> {
        let before = self.node.grants()?;
        let task = Task::named(&self.containerd, "refused");
        let said = task.foreground(BERTH, flags, &["true"])?;
        ensure!(said.code() == 1, "{flags:?}: not refused: {said:?}");
        let told = said.err.trim_end().split_once("failed to create shim task: ");
        let (_, told) = told.with_context(|| format!("{flags:?}: {said:?}"))?;
        // containerd 1.x adds what the status code is called.
        let told = told.strip_suffix(": failed precondition").unwrap_or(told);
        ensure!(told == words, "{flags:?}:\n  said:   {told}\n  wanted: {words}");
        task.removed()?;
        let after = self.node.grants()?;
        ensure!(before == after, "{flags:?}: {before:#?} became {after:#?}");
        Ok(())
    }

    /// The only grant there is.
    ///
    /// # Errors
    /// When there are none or several.
    pub fn grant(&self) -> Result<Value> {
        let grants = self.node.grants()?;
        ensure!(grants.len() == 1, "not one grant: {grants:#?}");
        Ok(grants[0].clone())
    }

    /// The node as it is simulated.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn state(&self) -> Result<State> {
        Ok(self.node.sim.state()?)
    }
}

/// The UUIDs of a grant, as `--json` shows it.
pub fn uuids(grant: &Value) -> Vec<&str> {
    let gpus = grant["gpus"].as_array().map_or(&[][..], Vec::as_slice);
    gpus.iter().filter_map(|gpu| gpu["uuid"].as_str()).collect()
}

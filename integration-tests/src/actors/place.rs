//! A simulated node on which the engine is tried: by this process, and by actors.
//!
//! Decides where bundles are, how this process uses a node that is not the machine's, and what every audit looks for. Must not know what
//! a trial does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use engine::config::Config;
use engine::{Grant, Node};
use nix::mount::{MsFlags, mount};

use super::{Container, Init, Prepared};
use crate::gpu::{GpuNode, tool};

/// Pods may ask here, and name devices.
const POLICY: &str = "[policy]\nannotation-requests = \"allow\"\ndevices = \"all\"\n";

/// How deep unfinished things are looked for: `<run>/<boot>/proc/…`, `<state>/driver/<version>/…`. What is below is finished with them.
const DEEP: usize = 3;

/// Names of what is unfinished: of files that are being replaced, and of trees that are being built.
const UNFINISHED: [&str; 3] = [".new-", ".ledger.json.new", ".config.json.berth"];

/// A simulated node and what is played on it. Dropping it takes everything down.
pub struct Place {
    /// The node.
    pub gpus: GpuNode,
    /// The engine's view of it, for this process.
    pub node: Node,
    pub(super) actor: PathBuf,
}

impl Place {
    /// A node of this profile. `actor` is the actor program.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn up(actor: &Path, profile: &str) -> Result<Self> {
        let gpus = GpuNode::up(profile, POLICY)?;
        for name in ["run", "bundles"] {
            in_memory(&gpus.path(name))?;
        }
        let mut config: Config = toml::from_str(&fs::read_to_string(&gpus.config)?)?;
        // Elsewhere a process has one node, which its environment names; this one may have several.
        config.node.tool = gpus.path("tool");
        let script = format!(
            "#!/bin/sh\nBERTH_CONFIG='{}' exec '{}' \"$@\"\n",
            gpus.config.display(),
            tool()?.display()
        );
        fs::write(&config.node.tool, script)?;
        fs::set_permissions(&config.node.tool, fs::Permissions::from_mode(0o755))?;
        Ok(Self { node: Node::new(&config), gpus, actor: actor.to_owned() })
    }

    /// Lets the works that `berth` does be done by the actor program, which dies at this point of theirs; none: it does not.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn works_die_at(&self, point: Option<&str>) -> Result<()> {
        let (program, crash) = (self.gpus.path("works"), self.gpus.path("crash"));
        let script = format!(
            "#!/bin/sh\nexport BERTH_CONFIG='{config}' BERTH_CRASH_AT=\"$(cat '{crash}')\"\nexec '{actor}' tool \"$@\"\n",
            config = self.gpus.config.display(),
            crash = crash.display(),
            actor = self.actor.display(),
        );
        fs::write(&crash, point.unwrap_or("nowhere"))?;
        for path in [&program, &self.gpus.path("tool")] {
            fs::write(path, &script)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        self.gpus.set("tool", &format!("{program:?}"))
    }

    /// Writes a container's bundle.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prepare(&self, container: &Container) -> Result<Prepared> {
        container.prepare(&self.gpus.path("bundles"))
    }

    /// A stand-in for a first process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn init(&self) -> Result<Init> {
        Init::start(&self.actor, self.gpus.folder())
    }

    /// The folder of this boot.
    ///
    /// # Errors
    /// When the node has no boot id.
    pub fn boot(&self) -> Result<PathBuf> {
        Ok(self.gpus.path("run").join(self.node.host().boot_id()?))
    }

    /// The grants.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn grants(&self) -> Result<Vec<Grant>> {
        Ok(self.node.grants()?)
    }

    /// Marks of admissions in progress, by the grants' ids.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn marks(&self) -> Result<Vec<String>> {
        let mut marks = Vec::new();
        for name in names_below(&self.boot()?, 1)? {
            marks.extend(name.strip_suffix(".admitting").map(str::to_owned));
        }
        Ok(marks)
    }

    /// Names of files that are kept until containers are armed.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn kept(&self) -> Result<Vec<String>> {
        names_below(&self.boot()?.join("kept"), 1)
    }

    /// What must hold after everything has settled: a sound ledger, no mark but of admissions in progress, nothing unfinished.
    ///
    /// # Errors
    /// Naming what does not.
    pub fn audit(&self) -> Result<()> {
        self.audit_without(&[])
    }

    /// The same, where these GPUs have gone while they were held.
    ///
    /// # Errors
    /// As there.
    pub fn audit_without(&self, gone: &[String]) -> Result<()> {
        let mut findings = self.node.verify()?;
        findings.retain(|finding| !gone.iter().any(|gpu| finding.starts_with(gpu.as_str())));
        ensure!(findings.is_empty(), "the ledger is not sound: {findings:#?}");
        let ledger = self.node.ledger()?;
        for mark in self.marks()? {
            let id = mark.parse().map_err(|_| anyhow::anyhow!("no grant has the id {mark:?}"))?;
            ensure!(ledger.is_in_progress(&id)?, "a mark is left of {mark}, which nobody makes");
        }
        let grants = self.grants()?;
        for kept in self.kept()? {
            let needed = grants.iter().any(|grant| kept.contains(&grant.id.to_string()));
            ensure!(needed, "{kept} is kept for nobody");
        }
        for folder in ["run", "state", "bundles"] {
            let unfinished = |name: &&String| {
                let last = name.rsplit('/').next().unwrap_or_default();
                UNFINISHED.iter().any(|begin| last.starts_with(begin))
            };
            let left = names_below(&self.gpus.path(folder), DEEP)?;
            let left: Vec<&String> = left.iter().filter(unfinished).collect();
            ensure!(left.is_empty(), "unfinished files are left in {folder}: {left:?}");
        }
        Ok(())
    }

    /// That all GPUs can be had at once; what is taken for this is given back.
    ///
    /// # Errors
    /// When they cannot.
    pub fn all_can_be_had(&self) -> Result<()> {
        let all = self.node.inventory()?.gpus.len();
        let everything = Container::alone("everything", u32::try_from(all)?);
        let everything = self.prepare(&everything)?;
        let (bundle, ask) = everything.read()?;
        let rootfs = engine::Rootfs::default();
        let admission = self.node.admit(&ask, &bundle, &rootfs, None);
        let admission = admission.context("not all GPUs can be had")?;
        let held: usize = self.grants()?.iter().map(|grant| grant.gpus.len()).sum();
        ensure!(held == all, "{held} of {all} GPUs are held by the one who has all");
        Ok(self.node.undo(admission)?)
    }
}

/// As /run is everywhere: a file that is replaced on a disk is written to it. Unmounted with the scratch folder.
fn in_memory(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let (kind, options) = ("tmpfs", Some("mode=0755"));
    Ok(mount(Some(kind), folder, Some(kind), MsFlags::empty(), options)?)
}

/// Paths of what is at most so deep below a folder, relative to it; none where there is no folder.
fn names_below(folder: &Path, deep: usize) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), 1)];
    while let Some((next, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let entry = entry?;
            if depth < deep && entry.file_type()?.is_dir() {
                folders.push((entry.path(), depth + 1));
            }
            found.push(entry.path().strip_prefix(folder)?.to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

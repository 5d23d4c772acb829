//! The node as the engine's verbs share it: where things are and what the operator allows.
//!
//! Decides nothing; made once per process from the configuration. Opens nothing until it is asked to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use device::{Host, Tool};
use ledger::{Grant, Ledger, Snapshot};
use plan::{CpuSet, GpuUuid, Inventory, Policy};

use crate::Fault;
use crate::config::Config;

/// The node that this process acts on.
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) host: Host,
    pub(crate) tool: Tool,
    pub(crate) policy: Policy,
    pub(crate) kubelet: PathBuf,
    pub(crate) cdi_dirs: Vec<PathBuf>,
    pub(crate) release_wait: Duration,
    /// How long an instance that nobody uses any more is kept for whoever asks for its like.
    #[cfg_attr(
        not(feature = "nvml"),
        allow(dead_code, reason = "only the child that destroys it waits")
    )]
    pub(crate) linger: Duration,
    /// CPUs that containers may have for themselves.
    pub(crate) exclusive_cpus: CpuSet,
    /// CPUs that nobody gets.
    pub(crate) reserved_cpus: CpuSet,
}

impl Node {
    /// The node that `config` describes.
    pub fn new(config: &Config) -> Self {
        let node = &config.node;
        Self {
            host: Host {
                root: node.root.clone(),
                driver_root: node.driver_root.clone(),
                nvml: node.nvml.clone(),
                run: node.run.clone(),
                state: node.state.clone(),
            },
            tool: Tool {
                program: node.tool.clone(),
                config: Config::explicit_path(),
                deadline: Duration::from_secs(node.observe_deadline.max(1).into()),
            },
            policy: config.policy(),
            kubelet: node.kubelet.clone(),
            cdi_dirs: node.cdi_dirs.clone(),
            release_wait: Duration::from_secs(node.release_wait.into()),
            linger: Duration::from_secs(node.mig_linger.into()),
            exclusive_cpus: node.exclusive_cpus.clone(),
            reserved_cpus: node.reserved_cpus.clone(),
        }
    }

    /// The ledger of this boot.
    ///
    /// # Errors
    /// [`Fault`] when the boot id or the folder cannot be had.
    pub fn ledger(&self) -> Result<Ledger, Fault> {
        Ok(Ledger::open(&self.host.run, &self.host.boot_id()?)?)
    }

    /// Whether anything was ever granted in this boot. Makes nothing, unlike [`Node::ledger`].
    pub(crate) fn has_ledger(&self) -> Result<bool, Fault> {
        Ok(self.host.run.join(self.host.boot_id()?).join("ledger.json").exists())
    }

    /// The whole record as of now.
    ///
    /// # Errors
    /// [`Fault`] when the ledger cannot be read; it is never taken for empty.
    pub fn ledger_record(&self) -> Result<Snapshot, Fault> {
        if !self.has_ledger()? {
            return Ok(Snapshot::default());
        }
        Ok(self.ledger()?.snapshot()?)
    }

    /// Every grant, as of now.
    ///
    /// # Errors
    /// As [`Node::ledger_record`].
    pub fn grants(&self) -> Result<Vec<Grant>, Fault> {
        let shared = self.ledger_record()?.grants;
        Ok(shared.into_iter().map(Arc::unwrap_or_clone).collect())
    }

    /// What is wrong with the ledger, in words; empty when it is sound.
    ///
    /// # Errors
    /// [`Fault`] when it cannot be read at all.
    pub fn verify(&self) -> Result<Vec<String>, Fault> {
        if !self.has_ledger()? {
            return Ok(Vec::new());
        }
        let ledger = self.ledger()?;
        let mut findings: Vec<String> = ledger.verify()?.iter().map(ToString::to_string).collect();
        let grants = ledger.snapshot()?.grants;
        for finding in crate::audit::findings(self, &grants)? {
            // Both look for what is held twice.
            let words = finding.to_string();
            if !findings.contains(&words) {
                findings.push(words);
            }
        }
        Ok(findings)
    }

    /// Looks at the node and writes what [`Node::inventory`] will read. Loads NVML: never in a shim.
    ///
    /// # Errors
    /// [`Fault`] when the driver does not answer.
    #[cfg(feature = "nvml")]
    pub fn observe(&self) -> Result<(), Fault> {
        device::observe(&self.host)?;
        Ok(())
    }

    /// Prepares the driver's files for containers with these capabilities.
    ///
    /// # Errors
    /// [`Fault`] when the files are not there or cannot be kept.
    #[cfg(feature = "nvml")]
    pub fn prepare_driver(&self, capabilities: &plan::Capabilities) -> Result<(), Fault> {
        let driver = self.inventory()?.driver;
        if let Some(driver) = driver {
            device::prepare_driver(&self.host, &driver, capabilities)?;
        }
        Ok(())
    }

    /// What the node has: cached, else observed by a child.
    ///
    /// # Errors
    /// [`Fault`] when it cannot be observed.
    pub fn inventory(&self) -> Result<Inventory, Fault> {
        // Of a GPU that somebody works on, the ledger knows what is about to be there.
        let is_busy = |gpu: &GpuUuid| {
            self.ledger().is_ok_and(|ledger| ledger.is_worked_on(gpu).unwrap_or(false))
        };
        Ok(device::inventory(&self.host, &self.tool, is_busy)?)
    }

    /// CPUs that containers may have for themselves (`node.exclusive-cpus`).
    pub fn exclusive_cpus(&self) -> &CpuSet {
        &self.exclusive_cpus
    }

    /// CPUs that no container with a GPU gets (`node.reserved-cpus`).
    pub fn reserved_cpus(&self) -> &CpuSet {
        &self.reserved_cpus
    }

    /// Where things are.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What the operator allows.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

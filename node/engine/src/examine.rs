//! Examination: what an admission would need of this node, looked at before anybody asks for it.
//!
//! Decides what is well, what is a warning (containers start, something is missing) and what is a failure (requests would be
//! refused), each with a way out. Changes nothing but caches.

use device::DeviceNode;
use plan::{Capabilities, Gpu, Inventory};

use crate::{Fault, Node};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub outcome: Outcome,
}

/// How it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be, in words.
    Well(String),
    /// Containers start, but something will be missing.
    Warning {
        /// What is wrong.
        problem: String,
        /// What to do.
        fix: String,
    },
    /// Requests will be refused.
    Failure {
        /// What is wrong.
        problem: String,
        /// What to do.
        fix: String,
    },
    /// Not looked at, and why.
    Skipped(String),
}

impl Check {
    /// As it should be.
    pub fn well(name: &'static str, words: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Well(words.into()) }
    }

    /// A warning with its way out.
    pub fn warning(name: &'static str, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Warning { problem: problem.into(), fix: fix.into() } }
    }

    /// A failure with its way out.
    pub fn failure(name: &'static str, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Failure { problem: problem.into(), fix: fix.into() } }
    }
}

impl Node {
    /// Looks at everything that an admission would use, in that order.
    pub fn examine(&self) -> Vec<Check> {
        let inventory = match self.inventory() {
            Ok(inventory) => inventory,
            Err(fault) => {
                let fix = "run `nvidia-smi`; if it fails too, reload the driver";
                return vec![
                    Check::failure("inventory", fault.to_string(), fix),
                    self.ledger_check(),
                ];
            }
        };
        if inventory.driver.is_none() {
            let fix = "install the driver and load it (modprobe nvidia), or do without GPUs";
            return vec![
                Check::warning("driver", "no NVIDIA driver is loaded", fix),
                self.ledger_check(),
            ];
        }
        vec![
            driver(&inventory),
            self.gpus(&inventory),
            self.nodes(&inventory),
            self.links(&inventory),
            self.files(&inventory),
            self.allocators(),
            self.ledger_check(),
            self.leftovers(),
        ]
    }

    fn gpus(&self, inventory: &Inventory) -> Check {
        let mig = inventory.gpus.iter().filter(|gpu| gpu.mig).count();
        let allowed = |gpu: &&Gpu| plan::place::is_allowed(gpu, &self.policy);
        let ours = inventory.gpus.iter().filter(allowed).count();
        let words = format!("{} GPUs, {ours} of them Berth's to give", inventory.gpus.len());
        let fix = "see node.gpus in `berth config show`";
        let problems = device::problems(&self.host);
        match (inventory.gpus.len(), ours) {
            (0, _) => {
                Check::failure("gpus", "the driver shows no GPU", "run `nvidia-smi`; see dmesg")
            }
            (_, 0) => Check::failure("gpus", format!("{words}: node.gpus names none of them"), fix),
            _ if !problems.is_empty() => Check::warning(
                "gpus",
                format!("{words}; {}", problems.join("; ")),
                "see dmesg for Xid messages; a lost GPU comes back by a reset (nvidia-smi -r) or a reboot",
            ),
            _ if mig > 0 => Check::warning(
                "gpus",
                format!("{words}; {mig} in MIG mode, which are not given as a whole"),
                "nvidia-smi -i <GPU> -mig 0, if they should be",
            ),
            _ => Check::well("gpus", words),
        }
    }

    fn device_nodes(&self, inventory: &Inventory) -> Result<Vec<DeviceNode>, Fault> {
        let gpus: Vec<&Gpu> = inventory.gpus.iter().collect();
        Ok(device::device_nodes(&self.host, &gpus, &[], &Capabilities::default())?)
    }

    fn nodes(&self, inventory: &Inventory) -> Check {
        let fix = "load nvidia-uvm and make the nodes: nvidia-modprobe -u -c0";
        match self.device_nodes(inventory) {
            Err(fault) => Check::failure("device nodes", fault.to_string(), fix),
            Ok(nodes) if !nodes.iter().any(|node| node.path == "/dev/nvidia-uvm") => {
                Check::failure("device nodes", "nvidia-uvm is not loaded: CUDA will not start", fix)
            }
            Ok(nodes) => Check::well("device nodes", format!("{} nodes", nodes.len())),
        }
    }

    fn links(&self, inventory: &Inventory) -> Check {
        let Ok(nodes) = self.device_nodes(inventory) else {
            let reason = "the device nodes are not known".to_owned();
            return Check { name: "/dev/char links", outcome: Outcome::Skipped(reason) };
        };
        let missing = device::missing_char_links(&self.host, &nodes);
        if missing.is_empty() {
            return Check::well("/dev/char links", "all there");
        }
        let fix = "nvidia-ctk system create-dev-char-symlinks --create-all, or start one container with all GPUs by Berth";
        Check::warning(
            "/dev/char links",
            format!(
                "{} missing ({} …): systemd then drops the rules of these devices at daemon-reload",
                missing.len(),
                missing[0]
            ),
            fix,
        )
    }

    fn files(&self, inventory: &Inventory) -> Check {
        let fix = "install the driver's libraries of the very version of its kernel module; with a driver container set node.driver-root";
        let Some(driver) = &inventory.driver else {
            return Check::failure("driver files", "no driver", fix);
        };
        match device::driver_tree(&self.host, &self.tool, driver, &Capabilities::default()) {
            Err(error) => Check::failure("driver files", error.to_string(), fix),
            Ok(tree) if !tree.libraries.iter().any(|one| one.soname == "libcuda.so.1") => {
                Check::failure(
                    "driver files",
                    format!("libcuda.so.{} was not found", driver.version),
                    fix,
                )
            }
            Ok(tree) => {
                let mut words =
                    format!("{} libraries, ready in {}", tree.libraries.len(), tree.path.display());
                // They are links, or copies of some hundred MB, and may still be somebody's.
                let old = device::old_trees(&self.host, Some(driver)).unwrap_or_default();
                if let Some(first) = old.first() {
                    words.push_str(&format!(
                        "; {} of other driver versions can be deleted once no container has them ({} …)",
                        old.len(),
                        first.display()
                    ));
                }
                Check::well("driver files", words)
            }
        }
    }

    fn allocators(&self) -> Check {
        match device::kubelet::owner_of_gpus(&self.kubelet) {
            Err(error) => {
                let fix = "pods' requests are refused while it cannot be read; see node.kubelet";
                Check::warning("other allocators", error.to_string(), fix)
            }
            Ok(Some(other)) => Check::warning(
                "other allocators",
                format!(
                    "{other} hands out this node's GPUs: under policy.annotation-requests = \"auto\" pods' annotations are refused"
                ),
                "leave the GPUs to one of the two: node.gpus, or no device plugin on this node",
            ),
            Ok(None) => Check::well("other allocators", "none"),
        }
    }

    fn ledger_check(&self) -> Check {
        match self.verify() {
            Err(fault) => {
                Check::failure("ledger", fault.to_string(), "see `berth ledger repair --dry-run`")
            }
            Ok(findings) if findings.is_empty() => Check::well("ledger", "sound"),
            Ok(findings) => Check::failure("ledger", findings.join("; "), "run `berth reconcile`"),
        }
    }

    fn leftovers(&self) -> Check {
        match self.reconcile(true) {
            Err(fault) => Check::failure(
                "leftovers",
                fault.to_string(),
                "see `berth ledger repair --dry-run`",
            ),
            Ok(report) if report.released.is_empty() => Check::well("leftovers", "none"),
            Ok(report) => Check::warning(
                "leftovers",
                format!("{} grants of containers that have ended", report.released.len()),
                "run `berth reconcile`; the next admission that needs the room does it by itself",
            ),
        }
    }
}

fn driver(inventory: &Inventory) -> Check {
    inventory.driver.as_ref().map_or_else(
        || Check::failure("driver", "none is loaded", "modprobe nvidia"),
        |driver| Check::well("driver", format!("{}, CUDA {}", driver.version, driver.cuda)),
    )
}

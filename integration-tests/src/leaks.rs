//! Decides what still belongs to a trial: processes, mounts, cgroups, sockets, runtime state. What
//! is listed here after the last container is gone was leaked. Must not know how it came to be.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::deadline::eventually;
use crate::machine::{self, MountRow, ProcessRow};
use crate::scratch::Scratch;

/// Everything of a trial that is still on the machine.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Processes that carry the scratch's mark, sit in its cgroups, or descend from one that does.
    pub processes: Vec<ProcessRow>,
    /// Mounts at or below the scratch folder.
    pub mounts: Vec<MountRow>,
    /// Cgroups below the trial's own top-level one (the runtime makes that one and leaves it).
    pub cgroups: Vec<PathBuf>,
    /// Shim sockets.
    pub sockets: Vec<PathBuf>,
    /// The OCI runtime's records of containers.
    pub records: Vec<PathBuf>,
}

impl Leftovers {
    /// Looks at the machine now.
    pub fn of(scratch: &Scratch) -> Result<Leftovers> {
        let top_level = |folder: &PathBuf| folder.ends_with(scratch.cgroup());
        let mut cgroups = machine::cgroups_named(scratch.cgroup())?;
        cgroups.retain(|folder| !top_level(folder));
        Ok(Leftovers {
            processes: scratch.processes(),
            mounts: machine::mounts_below(scratch.root())?,
            cgroups,
            sockets: scratch.sockets(),
            records: runtime_records(&scratch.path("runc")),
        })
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
            && self.mounts.is_empty()
            && self.cgroups.is_empty()
            && self.sockets.is_empty()
            && self.records.is_empty()
    }
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.processes {
            writeln!(
                f,
                "  process {} ({}, parent {}): {}",
                row.pid, row.state, row.parent, row.command
            )?;
        }
        for row in &self.mounts {
            writeln!(f, "  mount {} ({})", row.target.display(), row.kind)?;
        }
        for folder in &self.cgroups {
            writeln!(f, "  cgroup {}", folder.display())?;
        }
        for socket in &self.sockets {
            writeln!(f, "  socket {}", socket.display())?;
        }
        for record in &self.records {
            writeln!(f, "  runtime record {}", record.display())?;
        }
        Ok(())
    }
}

/// Waits for what is on its way out, then names every leftover.
pub async fn assert_nothing_left(scratch: &Scratch) -> Result<()> {
    let gone = eventually("leftovers", || Ok(Leftovers::of(scratch)?.is_empty().then_some(())));
    if tokio::time::timeout(std::time::Duration::from_secs(20), gone)
        .await
        .is_ok_and(|gone| gone.is_ok())
    {
        return Ok(());
    }
    bail!("left behind:\n{}", Leftovers::of(scratch)?)
}

/// The container folders that runc keeps below its root, one level below each containerd namespace.
fn runtime_records(root: &Path) -> Vec<PathBuf> {
    let inside =
        |folder: &Path| folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    inside(root).flat_map(|namespace| inside(&namespace).collect::<Vec<_>>()).collect()
}

//! The node of the GPU part: eight simulated GPUs, and two hundred grants in its ledger.
//!
//! Decides who holds them: pods whose GPUs another allocator shares out, so that many hold one, on every GPU but one. All are admitted and armed
//! by the engine like any container; their processes are stand-ins that live until the bench ends.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use engine::Rootfs;

use super::world::in_memory;
use crate::actors::{Container, Init, Place, Pod};

/// Grants in the ledger.
const GRANTS: usize = 200;

/// Asks for one GPU.
pub const ONE_GPU: (&str, &str) = ("berth.dev/gpus", "1");

/// The node, its grants, and the processes that keep them.
pub struct Occupied {
    /// The node.
    pub place: Place,
    _holders: Vec<Init>,
}

impl Occupied {
    /// Makes the node and its grants.
    ///
    /// # Errors
    /// When either cannot be made.
    pub fn up() -> Result<Self> {
        // The bench's own program can stand in for an init.
        let place = Place::up(&std::env::current_exe()?, "p5")?;
        // As on a node whose /run is a tmpfs.
        let run = place.gpus.path("run");
        std::fs::create_dir_all(&run)?;
        in_memory(&run)?;
        let mut holders = Vec::new();
        let gpus = u32::try_from(place.node.inventory()?.gpus.len())?;
        ensure!(gpus > 1, "the node has {gpus} GPUs, and one is to stay free");
        for nth in 0..GRANTS {
            let id = format!("{nth:064x}");
            let pod = Pod { sandbox: format!("{:064x}", GRANTS + nth), name: "worker".to_owned() };
            // The first GPU stays free.
            let gpu = 1 + u32::try_from(nth)? % (gpus - 1);
            let container =
                Container { id, pod: Some(pod), annotations: Vec::new(), injected: vec![gpu] };
            let container = place.prepare(&container)?;
            let (bundle, ask) = container.read()?;
            let holder = place.init()?;
            let init = holder.pid();
            let mut admission = place.node.admit(&ask, &bundle, &Rootfs::default(), Some(init))?;
            let cgroup =
                format!("/sys/fs/cgroup/kubepods/burstable/pod{nth:032x}/{}", container.id);
            place.node.arm(&mut admission, init, Some(cgroup.into()))?;
            holders.push(holder);
        }
        let held = place.grants()?.len();
        ensure!(held == GRANTS, "{held} grants in the ledger, not {GRANTS}");
        Ok(Self { place, _holders: holders })
    }

    /// The environment of a shim that acts on this node.
    pub fn env(&self) -> Vec<(String, String)> {
        let config: PathBuf = self.place.gpus.config.clone();
        vec![("BERTH_CONFIG".to_owned(), config.to_string_lossy().into_owned())]
    }
}

//! A reset of the whole node while containers are being admitted, and what is believed after it.
//!
//! Decides nothing by itself: the lab's plan runs the first trial before the reset, which it ends with, and the second one in the boot after it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use integration_tests::containerd::task::{BERTH, Task};
use integration_tests::gpu::GpuNode;
use integration_tests::gpu::world::ONE_GPU;
use integration_tests::wait;
use simnode::Change;

use crate::ground::{Ground, seats};

const SLEEP: [&str; 2] = ["sleep", "100000"];

/// Where the first trial leaves the place of its node for the second one; its folder is the node's disk.
fn left() -> Result<PathBuf> {
    let folder = std::env::var_os("BERTH_LAB_DISK")
        .context("BERTH_LAB_DISK: a folder that outlives a reset")?;
    Ok(Path::new(&folder).join("node"))
}

pub fn the_node_is_reset_amid_admissions(ground: &Ground) -> Result<()> {
    let kubelet = ground.kubelet("")?;
    fs::write(left()?, kubelet.node.folder().as_os_str().as_encoded_bytes())?;
    let held = Task::detached(&kubelet.containerd, "held", &ONE_GPU, &SLEEP)?;
    let ledger = kubelet.node.ledger()?;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let task = Task::named(&kubelet.containerd, "amid");
                let _ = task.foreground(BERTH, &ONE_GPU, &SLEEP);
            });
        }
        let reserved =
            || fs::read_to_string(&ledger).ok().filter(|text| text.contains("\"reserved\""));
        wait::until("a container that is being admitted", reserved)?;
        // What a tmpfs would have lost: that it is not believed is to be shown.
        nix::unistd::sync();
        fs::write("/proc/sysrq-trigger", "b").context("reset the node")?;
        bail!("{}: the node went on", held.id)
    })
}

pub fn after_a_reset_nothing_of_the_old_boot_is_believed(ground: &Ground) -> Result<()> {
    let folder = PathBuf::from(fs::read_to_string(left()?)?);
    let node = GpuNode::again(&folder)?;
    let old = fs::read_to_string(node.ledger()?)?;
    ensure!(old.contains("\"reserved\"") && old.contains("\"applied\""), "what was left: {old}");
    node.sim.change(Change::Reboot)?;
    node.is_free().context("the ledger of the old boot")?;
    let reconciled = node.berth(&["reconcile"])?;
    ensure!(reconciled.code() == 0, "{reconciled:?}");
    let gpus = node.sim.state()?.gpus.len();
    let kubelet = ground.kubelet_on(node)?;
    let mut tasks = Vec::new();
    for _ in 0..gpus {
        tasks.push(Task::detached(&kubelet.containerd, "after", &ONE_GPU, &SLEEP)?);
    }
    let grants = kubelet.node.grants()?;
    let mut given: Vec<_> =
        grants.iter().filter_map(|one| one["gpus"][0]["uuid"].as_str()).collect();
    given.sort_unstable();
    given.dedup();
    ensure!(given.len() == gpus && seats(&kubelet.node)?.len() > 1, "{grants:#?}");
    ensure!(!node_has_others(&kubelet.node)?, "the old boot's folder is still there");
    for task in tasks {
        task.end()?;
    }
    kubelet.node.is_free()
}

/// Whether there are ledgers of other boots.
fn node_has_others(node: &GpuNode) -> Result<bool> {
    let ledger = node.ledger()?;
    let own = ledger.parent().context("in a folder")?;
    let mut boots = fs::read_dir(node.path("run"))?.flatten().map(|entry| entry.path());
    Ok(boots.any(|boot| boot.join("ledger.json").exists() && boot != own))
}

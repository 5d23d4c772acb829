//! Device nodes of what a machine of a cluster has beside its GPUs: GPUDirect Storage, InfiniBand, GDRCopy, the channels of IMEX.
//!
//! Decides which machines have them: those whose GPUs are on switches, as such machines are built; channels where the switches are the rack's.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::NodeError;
use crate::state::{Link, State};

use super::dev::Majors;
use super::write::{Tree, read};

/// As many as nvidia-fs makes.
const FS_NODES: u32 = 16;

/// `misc`, where rdma_cm is.
const MISC: u32 = 10;

/// The first minor of `infiniband_verbs`.
const VERBS: u32 = 192;

const CUFILE: &str = r#"{"properties": {"use_compat_mode": true}}"#;

fn on_switches(state: &State, is: impl Fn(&Link) -> bool) -> bool {
    state.driver.is_some() && state.gpus.iter().any(|gpu| gpu.links.iter().any(&is))
}

fn has_cluster(state: &State) -> bool {
    on_switches(state, |link| matches!(link, Link::Switch(_)))
}

fn has_rack(state: &State) -> bool {
    on_switches(state, |link| matches!(link, Link::Switch(None)))
}

/// As they stand in `/proc/devices`.
pub(super) fn entries(majors: &Majors, state: &State) -> Vec<(u32, &'static str)> {
    match has_cluster(state) {
        true => vec![
            (majors.fs, "nvidia-fs"),
            (majors.gdr, "gdrdrv"),
            (majors.verbs, "infiniband_verbs"),
        ],
        false => Vec::new(),
    }
}

pub(super) fn write(tree: &Tree, state: &State, majors: &Majors) -> Result<(), NodeError> {
    if has_rack(state) {
        tree.device("dev/nvidia-caps-imex-channels/channel0", (majors.imex, 0), 0o666)?;
    }
    if !has_cluster(state) {
        return Ok(());
    }
    for minor in 0..FS_NODES {
        tree.device(&format!("dev/nvidia-fs{minor}"), (majors.fs, minor), 0o666)?;
    }
    tree.line("etc/cufile.json", CUFILE)?;
    tree.device("dev/gdrdrv", (majors.gdr, 0), 0o666)?;
    // A network adapter for each GPU, as these machines have it.
    for gpu in &state.gpus {
        let node = format!("dev/infiniband/uverbs{}", gpu.minor);
        tree.device(&node, (majors.verbs, VERBS + gpu.minor), 0o666)?;
    }
    tree.device("dev/infiniband/rdma_cm", (MISC, free_misc_minor()?), 0o666)
}

/// A dynamic minor of `misc` that nothing of this machine has.
fn free_misc_minor() -> Result<u32, NodeError> {
    let text = read(Path::new("/proc/misc"))?;
    let number = |line: &str| line.split_whitespace().next()?.parse().ok();
    let used: BTreeSet<u32> = text.lines().filter_map(number).collect();
    Ok((0..64).rev().find(|minor| !used.contains(minor)).unwrap_or_default())
}

//! Device nodes and sockets, with the real majors and minors.
//!
//! Nothing drives them here: an open that gets past the cgroup's device rule fails with ENXIO, one that does not with EPERM.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::{At, NodeError};
use crate::state::{Gpu, State};

use super::write::{Tree, read};

/// The driver's own major.
pub(super) const NVIDIA: u32 = 195;

/// The kernel's own, of what draws.
pub(super) const DRM: u32 = 226;

/// Dynamic majors, none of which this machine uses.
pub(super) struct Majors {
    uvm: u32,
    caps: u32,
    pub imex: u32,
    nvswitch: u32,
    pub fs: u32,
    pub gdr: u32,
    pub verbs: u32,
}

impl Majors {
    pub fn free() -> Result<Self, NodeError> {
        let devices = Path::new("/proc/devices");
        let text = read(devices)?;
        let number = |line: &str| line.split_whitespace().next()?.parse().ok();
        let used: BTreeSet<u32> = text.lines().filter_map(number).collect();
        // From the extended dynamic range, which the kernel only turns to when 234–254 are taken.
        let mut free = (400..512).rev().filter(|major| !used.contains(major));
        let mut next =
            || free.next().ok_or_else(|| std::io::Error::other("all of 400-511 are taken"));
        let mut majors = || -> std::io::Result<Self> {
            Ok(Self {
                uvm: next()?,
                caps: next()?,
                imex: next()?,
                nvswitch: next()?,
                fs: next()?,
                gdr: next()?,
                verbs: next()?,
            })
        };
        majors().at("find free majors in", devices)
    }

    /// As they stand in `/proc/devices`.
    pub fn entries(&self, state: &State) -> impl Iterator<Item = (u32, &'static str)> {
        let always = [
            (self.uvm, "nvidia-uvm"),
            (self.caps, "nvidia-caps"),
            (self.imex, "nvidia-caps-imex-channels"),
        ];
        let switches = (!state.switches.is_empty()).then_some((self.nvswitch, "nvidia-nvswitch"));
        always.into_iter().chain(switches).chain(super::extras::entries(self, state))
    }
}

/// Names and minors of what a GPU has in `/dev/dri`.
pub(super) fn drawing(gpu: &Gpu) -> [(String, u32); 2] {
    let (card, render) = (gpu.minor + 1, gpu.minor + 128);
    [(format!("card{card}"), card), (format!("renderD{render}"), render)]
}

pub(super) fn write(tree: &Tree, state: &State, majors: &Majors) -> Result<(), NodeError> {
    // As on a real host, nobody has made the driver's links in /dev/char.
    tree.folder("dev/char")?;
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        tree.device(&format!("dev/{name}"), (1, minor), 0o666)?;
    }
    if state.driver.is_none() {
        return Ok(());
    }
    for gpu in &state.gpus {
        tree.device(&format!("dev/nvidia{}", gpu.minor), (NVIDIA, gpu.minor), 0o666)?;
    }
    // The board's own comes first, as on any server.
    tree.device("dev/dri/card0", (DRM, 0), 0o660)?;
    for gpu in &state.gpus {
        for (name, minor) in drawing(gpu) {
            tree.device(&format!("dev/dri/{name}"), (DRM, minor), 0o660)?;
        }
    }
    for (name, number) in [
        ("nvidiactl", (NVIDIA, 255)),
        ("nvidia-modeset", (NVIDIA, 254)),
        ("nvidia-uvm", (majors.uvm, 0)),
        ("nvidia-uvm-tools", (majors.uvm, 1)),
    ] {
        tree.device(&format!("dev/{name}"), number, 0o666)?;
    }
    if state.gpus.iter().any(|gpu| gpu.mig.is_some()) {
        tree.device("dev/nvidia-caps/nvidia-cap1", (majors.caps, 1), 0o400)?;
        tree.device("dev/nvidia-caps/nvidia-cap2", (majors.caps, 2), 0o444)?;
    }
    if !state.switches.is_empty() {
        tree.device("dev/nvidia-nvswitchctl", (majors.nvswitch, 255), 0o666)?;
        for (minor, _) in (0..).zip(&state.switches) {
            tree.device(&format!("dev/nvidia-nvswitch{minor}"), (majors.nvswitch, minor), 0o666)?;
        }
        tree.socket("run/nvidia-fabricmanager/socket")?;
    }
    tree.socket("run/nvidia-persistenced/socket")
}

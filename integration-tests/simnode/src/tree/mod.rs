//! The node's file system, as far as anybody reads it who deals with GPUs.
//!
//! Decides which files there are; each part of the tree has its file here.

mod binaries;
mod capabilities;
mod cpus;
mod data;
mod dev;
mod extras;
mod libraries;
mod pci;
mod proc;
mod write;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::NodeError;
use crate::mig::record;
use crate::state::State;
use write::Tree;

/// What is built elsewhere and belongs into the tree.
#[derive(Debug)]
pub(crate) struct Parts {
    pub nvml: PathBuf,
    pub nvidia_smi: PathBuf,
}

/// Makes the whole tree. Without parts there is no driver.
pub(crate) fn build(root: &Path, state: &State, parts: Option<&Parts>) -> Result<(), NodeError> {
    let tree = Tree::create(root)?;
    merged_usr(&tree)?;
    new_boot_id(root)?;
    cpus::write(&tree, &state.machine)?;
    pci::write(&tree, state)?;
    let majors = dev::Majors::free()?;
    proc::devices(&tree, state, &majors)?;
    dev::write(&tree, state, &majors)?;
    extras::write(&tree, state, &majors)?;
    if let (Some(parts), Some(driver)) = (parts, &state.driver) {
        let own = root.join(state.layout.driver_root());
        let files = Tree::open(&own);
        let apart = own != root;
        if apart {
            merged_usr(&files)?;
        }
        libraries::write(&files, state, driver, &parts.nvml)?;
        binaries::write(&files, state, driver, &parts.nvidia_smi)?;
        data::write(&files, state, driver)?;
        if apart {
            loader_cache(&own);
        }
        // Where the kernel looks for firmware beside its own places.
        let firmware = if apart { "/run/nvidia/driver/lib/firmware" } else { "" };
        tree.line("sys/module/firmware_class/parameters/path", firmware)?;
        load(root, state)?;
    }
    loader_cache(root);
    Ok(())
}

/// The folders of any distribution's root.
fn merged_usr(tree: &Tree) -> Result<(), NodeError> {
    for (name, target) in [
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("var/run", "../run"),
    ] {
        tree.link(name, target)?;
    }
    let folders = ["usr/lib", "usr/lib64", "usr/bin", "usr/sbin", "run", "tmp"];
    folders.iter().try_for_each(|name| tree.folder(name))
}

/// The file of the driver library below the root.
pub(crate) fn nvml_file(state: &State) -> PathBuf {
    let folder = state.layout.driver_root().join(libraries::folder(state.layout));
    folder.join("libnvidia-ml.so.1")
}

/// What the kernel shows of a loaded driver; a module that was there becomes another one.
pub(crate) fn load(root: &Path, state: &State) -> Result<(), NodeError> {
    let tree = Tree::open(root);
    proc::load(&tree, state)?;
    instances(root, state)?;
    pci::bind(&tree, state)
}

/// What the kernel shows of MIG instances, and what a container's driver library is to find of them.
pub(crate) fn instances(root: &Path, state: &State) -> Result<(), NodeError> {
    capabilities::write(&Tree::open(root), state)?;
    record::write(&root.join(nvml_file(state)), state)
}

/// Takes away what the kernel shows of a loaded driver.
pub(crate) fn unload(root: &Path, state: &State) -> Result<(), NodeError> {
    let tree = Tree::open(root);
    proc::unload(&tree)?;
    record::write(&root.join(nvml_file(state)), state)?;
    pci::unbind(&tree)
}

/// Another boot.
pub(crate) fn new_boot_id(root: &Path) -> Result<(), NodeError> {
    let uuid = write::read(Path::new("/proc/sys/kernel/random/uuid"))?;
    Tree::open(root).file("proc/sys/kernel/random/boot_id", uuid)
}

/// `/etc/ld.so.cache`, where this machine has an ldconfig. Best-effort: Berth must do without one too.
fn loader_cache(root: &Path) {
    let run = Command::new("ldconfig").arg("-r").arg(root).stderr(Stdio::null()).status();
    drop(run);
}

//! Where cargo put what belongs into a node: the simulated library and the stand-in for nvidia-smi.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::NodeError;

/// The simulated `libnvidia-ml.so.1` as built: `BERTH_SIMNODE_NVML`, else beside this program or above it.
///
/// # Errors
/// When it has not been built.
pub fn nvml_library() -> Result<PathBuf, NodeError> {
    find("libnvidia_ml_sim.so", "BERTH_SIMNODE_NVML")
}

/// The stand-in for `nvidia-smi` as built: `BERTH_SIMNODE_SMI`, else beside this program or above it.
///
/// # Errors
/// When it has not been built.
pub fn nvidia_smi() -> Result<PathBuf, NodeError> {
    find("nvidia-smi", "BERTH_SIMNODE_SMI")
}

fn find(what: &'static str, variable: &'static str) -> Result<PathBuf, NodeError> {
    if let Some(named) = env::var_os(variable) {
        return Ok(named.into());
    }
    let program = env::current_exe().unwrap_or_default();
    // `target/debug/deps/test-…` and `target/debug/simnode`. Cargo writes the library into deps and does not always
    // bring it up a floor: the newest is the one that was built last.
    let folders = program.ancestors().skip(1).take(3);
    let places = folders.flat_map(|folder| [folder.join(what), folder.join("deps").join(what)]);
    let age = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    let found = places.filter(|place| place.is_file()).max_by_key(|place| age(place));
    found.ok_or_else(|| NodeError::NotBuilt {
        what,
        searched: program
            .parent()
            .map(|near| format!(" near {}", near.display()))
            .unwrap_or_default(),
        variable,
    })
}

//! The CUDA program (`src/bin/berth-cuda-probe.rs`): where it is, and what its answer says.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::ctr::Said;
use serde_json::Value;

use crate::ground::lacking;

/// Its name.
pub const NAME: &str = "berth-cuda-probe";

/// The program: beside this one where both were built elsewhere, else where cargo put it.
pub fn program() -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(NAME);
    let built = PathBuf::from(env!("CARGO_BIN_EXE_berth-cuda-probe"));
    let found = [beside, built].into_iter().find(|path| path.is_file());
    found.context("berth-cuda-probe is not built: run scripts/gpu-test --build")
}

/// What CUDA showed.
#[derive(Debug)]
pub struct Seen {
    /// The file that libcuda.so.1 was.
    pub library: PathBuf,
    /// UUIDs, sorted. Memory of each was written and read.
    pub gpus: Vec<String>,
}

/// Reads an answer.
///
/// # Errors
/// When the program failed; [`integration_tests::suite::Lacking`] where the node is a simulated one, whose libcuda is a stand-in.
pub fn seen(said: &Said) -> Result<Seen> {
    ensure!(said.code() == 0, "CUDA does not run: {}{}", said.out, said.err);
    let answer: Value =
        serde_json::from_str(said.out.trim()).with_context(|| format!("{said:?}"))?;
    if answer["stand_in"] == true {
        return Err(lacking("libcuda.so.1 is a simulated node's stand-in"));
    }
    let library = answer["library"].as_str().context("a library")?.into();
    let gpus = answer["gpus"].as_array().context("a list of GPUs")?;
    let mut gpus: Vec<String> =
        gpus.iter().filter_map(|gpu| gpu["uuid"].as_str()).map(str::to_owned).collect();
    gpus.sort();
    Ok(Seen { library, gpus })
}

//! Decides which shim binary and which OCI runtime the suites run against.
//! Must not know how either is driven.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// File name of the shim this workspace builds.
pub const BERTH_SHIM: &str = "containerd-shim-berth-v2";
/// File name of containerd's own shim.
pub const REFERENCE_SHIM: &str = "containerd-shim-runc-v2";

/// What the suites test: a shim binary and the OCI runtime it is told to use.
#[derive(Debug)]
pub struct UnderTest {
    /// The shim binary: `BERTH_TEST_SHIM`, else what `make build` left in the target directory.
    pub shim: PathBuf,
    /// runc, as found in PATH.
    pub runtime: PathBuf,
    /// `BERTH_TEST_REFERENCE=1`: the binary is containerd's own shim, so the reference tests the tests.
    pub reference: bool,
}

/// The shim and runtime of this test process, looked up once.
pub fn under_test() -> Result<&'static UnderTest> {
    static FOUND: OnceLock<UnderTest> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    let found = look_up()?;
    Ok(FOUND.get_or_init(|| found))
}

/// True when containerd's own shim stands in for Berth's.
pub fn reference() -> bool {
    env::var("BERTH_TEST_REFERENCE").is_ok_and(|value| value == "1")
}

/// The first executable called `name` in PATH and in the sbin folders a service's PATH has.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

fn look_up() -> Result<UnderTest> {
    let runtime =
        in_path("runc").context("runc is not in PATH: install it (apt-get install runc)")?;
    let shim = match env::var_os("BERTH_TEST_SHIM") {
        Some(given) => PathBuf::from(given),
        None if reference() => in_path(REFERENCE_SHIM)
            .with_context(|| format!("{REFERENCE_SHIM} is not in PATH: install containerd"))?,
        None => built_shim()?,
    };
    if !shim.is_file() {
        bail!("the shim under test, {}, is not a file", shim.display());
    }
    let shim = shim.canonicalize()?;
    Ok(UnderTest { shim, runtime, reference: reference() })
}

/// The newest shim in the target directory that this test executable was built into, or in the workspace's.
fn built_shim() -> Result<PathBuf> {
    let mut folders = Vec::new();
    let exe = env::current_exe().context("finding the test executable")?;
    folders.extend(
        exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).map(Path::to_path_buf),
    );
    folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    for folder in &folders {
        let mut profiles = vec![folder.join("release"), folder.join("debug")];
        for triple in folder.read_dir().into_iter().flatten().flatten() {
            profiles.push(triple.path().join("release"));
        }
        let newest = profiles
            .into_iter()
            .map(|profile| profile.join(BERTH_SHIM))
            .filter_map(|shim| Some((shim.metadata().ok()?.modified().ok()?, shim)))
            .max();
        if let Some((_, shim)) = newest {
            return Ok(shim);
        }
    }
    bail!("{BERTH_SHIM} is not built: run `make build`, or name one with BERTH_TEST_SHIM")
}

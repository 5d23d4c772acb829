//! Which containerd versions there are to test with: the machine's own and those that
//! `scripts/fetch-containerd` unpacked.
//!
//! The first is tested with everything, the others with a smoke set; a version that is not there is
//! a skip with a reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The Debian suites that `scripts/fetch-containerd` fetches.
pub const SUITES: [&str; 3] = ["bookworm", "trixie", "testing"];

/// A containerd that can be run here, with the `ctr` and the Go shim that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// As it says of itself, such as `1.6.20`.
    pub version: String,
    /// Major and minor.
    pub series: (u32, u32),
    /// The folder with `containerd`, `ctr` and `containerd-shim-runc-v2`.
    pub bin: PathBuf,
}

impl Installation {
    /// Looks at the containerd in `bin`.
    ///
    /// # Errors
    /// When there is none, or it does not run on this machine.
    pub fn open(bin: &Path) -> Result<Self> {
        let program = bin.join("containerd");
        let said = Command::new(&program)
            .arg("--version")
            .output()
            .with_context(|| format!("run {} --version", program.display()))?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        // "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3"
        let version = said
            .split_whitespace()
            .nth(2)
            .with_context(|| format!("{}: no version in {said:?}", program.display()))?;
        let version: String = version
            .trim_start_matches('v')
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        let series = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Ok(Self { version, series, bin: bin.to_path_buf() })
    }

    /// The containerd that the machine has installed.
    ///
    /// # Errors
    /// When none is on the PATH.
    pub fn of_the_machine() -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let bin = std::env::split_paths(&path)
            .find(|folder| folder.join("containerd").is_file())
            .context(
            "no containerd on the PATH: install containerd, or run scripts/fetch-containerd",
        )?;
        Self::open(&bin)
    }

    /// Whether testing this one makes testing that of `suite` needless.
    fn stands_for(&self, suite: &str) -> bool {
        match suite {
            "bookworm" => self.series == (1, 6),
            "trixie" => self.series == (1, 7),
            _ => self.series.0 >= 2,
        }
    }

    /// The reference: the Go shim of this version.
    pub fn reference_shim(&self) -> PathBuf {
        self.bin.join("containerd-shim-runc-v2")
    }
}

/// What there is to test with.
pub struct Found {
    /// Different versions, the one that is tested with everything first.
    pub installations: Vec<Installation>,
    /// Suites that are not here, each with the reason.
    pub missing: Vec<(&'static str, String)>,
}

/// Looks for every version once: the machine's own, then each suite's. Of two with the same version
/// the first counts.
pub fn find() -> Found {
    let mut found = Found { installations: Vec::new(), missing: Vec::new() };
    let mut add = |installation: Installation| {
        if !found.installations.iter().any(|other| other.version == installation.version) {
            found.installations.push(installation);
        }
    };
    if let Ok(installation) = Installation::of_the_machine() {
        add(installation);
    }
    let mut missing = Vec::new();
    for suite in SUITES {
        let bin = fetched().join(suite).join("usr/bin");
        if !bin.join("containerd").exists() {
            let reason =
                format!("{suite}'s containerd is not here: scripts/fetch-containerd gets it");
            missing.push((suite, reason));
            continue;
        }
        match Installation::open(&bin) {
            Ok(installation) => add(installation),
            Err(error) => missing.push((suite, format!("{suite}'s containerd: {error:#}"))),
        }
    }
    missing.retain(|(suite, _)| !found.installations.iter().any(|one| one.stands_for(suite)));
    found.missing = missing;
    found
}

/// Where `scripts/fetch-containerd` puts them.
fn fetched() -> PathBuf {
    std::env::var_os("BERTH_CONTAINERD_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/containerd"),
        PathBuf::from,
    )
}

/// The version of the runc in PATH.
///
/// # Errors
/// When there is none, or what it says is no version.
pub fn runc_version() -> Result<[u32; 3]> {
    let output = Command::new("runc").arg("--version").output().context("run runc --version")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = said.strip_prefix("runc version ").and_then(|rest| rest.lines().next());
    let parts: Vec<u32> = number
        .iter()
        .flat_map(|text| text.split(['.', '+', '-', '~']))
        .map_while(|part| part.parse().ok())
        .collect();
    parts
        .get(..3)
        .and_then(|three| three.try_into().ok())
        .with_context(|| format!("no version: {said}"))
}

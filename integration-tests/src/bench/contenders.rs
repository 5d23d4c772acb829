//! Who is compared with whom: the two shims and the OCI runtime that both use. Decides which reference
//! is the newest. Starts neither shim, but for asking its version.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::options::Options;
use crate::under_test::{REFERENCE_SHIM, in_path, under_test};
use crate::versions;

/// The binaries of a run.
#[derive(Debug)]
pub struct Contenders {
    /// Berth's shim.
    pub berth: PathBuf,
    /// containerd-shim-runc-v2.
    pub reference: PathBuf,
    /// The reference's version, for the reader.
    pub reference_version: String,
    /// The runtime's version, for the reader.
    pub runtime_version: String,
}

impl Contenders {
    /// Looks for those that `options` do not name.
    pub fn find(options: &Options) -> Result<Contenders> {
        let berth = match &options.shim {
            Some(named) => named.clone(),
            None => under_test()?.shim.clone(),
        };
        let reference = match &options.reference {
            Some(named) => named.clone(),
            None => newest_reference().or_else(|| in_path(REFERENCE_SHIM)).with_context(|| {
                format!("{REFERENCE_SHIM} is nowhere to be found: install containerd")
            })?,
        };
        let runtime = in_path("runc").context("runc is not in PATH: install it")?;
        Ok(Contenders {
            berth: berth.canonicalize().with_context(|| format!("find {}", berth.display()))?,
            reference_version: field(&said_by(&reference, "-v")?, "Version:"),
            reference: reference.canonicalize()?,
            runtime_version: field(&said_by(&runtime, "--version")?, "version"),
        })
    }

    /// One line that says what was compared with what, on which machine.
    pub fn describe(&self) -> String {
        let cpus = std::thread::available_parallelism().map_or(0, |count| count.get());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        format!(
            "reference: containerd {}; both with runc {}; {cpus} CPUs, Linux {}",
            self.reference_version,
            self.runtime_version,
            kernel.trim()
        )
    }

    /// Size of Berth's shim as a package would install it, in bytes; `None`, with a word to the user, where
    /// it cannot be stripped.
    pub fn stripped_size(&self) -> Option<u64> {
        let size = stripped_size(&self.berth);
        size.inspect_err(|error| eprintln!("the stripped size is left out: {error:#}")).ok()
    }
}

fn stripped_size(binary: &Path) -> Result<u64> {
    let strip = in_path("strip").context("strip is not here (binutils)")?;
    let copy = tempfile::NamedTempFile::new()?;
    let status = Command::new(strip).arg("-o").arg(copy.path()).arg(binary).status()?;
    ensure!(status.success(), "strip of {} failed", binary.display());
    Ok(copy.path().metadata()?.len())
}

/// The shim of the newest containerd that was fetched or is installed.
fn newest_reference() -> Option<PathBuf> {
    let installations = versions::find().installations.into_iter();
    installations
        .filter(|one| one.reference_shim().is_file())
        .max_by_key(|one| numbers(&one.version))
        .map(|one| one.reference_shim())
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|number| number.parse().unwrap_or(0)).collect()
}

fn said_by(program: &Path, flag: &str) -> Result<String> {
    let output = Command::new(program)
        .arg(flag)
        .output()
        .with_context(|| format!("run {} {flag}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The word after `name`, or "unknown".
fn field(text: &str, name: &str) -> String {
    let mut words = text.split_whitespace();
    words.find(|word| *word == name);
    words.next().unwrap_or("unknown").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(numbers("1.10.0") > numbers("1.9.9"));
        assert!(numbers("2.1.9") > numbers("1.7.24"));
    }

    #[test]
    fn versions_are_read_from_what_the_programs_say() {
        let shim = "containerd-shim-runc-v2:\n  Version:  2.1.9~ds1\n  Revision: x\n";
        assert_eq!(field(shim, "Version:"), "2.1.9~ds1");
        assert_eq!(field("runc version 1.1.5+ds1\ncommit: x\n", "version"), "1.1.5+ds1");
        assert_eq!(field("nothing of the kind", "Version:"), "unknown");
    }
}

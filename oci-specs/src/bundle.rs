//! A bundle on disk: where it is, its `config.json` as bytes, and the view of it.
//!
//! Decides what counts as a readable bundle and how a bad one is described. Must not write.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::view::SpecView;

/// Name of the configuration file inside a bundle (OCI runtime-spec, "Filesystem Bundle").
const CONFIG_FILE: &str = "config.json";

/// An OCI bundle whose `config.json` has been read once.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    spec: SpecView,
}

/// Why a bundle could not be read. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file is missing or cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The `config.json` that was tried.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is not the JSON that the runtime specification describes.
    #[error("{path} is not an OCI runtime configuration: {source}", path = path.display())]
    Parse {
        /// The `config.json` that was read.
        path: PathBuf,
        /// Line, column and reason.
        source: serde_json::Error,
    },
}

impl Bundle {
    /// Reads `<path>/config.json`.
    ///
    /// # Errors
    /// [`BundleError`] when the file is missing, unreadable or not a JSON object with fields of
    /// the specified types.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self, BundleError> {
        let path = path.into();
        let config = path.join(CONFIG_FILE);
        let bytes = fs::read(&config)
            .map_err(|source| BundleError::Read { path: config.clone(), source })?;
        let spec = serde_json::from_slice(&bytes)
            .map_err(|source| BundleError::Parse { path: config, source })?;
        Ok(Self { path, spec })
    }

    /// The bundle's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The fields that Berth reads.
    pub fn spec(&self) -> &SpecView {
        &self.spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle_with(config: &str) -> (tempfile::TempDir, Result<Bundle, BundleError>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join(CONFIG_FILE), config).expect("config.json is writable");
        let bundle = Bundle::load(dir.path());
        (dir, bundle)
    }

    #[test]
    fn a_missing_config_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let error = Bundle::load(dir.path()).expect_err("there is no config.json");
        let wanted = dir.path().join(CONFIG_FILE);
        assert!(error.to_string().contains(&*wanted.to_string_lossy()), "{error}");
        assert!(matches!(error, BundleError::Read { .. }));
    }

    #[test]
    fn malformed_json_names_the_file_and_the_place() {
        let (_dir, bundle) = bundle_with("{\"ociVersion\": ");
        let error = bundle.expect_err("half an object").to_string();
        assert!(error.contains(CONFIG_FILE) && error.contains("line 1"), "{error}");
    }

    #[test]
    fn unknown_fields_are_no_error() {
        let (_dir, bundle) = bundle_with(r#"{"ociVersion":"9.9","tomorrow":{"x":[1,2]}}"#);
        assert!(bundle.expect("unknown fields are left alone").spec().annotations.is_empty());
    }
}

//! A bundle on disk: where it is, the view of its `config.json`, and how edits get into the file.
//!
//! Decides what counts as a readable bundle, how a bad one is described, and that the file is replaced
//! in one step or not at all. Must not know what the edits mean.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::edit_error::EditError;
use crate::edits::Edits;
use crate::view::SpecView;

/// Name of the configuration file inside a bundle (OCI runtime-spec, "Filesystem Bundle").
const CONFIG_FILE: &str = "config.json";

/// Name of the file that becomes it. One bundle is never stored to by two at a time, so that a file
/// of this name is what a killed process left.
const TEMPORARY_FILE: &str = ".config.json.berth";

/// An OCI bundle whose `config.json` has been read once.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    spec: SpecView,
}

/// Why a bundle could not be read or changed. Every variant names the file.
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
    /// The edits do not go with what the file says.
    #[error("cannot edit {path}: {source}", path = path.display())]
    Edit {
        /// The `config.json`.
        path: PathBuf,
        /// The field and the reason.
        source: EditError,
    },
    /// The process spec of an exec cannot be edited.
    #[error("cannot edit the process spec of an exec: {source}")]
    Process {
        /// The field and the reason.
        source: EditError,
    },
    /// The resources of an update cannot be read or edited.
    #[error("cannot edit the resources of an update: {source}")]
    Resources {
        /// The field and the reason.
        source: EditError,
    },
    /// The file cannot be replaced.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// The file beside the `config.json`, or the `config.json` itself.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
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
        // Checked for UTF-8 as a whole, which takes half the time of checking each string.
        let text = fs::read_to_string(&config)
            .map_err(|source| BundleError::Read { path: config, source })?;
        Self::parse(path, &text)
    }

    /// The bundle at `path`, whose `config.json` has this text.
    ///
    /// # Errors
    /// [`BundleError`] when it is not a JSON object with fields of the specified types.
    pub fn parse(path: impl Into<PathBuf>, text: &str) -> Result<Self, BundleError> {
        let path = path.into();
        let spec = serde_json::from_str(text)
            .map_err(|source| BundleError::Parse { path: path.join(CONFIG_FILE), source })?;
        Ok(Self { path, spec })
    }

    /// Applies edits to `config.json` as it is on disk now. The file is not written at all when
    /// everything in it is so already; else it is replaced by one with the same owner and mode.
    /// Not synced: containerd makes the bundle anew after a power cut. [`Bundle::spec`] stays as it
    /// was loaded.
    ///
    /// # Errors
    /// [`BundleError`]; the file is as it was then.
    pub fn store(&self, edits: &Edits) -> Result<(), BundleError> {
        if edits.is_empty() {
            return Ok(());
        }
        let path = self.path.join(CONFIG_FILE);
        let (bytes, metadata) =
            read(&path).map_err(|source| BundleError::Read { path: path.clone(), source })?;
        match edits.apply(&bytes) {
            Ok(Cow::Borrowed(_)) => Ok(()),
            Ok(Cow::Owned(bytes)) => {
                let temporary = self.path.join(TEMPORARY_FILE);
                let written = write(&temporary, &bytes, &metadata)
                    .and_then(|()| fs::rename(&temporary, &path));
                written.map_err(|source| {
                    // Nothing reads it, and the bundle is removed with all that is in it.
                    let _ = fs::remove_file(&temporary);
                    BundleError::Write { path, source }
                })
            }
            Err(source) => Err(BundleError::Edit { path, source }),
        }
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

fn read(path: &Path) -> io::Result<(Vec<u8>, fs::Metadata)> {
    let mut file = fs::File::open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((bytes, metadata))
}

/// Makes a file with the owner and mode of another.
fn write(path: &Path, bytes: &[u8], like: &fs::Metadata) -> io::Result<()> {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
        fchown(&file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Edits {
        Edits { env: vec![("GRANT".into(), "g-1".into())], ..Edits::default() }
    }

    fn listing(bundle: &Bundle) -> Vec<String> {
        let entries = fs::read_dir(bundle.path()).expect("the bundle is there");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

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
    fn bytes_that_are_no_text_are_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join(CONFIG_FILE), b"{\"x\":\"\xff\"}").expect("it is writable");
        let error = Bundle::load(dir.path()).expect_err("no UTF-8").to_string();
        assert!(error.contains(CONFIG_FILE) && error.contains("UTF-8"), "{error}");
    }

    #[test]
    fn unknown_fields_are_no_error() {
        let (_dir, bundle) = bundle_with(r#"{"ociVersion":"9.9","tomorrow":{"x":[1,2]}}"#);
        assert!(bundle.expect("unknown fields are left alone").spec().annotations.is_empty());
    }

    #[test]
    fn edits_replace_the_file_and_keep_its_mode_and_owner() {
        let (_dir, bundle) = bundle_with(r#"{"process":{"cwd":"/"},"x":1e21}"#);
        let bundle = bundle.expect("a readable bundle");
        let config = bundle.path().join(CONFIG_FILE);
        fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).expect("it is ours");
        let is_root = fs::metadata(&config).expect("it is there").uid() == 0;
        if is_root {
            std::os::unix::fs::chown(&config, Some(12), Some(34)).expect("root may");
        }
        let before = fs::metadata(&config).expect("it is there");
        fs::write(bundle.path().join(TEMPORARY_FILE), "of a killed shim").expect("writable");
        bundle.store(&grant()).expect("the edits apply");
        let after = fs::metadata(&config).expect("it is there");
        assert_ne!(before.ino(), after.ino(), "replaced, not written over");
        assert_eq!((before.mode(), before.uid()), (after.mode(), after.uid()));
        assert_eq!(before.gid(), after.gid());
        let text = fs::read_to_string(&config).expect("it is there");
        assert_eq!(text, r#"{"process":{"cwd":"/","env":["GRANT=g-1"]},"x":1e21}"#);
        assert_eq!(listing(&bundle), [CONFIG_FILE]);
    }

    #[test]
    fn a_file_that_says_it_all_already_is_not_written() {
        let (_dir, bundle) = bundle_with(r#"{ "process" : {"env":["GRANT=g-1"]} }"#);
        let bundle = bundle.expect("a readable bundle");
        let inode = || fs::metadata(bundle.path().join(CONFIG_FILE)).expect("it is there").ino();
        let before = inode();
        bundle.store(&grant()).expect("nothing to do");
        bundle.store(&Edits::default()).expect("nothing to do");
        assert_eq!(before, inode());
    }

    #[test]
    fn edits_that_do_not_apply_leave_the_file_and_name_it_and_the_field() {
        let (_dir, bundle) = bundle_with("{}");
        let bundle = bundle.expect("a readable bundle");
        let config = bundle.path().join(CONFIG_FILE);
        let broken = r#"{"process":{"env":"A=1"}}"#;
        fs::write(&config, broken).expect("writable");
        let error = bundle.store(&grant()).expect_err("not a list").to_string();
        assert!(error.contains(&*config.to_string_lossy()), "{error}");
        assert!(error.contains("process.env"), "{error}");
        assert_eq!(fs::read_to_string(&config).expect("it is there"), broken);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_and_nothing_is_left() {
        let (_dir, bundle) = bundle_with("{}");
        let bundle = bundle.expect("a readable bundle");
        // Not even root can remove a directory as if it were a file.
        fs::create_dir(bundle.path().join(TEMPORARY_FILE)).expect("a new directory");
        let error = bundle.store(&grant()).expect_err("the place is taken").to_string();
        assert!(error.starts_with("cannot write ") && error.contains(CONFIG_FILE), "{error}");
        let text = fs::read_to_string(bundle.path().join(CONFIG_FILE)).expect("it is there");
        assert_eq!(text, "{}");
    }
}

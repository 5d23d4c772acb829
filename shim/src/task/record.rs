//! What must be known about a container when its shim is dead: a small file in its bundle.
//!
//! The `delete` command gets no options from containerd and runs without the shim. Decides what is
//! remembered. Must not act on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::options::RuntimeOptions;
use engine::config::Dialect;

/// The file's name. Read by the same or a newer version of the shim.
const FILE: &str = "berth.json";

/// How to clean up after a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The container's id.
    pub id: String,
    /// The OCI runtime.
    pub runtime: String,
    /// Its state directory, without the containerd namespace.
    pub root: PathBuf,
    /// Whether systemd makes the cgroups.
    pub systemd_cgroup: bool,
    /// The group (pod) whose shim serves the container.
    pub group: String,
    /// `linux.cgroupsPath`.
    pub cgroups_path: String,
    /// What `start` answered: with version 3, containerd cleans up after the sandbox alone.
    pub bootstrap: Dialect,
}

impl Record {
    /// The record of a container that is about to be made.
    pub fn new(
        id: &str,
        options: &RuntimeOptions,
        bootstrap: Dialect,
        group: &str,
        cgroups_path: &str,
    ) -> Self {
        Self {
            id: id.to_owned(),
            runtime: options.binary.clone(),
            root: options.root.clone(),
            systemd_cgroup: options.systemd_cgroup,
            group: group.to_owned(),
            cgroups_path: cgroups_path.to_owned(),
            bootstrap,
        }
    }

    /// Where the record of a bundle is.
    pub fn path(bundle: &Path) -> PathBuf {
        bundle.join(FILE)
    }

    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// What the kernel said; nothing is left then.
    pub fn write(&self, bundle: &Path) -> io::Result<()> {
        let path = Self::path(bundle);
        let temp = path.with_extension("json.new");
        // No fsync: a bundle does not outlive the boot.
        let written = serde_json::to_vec(self)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::write(&temp, bytes))
            .and_then(|()| fs::rename(&temp, &path));
        if written.is_err() {
            let _ = fs::remove_file(&temp);
        }
        written
    }

    /// Reads the record; `None` when the container was never about to be made.
    ///
    /// # Errors
    /// What the kernel or the decoder said.
    pub fn read(bundle: &Path) -> io::Result<Option<Self>> {
        match fs::read(Self::path(bundle)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_disk_and_a_newer_version() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(Record::read(dir.path()).expect("absent is fine"), None);
        let record = Record { runtime: "crun".into(), group: "g".into(), ..Record::default() };
        record.write(dir.path()).expect("writable");
        assert_eq!(Record::read(dir.path()).expect("readable"), Some(record.clone()));
        fs::write(Record::path(dir.path()), r#"{"runtime":"crun","group":"g","new":1}"#)
            .expect("writable");
        assert_eq!(Record::read(dir.path()).expect("readable"), Some(record));
        fs::write(Record::path(dir.path()), "{").expect("writable");
        assert!(Record::read(dir.path()).is_err());
    }
}

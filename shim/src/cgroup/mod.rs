//! A container's cgroup: where it is, who is in it, what it has used.
//!
//! Decides, from the init's `/proc/<pid>/cgroup`, which directories belong to the container on a
//! legacy, hybrid or unified host. Reads only; making and removing cgroups is the OCI runtime's work.

mod files;
mod hierarchy;
mod oom;
mod sweep;
mod v1;
mod v2;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;

pub use hierarchy::{Hierarchies, roots};
pub use oom::OomWatch;
pub use sweep::sweep;

/// The directories of one container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroup {
    /// One directory per controller (cgroup v1, also the v1 side of a hybrid host).
    V1(v1::Directories),
    /// One directory (cgroup v2).
    V2(PathBuf),
}

impl Cgroup {
    /// The cgroup that `pid` is in.
    ///
    /// # Errors
    /// ENOENT when the process is gone; `InvalidData` when no hierarchy of the host matches.
    pub fn of_process(pid: i32, hierarchies: &Hierarchies) -> io::Result<Self> {
        let membership = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        hierarchies.locate(&membership).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("no mounted cgroup hierarchy holds process {pid}"),
            )
        })
    }

    /// Every process in the cgroup and in those below it, in ascending order.
    ///
    /// # Errors
    /// ENOENT when the cgroup is gone.
    pub fn processes(&self) -> io::Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        collect_processes(self.membership_dir()?, &mut found)?;
        Ok(found)
    }

    /// The directory that tells who is in it.
    pub fn place(&self) -> Option<PathBuf> {
        self.membership_dir().ok().map(Path::to_owned)
    }

    /// Whether the container is frozen in a way that keeps even SIGKILL waiting (v1 only).
    pub fn is_frozen_v1(&self) -> bool {
        match self {
            Self::V1(directories) => directories.get("freezer").is_some_and(|dir| {
                fs::read_to_string(dir.join("freezer.state"))
                    .is_ok_and(|state| state.trim() != "THAWED")
            }),
            Self::V2(_) => false,
        }
    }

    /// Usage so far, as the metrics message of the host's cgroup version.
    pub fn metrics(&self) -> Any {
        let (kind, bytes) = match self {
            Self::V1(dirs) => {
                ("io.containerd.cgroups.v1.Metrics", v1::metrics(dirs).write_to_bytes())
            }
            Self::V2(dir) => {
                ("io.containerd.cgroups.v2.Metrics", v2::metrics(dir).write_to_bytes())
            }
        };
        // Encoding into memory fails only for unset required fields, which proto3 does not have.
        Any { type_url: kind.into(), value: bytes.unwrap_or_default(), ..Any::default() }
    }

    /// Reports out-of-memory kills from now on; `None` where the memory controller is not in use.
    ///
    /// # Errors
    /// What the kernel said to opening or registering.
    pub fn watch_oom(&self) -> io::Result<Option<OomWatch>> {
        match self {
            Self::V1(directories) => directories.get("memory").map(OomWatch::v1).transpose(),
            Self::V2(directory) => OomWatch::v2(directory).map(Some),
        }
    }

    /// A directory whose `cgroup.procs` lists the container's processes.
    fn membership_dir(&self) -> io::Result<&Path> {
        match self {
            Self::V1(directories) => {
                directories.any().ok_or_else(|| io::ErrorKind::NotFound.into())
            }
            Self::V2(directory) => Ok(directory),
        }
    }
}

fn collect_processes(dir: &Path, found: &mut BTreeSet<u32>) -> io::Result<()> {
    let listed = fs::read_to_string(dir.join("cgroup.procs"))?;
    found.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            match collect_processes(&entry.path(), found) {
                // A child cgroup may go while it is being read; a threaded one (v2) lists threads only,
                // and their processes are listed above it.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        || error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_nested_cgroups_are_counted() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let nested = root.path().join("a/b");
        fs::create_dir_all(&nested).expect("writable");
        fs::write(root.path().join("cgroup.procs"), "12\n3\n").expect("writable");
        fs::write(root.path().join("a/cgroup.procs"), "").expect("writable");
        fs::write(nested.join("cgroup.procs"), "7\n").expect("writable");
        let cgroup = Cgroup::V2(root.path().to_owned());
        assert_eq!(cgroup.processes().expect("readable"), BTreeSet::from([3, 7, 12]));
    }

    #[test]
    fn a_cgroup_that_is_gone_is_an_error() {
        let cgroup = Cgroup::V2("/nonexistent/cgroup".into());
        assert_eq!(cgroup.processes().expect_err("gone").kind(), io::ErrorKind::NotFound);
    }
}

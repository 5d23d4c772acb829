//! Where the machine's things are.
//!
//! Decides how a path of the host becomes a path of this process: everything that is read of the node goes through a configurable root.

use std::path::{Component, Path, PathBuf};

use crate::error::DeviceError;
use crate::keep;

/// The machine, and where Berth keeps its own things on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its root directory; `/` unless it is simulated.
    pub root: PathBuf,
    /// Root of the driver's files, inside `root`; `/run/nvidia/driver` with a driver container.
    pub driver_root: PathBuf,
    /// NVML: a name for the loader or a path.
    pub nvml: PathBuf,
    /// What dies with the boot: `/run/berth`.
    pub run: PathBuf,
    /// What outlives it: `/var/lib/berth`.
    pub state: PathBuf,
}

impl Host {
    /// Where this process finds the host's `absolute` path. `..` is not followed: the result is always below the root.
    pub fn path(&self, absolute: &str) -> PathBuf {
        below(&self.root, Path::new(absolute))
    }

    /// Root of the driver's files as this process finds it.
    pub fn driver_path(&self) -> PathBuf {
        below(&self.root, &self.driver_root)
    }

    /// The kernel's name for this boot.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn boot_id(&self) -> Result<String, DeviceError> {
        let path = self.path("/proc/sys/kernel/random/boot_id");
        let text = keep::read_text(&path)?;
        let id = text.trim();
        // It becomes the name of a directory.
        let plain = id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if id.is_empty() || id.len() > 64 || !plain {
            let how = format!("holds {id:?}, which is no boot id: is /proc mounted?");
            return Err(DeviceError::Malformed { path, how });
        }
        Ok(id.to_owned())
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    let normal = path.components().filter(|part| matches!(part, Component::Normal(_)));
    root.components().chain(normal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn host(root: &Path) -> Host {
        Host {
            root: root.into(),
            driver_root: "/run/nvidia/driver".into(),
            nvml: "libnvidia-ml.so.1".into(),
            run: root.join("run/berth"),
            state: root.join("var/lib/berth"),
        }
    }

    #[test]
    fn a_path_never_leaves_the_root() {
        let host = host(Path::new("/srv/node"));
        for (path, found) in [
            ("/dev/nvidia0", "/srv/node/dev/nvidia0"),
            ("dev//nvidia0", "/srv/node/dev/nvidia0"),
            ("/../../etc/shadow", "/srv/node/etc/shadow"),
            ("/", "/srv/node"),
        ] {
            assert_eq!(host.path(path), Path::new(found), "{path}");
        }
        assert_eq!(host.driver_path(), Path::new("/srv/node/run/nvidia/driver"));
        assert_eq!(below(Path::new("/"), Path::new("/dev")), Path::new("/dev"));
    }

    #[test]
    fn a_boot_id_is_read_and_nothing_else_is_taken_for_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let host = host(dir.path());
        assert!(host.boot_id().expect_err("no file").to_string().contains("boot_id"));
        let random = dir.path().join("proc/sys/kernel/random");
        fs::create_dir_all(&random).expect("made");
        fs::write(random.join("boot_id"), "6f0c1c3e-93c5-4b3a-8a52-0a3b1f3c5d7e\n").expect("made");
        assert_eq!(host.boot_id().expect("an id"), "6f0c1c3e-93c5-4b3a-8a52-0a3b1f3c5d7e");
        for bad in ["", "\n", "../../etc", "a/b"] {
            fs::write(random.join("boot_id"), bad).expect("made");
            assert!(host.boot_id().is_err(), "{bad:?}");
        }
    }
}

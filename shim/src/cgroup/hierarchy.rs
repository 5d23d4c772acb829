//! The cgroup hierarchies of the host: which controllers are mounted where.
//!
//! Decides how a line of `/proc/<pid>/cgroup` becomes a directory (cgroups(7)). Must not read usage.

use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::Cgroup;
use super::v1::Directories;

/// Where the hierarchies are mounted on every current distribution.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// Whether the host is in unified mode: cgroup v2 at `/sys/fs/cgroup` itself.
fn is_unified() -> bool {
    statfs(MOUNT_POINT).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// The root directory of every hierarchy, where they are mounted by convention.
pub fn roots() -> Vec<PathBuf> {
    let root = PathBuf::from(MOUNT_POINT);
    if is_unified() {
        return vec![root];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    // Joined controllers also have links to their one directory.
    entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect()
}

/// One mounted v1 hierarchy.
#[derive(Debug)]
struct Mount {
    /// Controllers, or `name=…` for a named hierarchy.
    controllers: Vec<String>,
    /// What of the hierarchy is mounted; `/` outside containers.
    root: PathBuf,
    mount_point: PathBuf,
}

/// The hierarchies of the host, read once.
#[derive(Debug)]
pub enum Hierarchies {
    /// cgroup v2 alone.
    Unified(PathBuf),
    /// v1, with or without a v2 side.
    Legacy(LegacyMounts),
}

/// The v1 mounts.
#[derive(Debug)]
pub struct LegacyMounts(Vec<Mount>);

impl Hierarchies {
    /// Reads the host's mounts.
    ///
    /// # Errors
    /// What the kernel said to reading `/proc/self/mountinfo`.
    pub fn read() -> io::Result<Self> {
        if is_unified() {
            return Ok(Self::Unified(MOUNT_POINT.into()));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(Self::Legacy(LegacyMounts(mounts.lines().filter_map(Mount::parse).collect())))
    }

    /// The cgroup that the text of `/proc/<pid>/cgroup` describes.
    pub fn locate(&self, membership: &str) -> Option<Cgroup> {
        let lines = membership.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            Some((parts.next()?, parts.next()?, parts.next()?))
        });
        match self {
            Self::Unified(mount_point) => {
                let (.., path) = lines.into_iter().find(|(id, ..)| *id == "0")?;
                Some(Cgroup::V2(mount_point.join(path.trim_start_matches('/'))))
            }
            Self::Legacy(LegacyMounts(mounts)) => {
                let mut directories = Directories::default();
                for (_, controllers, path) in lines {
                    for controller in controllers.split(',').filter(|name| !name.is_empty()) {
                        if let Some(dir) = mounts.iter().find_map(|m| m.resolve(controller, path)) {
                            directories.insert(controller, dir);
                        }
                    }
                }
                (!directories.is_empty()).then_some(Cgroup::V1(directories))
            }
        }
    }
}

impl Mount {
    /// Parses a line of mountinfo (proc_pid_mountinfo(5)); `None` unless it is a v1 hierarchy.
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, mount_point) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let (kind, _source, options) = (after.next()?, after.next()?, after.next()?);
        (kind == "cgroup").then(|| Self {
            controllers: options.split(',').map(str::to_owned).collect(),
            root: root.into(),
            mount_point: mount_point.into(),
        })
    }

    fn resolve(&self, controller: &str, path: &str) -> Option<PathBuf> {
        if !self.controllers.iter().any(|name| name == controller) {
            return None;
        }
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        Some(self.mount_point.join(below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";

    fn legacy() -> Hierarchies {
        Hierarchies::Legacy(LegacyMounts(MOUNTS.lines().filter_map(Mount::parse).collect()))
    }

    #[test]
    fn joined_controllers_share_a_directory() {
        let cgroup = legacy().locate("4:cpu,cpuacct:/pod/c\n0::/\n").expect("mounted");
        let Cgroup::V1(dirs) = cgroup else { panic!("a v1 cgroup") };
        let wanted = Path::new("/sys/fs/cgroup/cpu,cpuacct/pod/c");
        assert_eq!((dirs.get("cpu"), dirs.get("cpuacct")), (Some(wanted), Some(wanted)));
        assert_eq!(dirs.get("pids"), None);
    }

    #[test]
    fn a_bind_mounted_hierarchy_is_entered_at_its_root() {
        let cgroup = legacy().locate("5:memory:/docker/x/pod/c\n").expect("mounted");
        let Cgroup::V1(dirs) = cgroup else { panic!("a v1 cgroup") };
        assert_eq!(dirs.get("memory"), Some(Path::new("/sys/fs/cgroup/memory/pod/c")));
        assert_eq!(legacy().locate("5:memory:/elsewhere\n"), None);
    }

    #[test]
    fn a_unified_host_has_one_directory() {
        let unified = Hierarchies::Unified("/sys/fs/cgroup".into());
        let cgroup = unified.locate("0::/system.slice/c.scope\n");
        assert_eq!(cgroup, Some(Cgroup::V2("/sys/fs/cgroup/system.slice/c.scope".into())));
        assert_eq!(unified.locate(""), None);
    }

    #[test]
    fn our_own_process_is_found_on_this_host() {
        let hierarchies = Hierarchies::read().expect("mountinfo is readable");
        let pid = std::process::id().cast_signed();
        let cgroup = Cgroup::of_process(pid, &hierarchies).expect("every process has a cgroup");
        assert!(cgroup.processes().expect("readable").contains(&pid.cast_unsigned()));
    }
}

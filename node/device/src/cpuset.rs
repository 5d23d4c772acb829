//! What CPUs and memory a container's cgroup can give, by the cgroup that it will be made in.
//!
//! Decides which cgroup that is, from `linux.cgroupsPath` alone: the nearest that exists already. Read from the kernel that runs the
//! containers, whatever host is simulated. Must not write.
//! Source: cgroup-v2.rst, "Cpuset Interface Files"; cpuset(7); systemd.slice(5) for how slices nest.

use std::fs;
use std::path::{Path, PathBuf};

use plan::{CpuSet, NodeSet};

/// Where hierarchies are mounted by convention.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// What a cgroup can give; `None` where the kernel does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// CPUs.
    pub cpus: Option<CpuSet>,
    /// Memory nodes.
    pub memory: Option<NodeSet>,
}

/// What the cgroup can give in which a container with this `linux.cgroupsPath` is going to be made.
pub fn allowed(cgroups_path: &str) -> Allowed {
    let mount = Path::new(MOUNT_POINT);
    let v1 = mount.join("cpuset");
    let root = if v1.is_dir() { v1.as_path() } else { mount };
    let mut allowed = below(root, &parent(cgroups_path));
    if allowed.cpus.is_none() {
        allowed.cpus = list(Path::new("/sys/devices/system/cpu/online"));
    }
    if allowed.memory.is_none() {
        allowed.memory = list(Path::new("/sys/devices/system/node/has_memory"));
    }
    allowed
}

/// By the files of the deepest cgroup on the way that has them. Not yet made ones become what those above them are.
fn below(root: &Path, parent: &Path) -> Allowed {
    let read = |names: &[&str]| {
        let folders = parent.ancestors().map(|part| root.join(part));
        let files = folders.flat_map(|folder| names.iter().map(move |name| folder.join(name)));
        files.filter_map(|file| list(&file)).find(|set| !set.is_empty())
    };
    Allowed {
        cpus: read(&["cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"]),
        memory: read(&["cpuset.mems.effective", "cpuset.effective_mems", "cpuset.mems"]),
    }
}

/// The cgroup above the container's, relative to the hierarchy's root: that of a path, or of systemd's `slice:prefix:name`.
fn parent(cgroups_path: &str) -> PathBuf {
    let mut parts = cgroups_path.split(':');
    if let (Some(slice), Some(_), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    {
        return slices(if slice.is_empty() { "system.slice" } else { slice });
    }
    let path = Path::new(cgroups_path.trim_start_matches('/'));
    let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    path.parent().filter(|_| plain).map(Path::to_owned).unwrap_or_default()
}

/// `a-b.slice` lies in `a.slice`.
fn slices(slice: &str) -> PathBuf {
    // `-.slice` is the root.
    let name = slice.strip_suffix(".slice").filter(|name| *name != "-");
    let Some(name) = name else { return PathBuf::new() };
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    ends.filter(|end| *end > 0).map(|end| format!("{}.slice", &name[..end])).collect()
}

fn list(file: &Path) -> Option<CpuSet> {
    fs::read_to_string(file).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_above_is_told_by_the_path() {
        for (path, above) in [
            ("/default/c", "default"),
            ("/kubepods/burstable/podx/c", "kubepods/burstable/podx"),
            ("c", ""),
            ("", ""),
            ("/../../etc/c", ""),
            ("system.slice:docker:c", "system.slice"),
            (
                "kubepods-burstable-podx.slice:cri-containerd:c",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice",
            ),
            (":cri-containerd:c", "system.slice"),
            ("-.slice:x:c", ""),
        ] {
            assert_eq!(parent(path), Path::new(above), "{path}");
        }
    }

    #[test]
    fn the_deepest_cgroup_that_says_something_counts() {
        let root = tempfile::tempdir().expect("a directory");
        let pod = root.path().join("kubepods/pod");
        fs::create_dir_all(&pod).expect("made");
        let write =
            |path: &str, text: &str| fs::write(root.path().join(path), text).expect("written");
        write("cpuset.cpus.effective", "0-7\n");
        write("cpuset.mems.effective", "0-1\n");
        write("kubepods/cpuset.cpus.effective", "0-3\n");
        // A cpuset of v1 that nobody has filled yet.
        write("kubepods/pod/cpuset.cpus", "\n");
        let seen = below(root.path(), Path::new("kubepods/pod/not-yet"));
        let set = |text: &str| Some(text.parse().expect("a list"));
        assert_eq!(seen, Allowed { cpus: set("0-3"), memory: set("0-1") });
        assert_eq!(below(Path::new("/nonexistent"), Path::new("a")), Allowed::default());
    }

    #[test]
    fn this_machine_says_what_it_can_give() {
        let cpus = allowed("/nobody/c").cpus.expect("every kernel says");
        let online = list(Path::new("/sys/devices/system/cpu/online")).expect("every kernel says");
        assert!(!cpus.is_empty() && cpus.is_within(&online), "{cpus} of {online}");
    }
}

//! Containers that have GPUs of ours, by what the kernel says: whose mount namespace has a tree of ours at `/proc/driver`.
//!
//! Decides by the kernel's list of mounts, which nothing in a container can write, and by our own trees. For when the ledger cannot be asked. Must
//! not know what a container may have.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use plan::PciAddress;

use crate::error::{DeviceError, file};
use crate::nvidia::nodes::MigDevice;
use crate::{Host, keep};

/// A container with a tree of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Living {
    /// Its first process.
    pub pid: u32,
    /// The GPUs that it is shown, those of its MIG devices among them.
    pub gpus: Vec<PciAddress>,
    /// Its MIG devices.
    pub migs: Vec<MigDevice>,
    /// Its bundle, where its shim still lives: `<…>/<containerd's namespace>/<id>`.
    pub bundle: Option<PathBuf>,
}

/// Every container that has one, by the PID of its first process.
///
/// # Errors
/// When `/proc` or a tree of ours cannot be read.
pub fn living(host: &Host) -> Result<Vec<Living>, DeviceError> {
    let trees = keep::boot_dir(host)?.join("proc");
    let mut first: BTreeMap<PathBuf, (u64, u32, String)> = BTreeMap::new();
    for pid in keep::names(Path::new("/proc"))?.iter().filter_map(|name| name.parse().ok()) {
        let Some(found) = look(&trees, pid)? else { continue };
        let (namespace, started, tree) = found;
        let known = first.get(&namespace).is_none_or(|(before, _, _)| started < *before);
        if known {
            first.insert(namespace, (started, pid, tree));
        }
    }
    let mut all = Vec::new();
    for (_, pid, tree) in first.into_values() {
        let shown = trees.join(tree).join("nvidia");
        let gpus = keep::names(&shown.join("gpus"))?;
        all.push(Living {
            pid,
            gpus: gpus.iter().filter_map(|name| name.parse().ok()).collect(),
            migs: migs(&shown)?,
            bundle: bundle(pid),
        });
    }
    all.sort_by_key(|one| one.pid);
    Ok(all)
}

/// Mount namespace and start of a process in whose namespace one of these trees is mounted, and which tree. A process that ends meanwhile has none.
fn look(trees: &Path, pid: u32) -> Result<Option<(PathBuf, u64, String)>, DeviceError> {
    let path = PathBuf::from(format!("/proc/{pid}/mountinfo"));
    let mounts = match fs::read_to_string(&path) {
        Ok(mounts) => mounts,
        // EINVAL: a zombie has no mounts.
        Err(error) if is_over(&error) => return Ok(None),
        Err(error) => return Err(file("read", &path)(error)),
    };
    let Some(tree) = mounts.lines().rev().find_map(|line| tree_of(trees, line)) else {
        return Ok(None);
    };
    let (Ok(namespace), Some(started)) =
        (fs::read_link(format!("/proc/{pid}/ns/mnt")), field(pid, 22))
    else {
        return Ok(None);
    };
    Ok(Some((namespace, started, tree)))
}

fn is_over(error: &io::Error) -> bool {
    let gone = [Some(libc::ESRCH), Some(libc::EINVAL)].contains(&error.raw_os_error());
    gone || keep::is_absent(error)
}

/// The tree of ours that a line of mountinfo puts onto `/proc/driver` (proc(5): root within the file system, then mount point).
fn tree_of(trees: &Path, line: &str) -> Option<String> {
    let mut fields = line.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let root = match point {
        "/proc/driver/nvidia" => root.strip_suffix("/nvidia")?,
        "/proc/driver" => root,
        _ => return None,
    };
    let (above, name) = root.rsplit_once('/')?;
    // Within its file system the folder need not have the path that it has here; but the boot's name, and what is in it.
    let boot = trees.parent()?.file_name()?.to_str()?;
    let ours = above.ends_with(&format!("/{boot}/proc")) && trees.join(name).is_dir();
    ours.then(|| name.to_owned())
}

/// A numeric field of `/proc/<pid>/stat`, as proc(5) counts them; those after the command's name.
fn field(pid: u32, number: usize) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn migs(shown: &Path) -> Result<Vec<MigDevice>, DeviceError> {
    let numbers = |dir: &Path, before: &str| -> Result<Vec<u32>, DeviceError> {
        let names = keep::names(dir)?;
        Ok(names.iter().filter_map(|name| name.strip_prefix(before)?.parse().ok()).collect())
    };
    let mut found = Vec::new();
    let capabilities = shown.join("capabilities");
    for gpu in numbers(&capabilities, "gpu")? {
        let instances = capabilities.join(format!("gpu{gpu}/mig"));
        for gpu_instance in numbers(&instances, "gi")? {
            let below = instances.join(format!("gi{gpu_instance}"));
            for compute_instance in numbers(&below, "ci")? {
                found.push(MigDevice { gpu, gpu_instance, compute_instance });
            }
        }
    }
    Ok(found)
}

/// The bundle of a container: its shim is the parent of its first process and works in a bundle beside it; the one that names this process is it.
fn bundle(pid: u32) -> Option<PathBuf> {
    let parent = field(pid, 4)?;
    let own = fs::read_link(format!("/proc/{parent}/cwd")).ok()?;
    let beside = own.parent()?;
    let names = keep::names(beside).ok()?;
    let is_it = |bundle: &PathBuf| {
        let text = fs::read_to_string(bundle.join("init.pid")).unwrap_or_default();
        text.trim() == pid.to_string()
    };
    names.iter().map(|name| beside.join(name)).find(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_ours_is_told_from_every_other_mount() {
        let folder = tempfile::tempdir().expect("a folder");
        let trees = folder.path().join("berth/boot-1/proc");
        fs::create_dir_all(trees.join("abc")).expect("made");
        let of = |root: &str, point: &str| {
            tree_of(&trees, &format!("36 35 98:0 {root} {point} ro,nosuid - tmpfs tmpfs rw"))
        };
        let abc = Some("abc".to_owned());
        assert_eq!(of("/berth/boot-1/proc/abc/nvidia", "/proc/driver/nvidia"), abc);
        assert_eq!(of("/berth/boot-1/proc/abc", "/proc/driver"), abc);
        for (root, point) in [
            ("/berth/boot-1/proc/abc", "/proc/driver/nvidia"),
            ("/berth/boot-1/proc/abc/nvidia", "/mnt"),
            ("/berth/boot-2/proc/abc/nvidia", "/proc/driver/nvidia"),
            ("/berth/boot-1/proc/gone/nvidia", "/proc/driver/nvidia"),
            ("/", "/proc/driver"),
        ] {
            assert_eq!(of(root, point), None, "{root} on {point}");
        }
    }

    #[test]
    fn what_a_tree_shows_is_what_was_given() {
        let folder = tempfile::tempdir().expect("a folder");
        for below in ["gpu2/mig/gi3/ci0", "gpu2/mig/gi3/ci1", "gpu5/mig/gi7/ci0"] {
            fs::create_dir_all(folder.path().join("capabilities").join(below)).expect("made");
        }
        let found = migs(folder.path()).expect("read");
        let found = found.iter().map(|one| (one.gpu, one.gpu_instance, one.compute_instance));
        assert_eq!(found.collect::<Vec<_>>(), [(2, 3, 0), (2, 3, 1), (5, 7, 0)]);
    }

    #[test]
    fn this_process_is_no_such_container() {
        assert_eq!(
            field(std::process::id(), 4),
            Some(u64::from(std::os::unix::process::parent_id()))
        );
        let fake = crate::nvidia::fake::Fake::new();
        assert_eq!(living(&fake.host).expect("looks"), []);
    }
}

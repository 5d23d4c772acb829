//! Containers that have GPUs of ours, by what the kernel says: whose mount namespace has a tree of ours at `/proc/driver`.
//!
//! Decides by the kernel's lists of mounts and processes, of which a container writes no more than names, and by our own trees. For when the
//! ledger cannot be asked. Must not know what a container may have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plan::PciAddress;

use crate::error::DeviceError;
use crate::nvidia::nodes::MigDevice;
use crate::{Host, keep};

use mounts::{Processes, Trees};

mod mounts;

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

/// Every container that has one, by the PID of its first process. What runs in a mount namespace of its own within such a container is of it.
///
/// # Errors
/// When `/proc` or a tree of ours cannot be read.
pub fn living(host: &Host) -> Result<Vec<Living>, DeviceError> {
    match Trees::of(&keep::boot_dir(host)?.join("proc"))? {
        Some(trees) => among(&Processes("/proc".into()), &trees),
        None => Ok(Vec::new()),
    }
}

fn among(processes: &Processes, trees: &Trees) -> Result<Vec<Living>, DeviceError> {
    let mut first: BTreeMap<PathBuf, (u64, u32, String)> = BTreeMap::new();
    for pid in processes.all()? {
        let Some(tree) = processes.tree(pid, trees)? else { continue };
        let namespace = processes.namespace(&pid.to_string());
        let (Some(namespace), Some(started)) = (namespace, processes.started(pid)) else {
            continue;
        };
        let is_first = first.get(&namespace).is_none_or(|(before, _, _)| started < *before);
        if is_first {
            first.insert(namespace, (started, pid, tree));
        }
    }
    let own = processes.namespace("self");
    let mut all = Vec::new();
    for (namespace, (_, pid, tree)) in &first {
        // Every shim descends from what is in our own.
        let is_outer = |other: &PathBuf| {
            other != namespace && Some(other) != own.as_ref() && first.contains_key(other)
        };
        if above(processes, *pid).any(|namespace| is_outer(&namespace)) {
            continue;
        }
        let shown = trees.shown(tree);
        let gpus = keep::names(&shown.join("gpus"))?;
        all.push(Living {
            pid: *pid,
            gpus: gpus.iter().filter_map(|name| name.parse().ok()).collect(),
            migs: migs(&shown)?,
            bundle: own.as_deref().and_then(|own| bundle(processes, own, *pid)),
        });
    }
    all.sort_by_key(|one| one.pid);
    Ok(all)
}

/// The mount namespaces of those that a process descends from.
fn above(processes: &Processes, pid: u32) -> impl Iterator<Item = PathBuf> {
    // No more than there can be PIDs, should numbers be given anew meanwhile.
    let ancestors = std::iter::successors(processes.parent(pid), |pid| processes.parent(*pid));
    ancestors.take(1 << 22).filter_map(|pid| processes.namespace(&pid.to_string()))
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
/// A parent that does not see the files that we see is no shim, and its working directory is none of ours.
fn bundle(processes: &Processes, own: &Path, pid: u32) -> Option<PathBuf> {
    let parent = processes.parent(pid)?;
    let cwd = processes.cwd(parent)?;
    if processes.namespace(&parent.to_string())? != own {
        return None;
    }
    let beside = cwd.parent()?;
    let names = keep::names(beside).ok()?;
    names.iter().map(|name| beside.join(name)).find(|bundle| init_pid(bundle) == Some(pid))
}

/// The first process of a bundle's container, as its shim wrote it down.
pub fn init_pid(bundle: &Path) -> Option<u32> {
    let bytes = keep::read_of_root(&bundle.join("init.pid"), 32).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A `/proc` of these processes: PID, parent, mount namespace, and whether our tree is there.
    fn processes(at: &Path, mount: &str, all: &[(u32, u32, &str, bool)]) -> Processes {
        fs::create_dir_all(at.join("self/ns")).expect("made");
        symlink("mnt:[host]", at.join("self/ns/mnt")).expect("linked");
        for (pid, parent, namespace, has_tree) in all {
            let own = at.join(pid.to_string());
            fs::create_dir_all(own.join("ns")).expect("made");
            symlink(format!("mnt:[{namespace}]"), own.join("ns/mnt")).expect("linked");
            let zeros = "0 ".repeat(17);
            fs::write(own.join("stat"), format!("{pid} (a b) S {parent} {zeros}{pid} 0\n"))
                .expect("written");
            fs::write(own.join("mountinfo"), if *has_tree { mount } else { "" }).expect("written");
        }
        Processes(at.to_owned())
    }

    /// Our trees in a folder, and the line by which one of them is mounted.
    fn trees(folder: &Path) -> (Trees, String) {
        let dir = folder.join("run/boot-1/proc");
        fs::create_dir_all(dir.join("abc/nvidia/gpus/0000:1a:00.0")).expect("made");
        let trees = Trees::of(&dir).expect("looks").expect("there");
        let mount = trees.mounted("abc", "/proc/driver");
        (trees, mount)
    }

    fn bundled(folder: &Path, id: &str, pid: u32) -> PathBuf {
        let bundle = folder.join("bundles").join(id);
        fs::create_dir_all(&bundle).expect("made");
        fs::write(bundle.join("init.pid"), pid.to_string()).expect("written");
        bundle
    }

    #[test]
    fn a_namespace_within_a_container_is_no_other_container() {
        let folder = tempfile::tempdir().expect("a folder");
        let (trees, mount) = trees(folder.path());
        let all = [
            (2, 1, "host", false),
            (10, 2, "c1", true),
            (11, 10, "c1", true),
            (12, 11, "nested", true),
            (13, 12, "deeper", true),
            (20, 2, "c2", true),
        ];
        let processes = processes(&folder.path().join("proc"), &mount, &all);
        let bundle = bundled(folder.path(), "one", 10);
        symlink(&bundle, folder.path().join("proc/2/cwd")).expect("linked");
        let found = among(&processes, &trees).expect("looks");
        let found: Vec<_> = found.iter().map(|one| (one.pid, one.bundle.clone())).collect();
        assert_eq!(found, [(10, Some(bundle)), (20, None)]);
    }

    #[test]
    fn a_tree_in_our_own_namespace_hides_no_container() {
        let folder = tempfile::tempdir().expect("a folder");
        let (trees, mount) = trees(folder.path());
        let all = [(2, 1, "host", true), (10, 2, "c1", true)];
        let processes = processes(&folder.path().join("proc"), &mount, &all);
        let found = among(&processes, &trees).expect("looks");
        assert_eq!(found.iter().map(|one| one.pid).collect::<Vec<_>>(), [2, 10]);
    }

    #[test]
    fn only_a_parent_that_sees_our_files_has_a_bundle() {
        let folder = tempfile::tempdir().expect("a folder");
        let (trees, mount) = trees(folder.path());
        let all = [(2, 1, "host", false), (3, 2, "theirs", false), (10, 3, "c1", true)];
        let processes = processes(&folder.path().join("proc"), &mount, &all);
        let bundle = bundled(folder.path(), "one", 10);
        symlink(&bundle, folder.path().join("proc/3/cwd")).expect("linked");
        let found = among(&processes, &trees).expect("looks");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].bundle, None, "it was resolved here and means another place");
    }

    #[test]
    fn an_init_pid_is_a_small_file_of_roots() {
        let folder = tempfile::tempdir().expect("a folder");
        let bundle = bundled(folder.path(), "one", 10);
        assert_eq!(init_pid(&bundle), Some(10));
        let path = bundle.join("init.pid");
        fs::rename(&path, bundle.join("true")).expect("renamed");
        symlink("true", &path).expect("linked");
        assert_eq!(init_pid(&bundle), None, "a link");
        fs::remove_file(&path).expect("removed");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("made");
        assert_eq!(init_pid(&bundle), None, "a fifo");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, format!("{}10", "0".repeat(100))).expect("written");
        assert_eq!(init_pid(&bundle), None, "long");
        if nix::unistd::geteuid().is_root() {
            fs::write(&path, "10").expect("written");
            std::os::unix::fs::chown(&path, Some(1), None).expect("root may");
            assert_eq!(init_pid(&bundle), None, "another's");
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
        let parent = Processes("/proc".into()).parent(std::process::id());
        assert_eq!(parent, Some(std::os::unix::process::parent_id()));
        let fake = crate::nvidia::fake::Fake::new();
        assert_eq!(living(&fake.host).expect("looks"), []);
    }
}

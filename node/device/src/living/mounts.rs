//! Our trees as the kernel's lists of mounts name them, and what `/proc` says of a process.
//!
//! Decides whether a mount is one of our trees: by the file system and the place in it, never by how a path looks, since anybody can make a
//! folder of any name on a file system of their own. Must not know containers.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{DeviceError, file};
use crate::keep;

/// Where our trees are.
pub(super) struct Trees {
    dir: PathBuf,
    /// Major and minor of their file system, as mountinfo has them.
    device: Vec<u8>,
    /// The folder within it, as mountinfo has paths.
    root: Vec<u8>,
}

impl Trees {
    /// Those in this folder; `None` where there is no such folder, and so no tree.
    pub(super) fn of(dir: &Path) -> Result<Option<Self>, DeviceError> {
        let open = match File::open(dir) {
            Err(error) if keep::is_absent(&error) => return Ok(None),
            open => open.map_err(file("open", dir))?,
        };
        let fd = open.as_raw_fd();
        let path = PathBuf::from(format!("/proc/self/fd/{fd}"));
        let own = fs::read_link(&path).map_err(file("read", &path))?;
        let info = keep::read_text(Path::new(&format!("/proc/self/fdinfo/{fd}")))?;
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap_or_default();
        let path = PathBuf::from("/proc/self/mountinfo");
        let mounts = keep::read(&path)?.unwrap_or_default();
        let place = mounts.split(|byte| *byte == b'\n').find_map(|line| {
            let line = Mount::parse(line).filter(|line| line.id == mount.trim().as_bytes())?;
            let below = escaped(own.as_os_str().as_bytes());
            let below = below.strip_prefix(without_slash(line.point))?;
            Some((line.device.to_vec(), [without_slash(line.root), below].concat()))
        });
        let how = || format!("does not have the mount that {} is on", dir.display());
        let (device, root) =
            place.ok_or_else(|| DeviceError::Malformed { path: path.clone(), how: how() })?;
        Ok(Some(Self { dir: dir.to_owned(), device, root }))
    }

    /// The line of mountinfo by which a tree is mounted there.
    #[cfg(test)]
    pub(super) fn mounted(&self, tree: &str, point: &str) -> String {
        let [device, root] = [&self.device, &self.root].map(|bytes| String::from_utf8_lossy(bytes));
        format!("36 35 {device} {root}/{tree} {point} ro,nosuid - tmpfs tmpfs rw\n")
    }

    /// What a tree shows.
    pub(super) fn shown(&self, tree: &str) -> PathBuf {
        self.dir.join(tree).join("nvidia")
    }

    /// The tree that a line of mountinfo puts onto `/proc/driver`.
    pub(super) fn named(&self, line: &[u8]) -> Option<String> {
        let mount = Mount::parse(line).filter(|mount| mount.device == self.device)?;
        let root = match mount.point {
            b"/proc/driver/nvidia" => mount.root.strip_suffix(b"/nvidia")?,
            b"/proc/driver" => mount.root,
            _ => return None,
        };
        let name = root.strip_prefix(&*self.root)?.strip_prefix(b"/")?;
        let name = std::str::from_utf8(name).ok().filter(|name| !name.contains('/'))?;
        self.dir.join(name).is_dir().then(|| name.to_owned())
    }
}

/// A line of mountinfo, as far as it counts here (proc(5): id, its parent's, device, root within the file system, mount point).
struct Mount<'a> {
    id: &'a [u8],
    device: &'a [u8],
    root: &'a [u8],
    point: &'a [u8],
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let (id, _, device) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self { id, device, root: fields.next()?, point: fields.next()? })
    }
}

/// A path as mountinfo writes it.
fn escaped(path: &[u8]) -> Vec<u8> {
    let byte = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        _ => vec![*byte],
    };
    path.iter().flat_map(byte).collect()
}

fn without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

/// What the kernel says of processes: `/proc`. Nothing of it need be text, for containers name what they mount.
pub(super) struct Processes(pub(super) PathBuf);

impl Processes {
    /// Their PIDs.
    pub(super) fn all(&self) -> Result<Vec<u32>, DeviceError> {
        Ok(keep::names(&self.0)?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The tree that a process sees at `/proc/driver`. A process that ends meanwhile sees none.
    pub(super) fn tree(&self, pid: u32, trees: &Trees) -> Result<Option<String>, DeviceError> {
        let path = self.0.join(pid.to_string()).join("mountinfo");
        match last_tree(&path, trees) {
            // EINVAL: a zombie has no mounts.
            Err(error) if is_over(&error) => Ok(None),
            tree => tree.map_err(file("read", &path)),
        }
    }

    /// Its mount namespace; of `self`, this process's.
    pub(super) fn namespace(&self, pid: &str) -> Option<PathBuf> {
        fs::read_link(self.0.join(pid).join("ns/mnt")).ok()
    }

    /// Its working directory, as it sees it.
    pub(super) fn cwd(&self, pid: u32) -> Option<PathBuf> {
        fs::read_link(self.0.join(pid.to_string()).join("cwd")).ok()
    }

    /// When it started, in ticks since the boot.
    pub(super) fn started(&self, pid: u32) -> Option<u64> {
        self.field(pid, 22)
    }

    /// Its parent.
    pub(super) fn parent(&self, pid: u32) -> Option<u32> {
        let parent = u32::try_from(self.field(pid, 4)?).ok()?;
        (parent != 0).then_some(parent)
    }

    /// A numeric field of `stat`, as proc(5) counts them; those after the command's name.
    fn field(&self, pid: u32, number: usize) -> Option<u64> {
        let stat = fs::read(self.0.join(pid.to_string()).join("stat")).ok()?;
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
        rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
    }
}

/// The last of them hides the others.
fn last_tree(path: &Path, trees: &Trees) -> io::Result<Option<String>> {
    let mut last = None;
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        last = trees.named(&line?).or(last);
    }
    Ok(last)
}

fn is_over(error: &io::Error) -> bool {
    let gone = [Some(libc::ESRCH), Some(libc::EINVAL)].contains(&error.raw_os_error());
    gone || keep::is_absent(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trees() -> (tempfile::TempDir, Trees) {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("a run/boot-1/proc");
        fs::create_dir_all(dir.join("abc/nvidia")).expect("made");
        let trees = Trees::of(&dir).expect("looks").expect("there");
        (folder, trees)
    }

    fn line(device: &[u8], root: &[u8], point: &str) -> Vec<u8> {
        [b"36 35 ", device, b" ", root, b" ", point.as_bytes(), b" ro,nosuid - tmpfs tmpfs rw"]
            .concat()
    }

    #[test]
    fn a_tree_of_ours_is_told_from_every_other_mount() {
        let (_folder, trees) = trees();
        let ours = |below: &str, point: &str| {
            trees.named(&line(&trees.device, &[&trees.root, below.as_bytes()].concat(), point))
        };
        let abc = Some("abc".to_owned());
        assert_eq!(ours("/abc/nvidia", "/proc/driver/nvidia"), abc);
        assert_eq!(ours("/abc", "/proc/driver"), abc);
        for (below, point) in [
            ("/abc", "/proc/driver/nvidia"),
            ("/abc/nvidia", "/mnt"),
            ("/gone/nvidia", "/proc/driver/nvidia"),
            ("/abc/nvidia", "/proc/driver"),
            ("x/abc", "/proc/driver"),
            ("", "/proc/driver"),
        ] {
            assert_eq!(ours(below, point), None, "{below} on {point}");
        }
        assert_eq!(trees.named(b""), None);
    }

    #[test]
    fn a_folder_that_is_only_called_like_ours_is_none() {
        let (_folder, trees) = trees();
        let of = |device: &[u8], root: &[u8]| {
            trees.named(&line(device, &[root, b"/abc/nvidia"].concat(), "/proc/driver/nvidia"))
        };
        assert!(of(&trees.device, &trees.root).is_some());
        assert_eq!(of(b"0:4194303", &trees.root), None, "another file system");
        let below = [b"/theirs", &*trees.root].concat();
        assert_eq!(of(&trees.device, &below), None, "elsewhere on ours");
        assert_eq!(of(&trees.device, b"/boot-1/proc"), None, "elsewhere on ours");
    }

    #[test]
    fn what_a_container_calls_its_mounts_is_no_obstacle() {
        let (folder, trees) = trees();
        let own = line(&trees.device, &[&*trees.root, b"/abc"].concat(), "/proc/driver");
        let odd = b"37 36 0:1 / /tmp/\xff rw - tmpfs \xfe rw".to_vec();
        let list = folder.path().join("7/mountinfo");
        fs::create_dir_all(folder.path().join("7")).expect("made");
        fs::write(&list, [&*odd, b"\n", &*own, b"\n", &*odd, b"\n"].concat()).expect("written");
        let processes = Processes(folder.path().to_owned());
        assert_eq!(processes.tree(7, &trees).expect("read").as_deref(), Some("abc"));
        assert_eq!(processes.tree(8, &trees).expect("it has ended"), None);
    }
}

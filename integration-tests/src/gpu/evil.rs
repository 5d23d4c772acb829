//! What a hostile image must not change: the node. A canary tree that its links lead to, and a picture of everything that a mistake
//! in a container's root would write to.
//!
//! Decides what counts as the node having been touched. Must not know what the images do.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::pty::openpty;
use sha2::{Digest, Sha256};

use super::world::{self, World};
use crate::busybox;
use crate::containerd::ctr::{Said, said};
use crate::containerd::task::{BERTH, Task};
use crate::machine;

/// Files of the canary: each stands for one of the node's that somebody would like to change or to see.
const FILES: [&str; 6] = [
    "etc/ld.so.cache",
    "etc/ld.so.conf.d/node.conf",
    "local/nvidia/lib64/libcuda.so.1",
    "local/cuda/compat/libcuda.so.998.0",
    "dev/null",
    "secret",
];

/// What is in them.
const MARK: &str = "canary-of-the-node";

/// What a container does until it is ended.
const SLEEP: [&str; 3] = ["/bin/busybox", "sleep", "100000"];

/// Larger files are known by their size and time alone.
const SUMMED: u64 = 1 << 20;

/// What a path of the node is, in a line.
type Picture = BTreeMap<PathBuf, String>;

/// The node before anything happened.
pub struct Canary {
    /// The tree that images point at.
    pub tree: PathBuf,
    root: PathBuf,
    scratch: [PathBuf; 2],
    before: Picture,
    mounts: Vec<String>,
}

impl Canary {
    /// Makes the tree in the trial's folder, and takes the picture.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn plant(world: &World) -> Result<Self> {
        let tree = world.node.path("canary");
        for file in FILES {
            let path = tree.join(file);
            fs::create_dir_all(path.parent().context("in a folder")?)?;
            // A loader cache without a byte is a sound one: who follows a link to it merges with it and writes it.
            fs::write(path, if file.ends_with(".cache") { "" } else { MARK })?;
        }
        fs::create_dir_all(tree.join("empty"))?;
        let scratch = [world.node.folder().to_owned(), world.containerd.scratch.root().to_owned()];
        let root = world.node.root();
        let (before, mounts) = (Picture::new(), Vec::new());
        let mut canary = Self { tree, root, scratch, before, mounts };
        canary.before = canary.picture()?;
        canary.mounts = canary.mounted()?;
        Ok(canary)
    }

    /// A path in the tree, as text for a link.
    pub fn at(&self, path: &str) -> String {
        self.tree.join(path).to_string_lossy().into_owned()
    }

    /// That the node is what it was, and nothing more is mounted on it.
    ///
    /// # Errors
    /// Naming what was changed.
    pub fn is_unharmed(&self) -> Result<()> {
        self.is_as_it_was(|_| false)
    }

    /// The same, but for empty mount points, which runc before 1.1.14 can be raced into making anywhere by its own path lookup
    /// (CVE-2024-45310), whatever is to be mounted there. Nothing that was there may have been changed even so.
    ///
    /// # Errors
    /// As there.
    pub fn is_unharmed_by_more_than_mount_points(&self) -> Result<()> {
        // Mode, owner, device number and size, as `add` writes them.
        self.is_as_it_was(|line| line.starts_with("100755 0 0 0 ") || line.starts_with("40755 "))
    }

    /// That nothing was changed, and nothing made but what `may_be_new` says of its line.
    fn is_as_it_was(&self, may_be_new: impl Fn(&str) -> bool) -> Result<()> {
        let now = self.picture()?;
        let is_new = |path: &Path| !self.before.contains_key(path);
        let (forgiven, changed): (Vec<_>, Vec<_>) = now
            .iter()
            .filter(|(path, line)| self.before.get(*path) != Some(line))
            .partition(|(path, line)| is_new(path) && may_be_new(line));
        // A folder in which something was made has another time.
        let folders: Vec<_> = forgiven.iter().filter_map(|(path, _)| path.parent()).collect();
        let is_explained = |(path, line): &(&PathBuf, &String)| {
            line.starts_with("40755 ") && folders.contains(&path.as_path())
        };
        let gone = self.before.iter().filter(|(path, _)| !now.contains_key(*path));
        let all: Vec<_> =
            gone.chain(changed.into_iter().filter(|entry| !is_explained(entry))).collect();
        ensure!(all.is_empty(), "the node was touched (gone, or now): {all:#?}");
        let mounted = self.mounted()?;
        let more: Vec<_> = mounted.iter().filter(|row| !self.mounts.contains(row)).collect();
        ensure!(more.is_empty(), "mounted on the node: {more:#?}");
        Ok(())
    }

    fn picture(&self) -> Result<Picture> {
        let mut picture = Picture::new();
        for tree in [&self.tree, &self.root, Path::new("/etc/ld.so.conf.d")] {
            add(&mut picture, tree, usize::MAX, &self.root)?;
        }
        for folder in ["/", "/dev", "/etc", "/usr", "/usr/local", "/usr/lib"] {
            add(&mut picture, Path::new(folder), 1, &self.root)?;
        }
        Ok(picture)
    }

    /// What is mounted, but for what other trials have in their folders, and this one's containerd for its containers.
    fn mounted(&self) -> Result<Vec<String>> {
        let others = std::env::temp_dir().join("berth-");
        let others = others.to_string_lossy().into_owned();
        let mut rows = machine::mounts()?;
        rows.retain(|row| {
            let own = row.target.starts_with(&self.scratch[0]);
            let theirs = row.target.to_string_lossy().starts_with(&others);
            own || !(theirs || row.target.starts_with(&self.scratch[1]))
        });
        Ok(rows.iter().map(|row| format!("{} {}", row.target.display(), row.kind)).collect())
    }
}

fn add(picture: &mut Picture, folder: &Path, depth: usize, root: &Path) -> Result<()> {
    let Ok(entries) = folder.read_dir() else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        // Links that Berth makes for the node's sake; and what every file in /tmp and the like would change.
        if path == root.join("dev/char") {
            continue;
        }
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let mut line = format!("{:o} {} {}", meta.mode(), meta.uid(), meta.rdev());
        if meta.is_symlink() {
            line += &format!(" -> {}", fs::read_link(&path)?.display());
        } else if meta.is_file() {
            line += &format!(" {} {}.{}", meta.len(), meta.mtime(), meta.mtime_nsec());
            if meta.len() <= SUMMED && depth > 1 {
                line += &format!(" {:x?}", Sha256::digest(fs::read(&path)?));
            }
        }
        if meta.is_dir() && depth > 1 {
            line += &format!(" {}.{}", meta.mtime(), meta.mtime_nsec());
            add(picture, &path, depth - 1, root)?;
        }
        picture.insert(path, line);
    }
    Ok(())
}

/// What became of a container.
pub enum Fate<'a> {
    /// It runs.
    Runs(Task<'a>),
    /// It was refused, in these words.
    Refused(String),
}

/// Runs a container of this image (or with `--rootfs` this folder), and finds that it has exactly its GPU and nothing of the node, or
/// was refused with words.
///
/// # Errors
/// When neither is true.
pub fn try_out<'a>(world: &'a World, image: &str, flags: &[&str]) -> Result<Fate<'a>> {
    let task = Task::named(&world.containerd, "evil").of(image);
    let flags = [&["--detach", "--null-io"], flags].concat();
    let said = task.foreground(BERTH, &flags, &SLEEP)?;
    fate(world, task, &said, "/dev/null")
}

/// The same with a terminal.
///
/// # Errors
/// As there.
pub fn try_out_on_a_terminal<'a>(
    world: &'a World,
    image: &str,
    flags: &[&str],
) -> Result<Fate<'a>> {
    let task = Task::named(&world.containerd, "evil").of(image);
    let flags = [&["--detach", "--tty"], flags].concat();
    // ctr wants a terminal of its own, and is content with any of its streams.
    let pty = openpty(None, None)?;
    let said = said(task.command(BERTH, &flags, &SLEEP).stdin(pty.slave))?;
    // The first terminal of its own, wherever these are mounted.
    fate(world, task, &said, "/0")
}

/// What became of it, going by what ctr said. `stream` is how what its first process has for each standard stream ends.
fn fate<'a>(world: &World, task: Task<'a>, said: &Said, stream: &str) -> Result<Fate<'a>> {
    let log = world.containerd.log_text();
    ensure!(!log.contains("panicked"), "a shim panicked:\n{}", world.containerd.log_tail());
    if said.code() == 0 {
        world.containerd.note_socket(world.containerd.namespace(), &task.id);
        ensure!(task.shim()?.state != 'Z', "the shim lives");
        looks_right(world, &task, stream)?;
        return Ok(Fate::Runs(task));
    }
    let words = said.err.split_once("failed to create shim task: ");
    let words = words.with_context(|| format!("{said:?}"))?.1.trim_end().to_owned();
    ensure!(words.len() < 2000 && words.contains(' '), "no words for people: {words}");
    task.removed()?;
    world.node.is_free()?;
    Ok(Fate::Refused(words))
}

/// Opens every GPU's number through a node of its own making, and shows what `/proc` and `/dev` have, which descriptors an exec has,
/// whether the loader was told of the canary's library, and what is mounted from where.
const LOOK: &str = r#"for minor in MINORS; do
  mknod /probe c 195 $minor || exit 1
  (: </probe) 2>&1 | sed "s/.*:/$minor/"
  rm /probe
done | sed -n 's/ No such device or address//p'; echo ---
ls /proc/driver/nvidia/gpus; echo ---
ls /dev | grep '^nvidia[0-9]'; echo ---
ls /proc/self/fd; echo ---
cat /etc/ld.so.cache 2>/dev/null | grep -c so.998; echo ---
cut -d' ' -f4 /proc/self/mountinfo"#;

/// That a running container, and an exec in it, has the GPU of its grant by whatever way it looks, and nothing of the node: no
/// descriptor but the standard ones, no working directory outside its root, no mount of what it pointed at.
///
/// # Errors
/// Saying what it has instead.
pub fn has_exactly_its_gpu(world: &World, task: &Task<'_>) -> Result<()> {
    looks_right(world, task, "/dev/null")
}

fn looks_right(world: &World, task: &Task<'_>, stream: &str) -> Result<()> {
    let grant = world.grant()?;
    let state = world.state()?;
    let [uuid] = world::uuids(&grant)[..] else { bail!("one GPU was asked for: {grant:#}") };
    let given = &state.gpus[state.find(uuid)?];
    let minors: Vec<String> = state.gpus.iter().map(|gpu| gpu.minor.to_string()).collect();
    let script = LOOK.replace("MINORS", &minors.join(" "));
    let said = task.exec(&["/bin/busybox", "sh", "-c", &script])?;
    let (seen, mounts) = said.out.rsplit_once("---\n").with_context(|| format!("{said:?}"))?;
    let (minor, device) = (given.minor, &given.route.device);
    // The listing's own is the fourth descriptor.
    let wanted = format!("{minor}\n---\n{device}\n---\nnvidia{minor}\n---\n0\n1\n2\n3\n---\n0\n");
    ensure!(seen == wanted, "{said:?}\n is not {wanted:?}");
    ensure!(!mounts.contains("/canary"), "something of the node is mounted: {mounts}");
    let pid = u32::try_from(task.ctr.task_pid(&task.id)?)?;
    let held = machine::descriptors(pid)?;
    let standard = held.iter().filter(|one| one.ends_with(stream)).count();
    ensure!((standard, held.len()) == (3, 3), "the first process holds {held:?}");
    let place =
        |what: &str| fs::metadata(format!("/proc/{pid}/{what}")).map(|m| (m.dev(), m.ino()));
    ensure!(place("cwd")? == place("root")?, "it works outside of its root");
    Ok(())
}

/// A root that runs busybox, has the name of glibc's loader, and whatever `change` makes of it.
///
/// # Errors
/// When it cannot be made.
pub fn root(root: &Path, change: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    busybox::build(root)?;
    for folder in ["lib64", "etc/ld.so.conf.d", "usr/local/cuda/compat"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::write(root.join("lib64/ld-linux-x86-64.so.2"), b"")?;
    change(root)
}

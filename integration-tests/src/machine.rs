//! Reads what the kernel shows of processes, mounts and cgroups. Decides nothing.
//! Must not know shims.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One row of /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountRow {
    /// Where it is mounted.
    pub target: PathBuf,
    /// File system type.
    pub kind: String,
    /// What is mounted, as the file system names it.
    pub source: String,
    /// Per-mount and superblock options, comma separated.
    pub options: String,
}

/// Every mount this process sees, oldest first.
pub fn mounts() -> Result<Vec<MountRow>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("reading mountinfo")?;
    Ok(text.lines().filter_map(mount_row).collect())
}

/// The mounts at or below `folder`, oldest first.
pub fn mounts_below(folder: &Path) -> Result<Vec<MountRow>> {
    Ok(mounts()?.into_iter().filter(|row| row.target.starts_with(folder)).collect())
}

fn mount_row(line: &str) -> Option<MountRow> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    Some(MountRow {
        target: PathBuf::from(unescape(left.get(4)?)),
        kind: right.first()?.to_string(),
        source: unescape(right.get(1)?),
        options: format!("{},{}", left.get(5)?, right.get(2).unwrap_or(&"")),
    })
}

fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

/// Where each cgroup hierarchy is mounted, with its controllers ("" for the unified one).
pub fn cgroup_hierarchies() -> Result<Vec<(String, PathBuf)>> {
    let rows = mounts()?;
    let cgroups = rows.into_iter().filter(|row| row.kind == "cgroup" || row.kind == "cgroup2");
    Ok(cgroups
        .map(|row| {
            let unified = row.kind == "cgroup2";
            (if unified { String::new() } else { row.options }, row.target)
        })
        .collect())
}

/// True when cgroup v2 alone is mounted on /sys/fs/cgroup.
pub fn cgroup_v2_only() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The folder of cgroup `path` in the hierarchy that has `controller` (any, on a unified host).
pub fn cgroup_folder(controller: &str, path: &str) -> Result<PathBuf> {
    let path = path.trim_start_matches('/');
    if cgroup_v2_only() {
        return Ok(Path::new("/sys/fs/cgroup").join(path));
    }
    cgroup_hierarchies()?
        .into_iter()
        .find(|(options, _)| options.split(',').any(|option| option == controller))
        .map(|(_, folder)| folder.join(path))
        .with_context(|| format!("no cgroup hierarchy has {controller}"))
}

/// Every cgroup folder whose path has a top-level component `name`, parents before children.
pub fn cgroups_named(name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for (_, root) in cgroup_hierarchies()? {
        descend(&root.join(name), &mut found);
    }
    Ok(found)
}

fn descend(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = folder.read_dir() else { return };
    found.push(folder.to_path_buf());
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            descend(&entry.path(), found);
        }
    }
}

/// What /proc tells about a process.
#[derive(Clone, Debug)]
pub struct ProcessRow {
    /// Process id.
    pub pid: u32,
    /// Parent's process id.
    pub parent: u32,
    /// State letter of /proc/pid/stat; `Z` for a zombie.
    pub state: char,
    /// Arguments joined by blanks; the name in brackets when there are none.
    pub command: String,
}

/// One process; None when it is gone.
pub fn process(pid: u32) -> Option<ProcessRow> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&raw).trim_end_matches('\0').replace('\0', " ");
    let command = if command.is_empty() { format!("[{name}]") } else { command };
    Some(ProcessRow { pid, parent, state, command })
}

/// Every process, by pid.
pub fn processes() -> BTreeMap<u32, ProcessRow> {
    let entries = Path::new("/proc").read_dir().into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, process(pid)?)))
        .collect()
}

/// The processes whose parent is `pid`.
pub fn children(pid: u32) -> Vec<ProcessRow> {
    processes().into_values().filter(|row| row.parent == pid).collect()
}

/// How many descriptors a process has open, with what each points at.
pub fn descriptors(pid: u32) -> Result<Vec<String>> {
    let folder = format!("/proc/{pid}/fd");
    let entries = Path::new(&folder).read_dir().with_context(|| format!("reading {folder}"))?;
    let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut names: Vec<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// A kB field of /proc/pid/status (`VmRSS`) or /proc/pid/smaps_rollup (`Pss`, `Private_Dirty`).
pub fn memory_kib(pid: u32, file: &str, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == field)
        .and_then(|(_, value)| value.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("{path} has no {field}"))
}

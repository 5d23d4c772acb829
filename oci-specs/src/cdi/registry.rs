//! The specs on disk, and the names they resolve.
//!
//! Decides which files count: regular files named `*.json`, `*.yaml` or `*.yml` of at most 4 MiB. A
//! directory beats those before it; within one, a device that two files have is an error for whoever
//! wants it. A file that cannot be used is an error only for whoever wants a device that is nowhere else.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde_json::Value;

use super::CdiError;
use super::edits::ContainerEdits;
use super::name::QualifiedName;
use super::spec::Spec;
use crate::yaml;

/// The largest spec that is read. Those of a node with many devices are some 100 KiB.
const MAX_SIZE: u64 = 4 << 20;

/// All the specs of some directories.
#[derive(Debug, Default)]
pub struct Registry {
    directories: Vec<PathBuf>,
    files: Vec<SpecFile>,
    broken: Vec<Broken>,
}

/// A spec and where it was.
#[derive(Debug)]
struct SpecFile {
    path: PathBuf,
    /// Index of its directory: a higher one beats a lower one.
    priority: usize,
    spec: Spec,
}

impl SpecFile {
    fn has(&self, name: &QualifiedName) -> bool {
        let devices = &self.spec.devices;
        self.spec.kind == format!("{}/{}", name.vendor, name.class)
            && devices.iter().any(|device| device.name == name.device)
    }
}

/// A device, and where it is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The device.
    pub name: QualifiedName,
    /// The file that has it.
    pub path: PathBuf,
    /// Others of the same directory that have it, so that nobody gets it.
    pub conflicts: Vec<PathBuf>,
    /// Those of directories that come before, which do not count.
    pub overridden: Vec<PathBuf>,
}

/// A file that looks like a spec and is not a good one.
#[derive(Debug)]
struct Broken {
    path: PathBuf,
    problem: String,
}

impl Registry {
    /// Reads the specs in directories, later ones beating earlier ones: `/etc/cdi`, then
    /// `/var/run/cdi`. A directory that is not there is empty.
    ///
    /// # Errors
    /// [`CdiError::Directory`] when one cannot be listed.
    pub fn load(directories: &[impl AsRef<Path>]) -> Result<Self, CdiError> {
        let mut registry = Self::default();
        for (priority, directory) in directories.iter().enumerate() {
            let directory = directory.as_ref();
            registry.directories.push(directory.to_owned());
            for path in spec_paths(directory)? {
                match read_spec(&path) {
                    Ok(spec) => registry.files.push(SpecFile { path, priority, spec }),
                    Err(problem) => registry.broken.push(Broken { path, problem }),
                }
            }
        }
        Ok(registry)
    }

    /// What a container gets that asks for these devices: in their order, with what is common to
    /// all devices of a spec once, before the first of them.
    ///
    /// # Errors
    /// [`CdiError`] naming the device and the files.
    pub fn resolve(&self, names: &[QualifiedName]) -> Result<ContainerEdits, CdiError> {
        let mut edits = ContainerEdits::default();
        let mut seen: Vec<&Path> = Vec::new();
        for name in names {
            let file = self.find(name)?;
            if !seen.contains(&file.path.as_path()) {
                edits.add(&file.spec.container_edits);
                seen.push(&file.path);
            }
            let device = file.spec.devices.iter().find(|device| device.name == name.device);
            edits.add(&device.expect("the file was found by it").container_edits);
        }
        Ok(edits)
    }

    /// Every device that the specs have, and where they conflict too; sorted.
    pub fn devices(&self) -> Vec<QualifiedName> {
        let names = self.files.iter().flat_map(|file| {
            file.spec.devices.iter().filter_map(|device| {
                format!("{}={}", file.spec.kind, device.name).parse::<QualifiedName>().ok()
            })
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names.dedup();
        names
    }

    /// Every device with the file that has it, and with what becomes of the other files that have it; sorted by name. Where several of one
    /// directory have it, each is listed.
    pub fn listed(&self) -> Vec<Listed> {
        let mut all = Vec::new();
        for name in self.devices() {
            let (winners, beaten) = self.holding(&name);
            for file in &winners {
                let others = winners.iter().filter(|other| other.path != file.path);
                all.push(Listed {
                    name: name.clone(),
                    path: file.path.clone(),
                    conflicts: others.map(|other| other.path.clone()).collect(),
                    overridden: beaten.iter().map(|other| other.path.clone()).collect(),
                });
            }
        }
        all
    }

    /// Files that cannot be used, each with the reason.
    pub fn broken(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.broken.iter().map(|broken| (broken.path.as_path(), broken.problem.as_str()))
    }

    /// The files that have the device: those of the directory that beats the others, and the others.
    fn holding(&self, name: &QualifiedName) -> (Vec<&SpecFile>, Vec<&SpecFile>) {
        let files = || self.files.iter().filter(|file| file.has(name));
        let best = files().map(|file| file.priority).max();
        files().partition(|file| Some(file.priority) == best)
    }

    fn find(&self, name: &QualifiedName) -> Result<&SpecFile, CdiError> {
        match self.holding(name).0.as_slice() {
            [file] => Ok(file),
            [first, second, ..] => Err(CdiError::Conflict {
                name: name.clone(),
                first: first.path.clone(),
                second: second.path.clone(),
            }),
            [] => Err(self.unknown(name)),
        }
    }

    fn unknown(&self, name: &QualifiedName) -> CdiError {
        let searched: Vec<_> = self.directories.iter().map(|d| d.display().to_string()).collect();
        let broken: Vec<_> = self
            .broken
            .iter()
            .map(|broken| format!("{}: {}", broken.path.display(), broken.problem))
            .collect();
        CdiError::Unknown {
            name: name.clone(),
            searched: searched.join(", "),
            broken: match broken.is_empty() {
                true => String::new(),
                false => format!("; unusable there: {}", broken.join("; ")),
            },
        }
    }
}

/// The files of a directory that are named like specs, sorted. One that is not there has none.
pub(super) fn spec_paths(directory: &Path) -> Result<Vec<PathBuf>, CdiError> {
    let failed = |source| CdiError::Directory { path: directory.into(), source };
    let entries = match directory.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if is_spec(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether a file is named like a spec.
pub(super) fn is_spec(path: &Path) -> bool {
    matches!(
        path.extension().and_then(|extension| extension.to_str()),
        Some("json" | "yaml" | "yml")
    )
}

fn read_spec(path: &Path) -> Result<Spec, String> {
    strict(path, &read_text(path)?)?.checked()
}

/// The spec that a file's text is, if it reads as one.
pub(super) fn strict(path: &Path, text: &str) -> Result<Spec, String> {
    match is_json(path) {
        true => serde_json::from_str(text).map_err(|error| error.to_string()),
        false => serde_json::from_value(yaml::parse(text)?).map_err(|error| error.to_string()),
    }
}

/// The same as a value, whatever is in it.
pub(super) fn parse(path: &Path, text: &str) -> Result<Value, String> {
    match is_json(path) {
        true => serde_json::from_str(text).map_err(|error| error.to_string()),
        false => yaml::parse(text),
    }
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

pub(super) fn read_text(path: &Path) -> Result<String, String> {
    // A link would lead out of the directory that the operator trusts, and a fifo would never end.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file: File = file.map_err(|error| match error.raw_os_error() {
        Some(code) if code == nix::errno::Errno::ELOOP as i32 => {
            "it is a symbolic link; specs are regular files".to_owned()
        }
        _ => error.to_string(),
    })?;
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(format!("it is larger than {} MiB", MAX_SIZE >> 20));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    match text.contains('\0') {
        true => Err("it has a NUL byte in it".into()),
        false => Ok(text),
    }
}

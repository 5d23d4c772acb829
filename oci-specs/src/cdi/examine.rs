//! Spec files looked at one by one: everything that is wrong with each, and between them.
//!
//! Decides what is an error (a reader refuses the file, or the device) and what a warning (it is read, and may be of no use on this node).
//! Only looks: whether something is there, never what it is.

use std::path::{Path, PathBuf};

use super::edits::is_complete;
use super::registry::{self, parse, read_text};
use super::rules::Problem;
use super::spec::{Spec, SpecEdits};
use super::{CdiError, lenient};

/// A file, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// The file.
    pub path: PathBuf,
    /// Why a reader refuses it, or one of its devices.
    pub errors: Vec<Problem>,
    /// What is of no use on this node, or to other readers.
    pub warnings: Vec<Problem>,
    /// Its devices' full names, as far as they can be read.
    names: Vec<String>,
}

/// The files that readers would look at in these directories, in their order. A directory that is not there has none.
///
/// # Errors
/// [`CdiError::Directory`] when one cannot be listed.
pub fn spec_files(directories: &[impl AsRef<Path>]) -> Result<Vec<PathBuf>, CdiError> {
    let mut all = Vec::new();
    for directory in directories {
        all.extend(registry::spec_paths(directory.as_ref())?);
    }
    Ok(all)
}

/// Looks at these files. Device nodes are looked for below `root`, the node's own.
pub fn examine(paths: &[PathBuf], root: &Path) -> Vec<Examined> {
    let mut all: Vec<Examined> = paths.iter().map(|path| one(path, root)).collect();
    for at in 0..all.len() {
        let conflicts = conflicts(&all, at);
        all[at].errors.extend(conflicts);
    }
    all
}

fn one(path: &Path, root: &Path) -> Examined {
    let mut examined = Examined { path: path.to_owned(), ..Examined::default() };
    let whole = |what: String| Problem { device: None, field: String::new(), what };
    let text = match read_text(path) {
        Ok(text) => text,
        Err(why) => return Examined { errors: vec![whole(why)], ..examined },
    };
    if !registry::is_spec(path) {
        let what = "its name ends in none of .json, .yaml and .yml: no reader looks at it";
        examined.warnings.push(whole(what.to_owned()));
    }
    let spec = match parse(path, &text) {
        Ok(value) => value,
        Err(why) => return Examined { errors: vec![whole(why)], ..examined },
    };
    let spec = match registry::strict(path, &text) {
        Ok(spec) => spec,
        Err(why) => {
            let (spec, problems) = lenient::read(spec);
            examined.errors = problems;
            if examined.errors.is_empty() && spec.problems().is_empty() {
                examined.errors.push(whole(why));
            }
            spec
        }
    };
    // What cannot be read breaks a rule as well, as what is absent does.
    let is_told = |problem: &Problem, errors: &[Problem]| {
        errors.iter().any(|told| (&told.device, &told.field) == (&problem.device, &problem.field))
    };
    for problem in spec.problems() {
        if !is_told(&problem, &examined.errors) || problem.field == "cdiVersion" {
            examined.errors.push(problem);
        }
    }
    examined.names =
        spec.devices.iter().map(|device| format!("{}={}", spec.kind, device.name)).collect();
    examined.warnings.extend(warnings(&spec, root));
    examined
}

/// Devices that another file of the same directory has, too.
fn conflicts(all: &[Examined], at: usize) -> Vec<Problem> {
    let this = &all[at];
    let beside =
        |other: &&Examined| other.path != this.path && other.path.parent() == this.path.parent();
    let mut found = Vec::new();
    for name in &this.names {
        for other in all.iter().filter(beside).filter(|other| other.names.contains(name)) {
            let what = format!("is in {}, too; remove it from one of them", other.path.display());
            found.push(Problem { device: Some(name.clone()), field: String::new(), what });
        }
    }
    found
}

fn warnings(spec: &Spec, root: &Path) -> Vec<Problem> {
    let mut found = absent(&spec.container_edits, None, root);
    for device in &spec.devices {
        let name = Some(device.name.as_str());
        if device.container_edits.is_empty() {
            let what = "brings nothing of its own, which other readers refuse".to_owned();
            found.push(Problem { device: Some(device.name.clone()), field: String::new(), what });
        }
        found.extend(absent(&device.container_edits, name, root));
    }
    found
}

/// What a container would get from the node and is not there: nodes whose numbers are left to the host, and what is mounted or run.
fn absent(edits: &SpecEdits, device: Option<&str>, root: &Path) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut look = |field: String, path: &str, root: &Path| {
        let here = root.join(path.trim_start_matches('/'));
        // What is no path at all is an error, and told as one.
        if path.starts_with('/') && here.symlink_metadata().is_err() {
            let what = format!("{path:?} is not on this node");
            found.push(Problem { device: device.map(str::to_owned), field, what });
        }
    };
    for (at, node) in edits.device_nodes.iter().enumerate() {
        let (name, path) = match node.host_path.is_empty() {
            true => ("path", &node.path),
            false => ("hostPath", &node.host_path),
        };
        if !is_complete(&node.kind, node.major, node.minor) {
            look(format!("containerEdits.deviceNodes[{at}].{name}"), path, root);
        }
    }
    // The OCI runtime looks for these itself.
    let plain = Path::new("/");
    for (at, mount) in edits.mounts.iter().enumerate() {
        if mount.is_bind() {
            look(format!("containerEdits.mounts[{at}].hostPath"), &mount.host_path, plain);
        }
    }
    for (at, hook) in edits.hooks.iter().enumerate() {
        look(format!("containerEdits.hooks[{at}].path"), &hook.path, plain);
    }
    found
}

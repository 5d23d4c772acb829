//! What a prepared tree consists of.
//!
//! Decides every name in it, and nothing about how it is written.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::files::{Files, Found};
use super::{DriverTree, FORMAT, Library, digest, families};

/// Where the libraries are in a container; NVIDIA's images have it in their search paths already.
pub(super) const LIB_DIR: &str = "/usr/local/nvidia/lib64";

/// A tree as it should be. Places are paths in the container.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) files: Vec<(String, Found)>,
    /// Place and what it leads to, in the same folder.
    pub(super) links: Vec<(String, String)>,
    pub(super) texts: Vec<(String, String)>,
    pub(super) libraries: Vec<Library>,
    pub(super) binaries: Vec<String>,
    pub(super) firmware: Vec<String>,
}

impl Layout {
    pub(super) fn of(found: Files, version: &str) -> Self {
        let conf = (DriverTree::LOADER_CONF.to_owned(), format!("{LIB_DIR}\n"));
        let mut layout = Self {
            files: Vec::new(),
            links: Vec::new(),
            texts: vec![conf],
            libraries: Vec::new(),
            binaries: Vec::new(),
            firmware: Vec::new(),
        };
        for (file, library) in found.libraries {
            layout.library(file, library.soname, version);
        }
        for file in found.programs {
            let place = format!("/usr/bin/{}", file.name);
            layout.binaries.push(place.clone());
            layout.files.push((place, file));
        }
        for file in found.firmware {
            let place = format!("/usr/lib/firmware/nvidia/{version}/{}", file.name);
            layout.firmware.push(place.clone());
            layout.files.push((place, file));
        }
        layout.libraries.sort_by(|one, other| one.soname.cmp(&other.soname));
        layout
    }

    /// A library under its own name, its SONAME, and where programs ask for it without a version.
    fn library(&mut self, file: Found, soname: Option<String>, version: &str) {
        let name = file.name.clone();
        let stem = families::stem(&name, version).unwrap_or(&name).to_owned();
        let soname = soname.unwrap_or_else(|| name.clone());
        let place = |name: &str| format!("{LIB_DIR}/{name}");
        if soname == name || stem.starts_with(families::BY_FILE_NAME) {
            self.libraries.push(Library { soname: name.clone(), path: place(&name) });
        }
        if soname != name {
            self.link(&soname, &name);
        }
        if families::LINKER_NAMES.contains(&stem.as_str()) {
            self.link(&format!("{stem}.so"), &soname);
        }
        self.files.push((place(&name), file));
    }

    fn link(&mut self, name: &str, target: &str) {
        let path = format!("{LIB_DIR}/{name}");
        // Two files with one SONAME: the first was found where the loader looks first.
        if self.links.iter().all(|(other, _)| *other != path) {
            self.libraries.push(Library { soname: name.to_owned(), path: path.clone() });
            self.links.push((path, target.to_owned()));
        }
    }

    /// The tree's description once it stands at `path`.
    pub(super) fn tree(&self, path: PathBuf) -> DriverTree {
        DriverTree {
            path,
            lib_dir: LIB_DIR.to_owned(),
            libraries: self.libraries.clone(),
            binaries: self.binaries.clone(),
            firmware: self.firmware.clone(),
            sockets: Vec::new(),
        }
    }

    /// Changes when any of the files does, and when this version of Berth lays them out in another way.
    pub(super) fn fingerprint(&self) -> String {
        let mut lines: Vec<String> = self
            .files
            .iter()
            .map(|(place, found)| {
                let Found { path, meta, .. } = found;
                let (size, inode) = (meta.len(), meta.ino());
                let changed = (meta.mtime(), meta.mtime_nsec());
                format!("{place} {path} {size} {inode} {}.{:09}", changed.0, changed.1)
            })
            .chain(self.links.iter().map(|(place, target)| format!("{place} -> {target}")))
            .chain(self.texts.iter().map(|(place, text)| format!("{place}: {text}")))
            .collect();
        lines.push(format!("format {FORMAT}"));
        lines.sort();
        digest(lines.join("\n").as_bytes())
    }
}

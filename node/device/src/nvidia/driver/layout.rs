//! What a prepared tree consists of.
//!
//! Decides every name in it, and nothing about how it is written.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::Files;
use super::root::Found;
use super::{DriverTree, FORMAT, Library, Width, data, digest, elf, families};

/// Where the libraries are in a container; NVIDIA's images have it in their search paths already.
pub(super) const LIB_DIR: &str = "/usr/local/nvidia/lib64";

/// Where those for 32-bit programs are; these images have it there, too, and a loader passes over what is not of its width.
pub(super) const LIB_DIR_OF_32_BITS: &str = "/usr/local/nvidia/lib";

/// Which GLX library applications get that do not draw on the screen that they are on; a name for the driver's own.
const INDIRECT_GLX: [&str; 2] = ["libGLX_indirect.so.0", "libGLX_nvidia.so.0"];

/// A tree as it should be. Places are paths in the container.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) files: Vec<(String, Found)>,
    /// Place and what it leads to, relative to its folder.
    pub(super) links: Vec<(String, String)>,
    pub(super) texts: Vec<(String, String)>,
    pub(super) libraries: Vec<Library>,
    pub(super) binaries: Vec<String>,
    pub(super) firmware: Vec<String>,
    /// Other files and links that are not among the libraries.
    pub(super) data: Vec<String>,
}

impl Layout {
    pub(super) fn of(found: Files, version: &str) -> Self {
        let mut layout = Self {
            files: Vec::new(),
            links: Vec::new(),
            texts: Vec::new(),
            libraries: Vec::new(),
            binaries: Vec::new(),
            firmware: Vec::new(),
            data: Vec::new(),
        };
        for (file, library) in found.libraries {
            layout.library(file, library, version);
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
        for file in found.data {
            layout.data.push(file.path.clone());
            layout.files.push((file.path.clone(), file));
        }
        for file in found.x_modules {
            layout.x_module(file);
        }
        layout.backends();
        layout
            .libraries
            .sort_by(|one, other| (&one.soname, one.width).cmp(&(&other.soname, other.width)));
        let dirs: String = layout.lib_dirs().map(|dir| format!("{dir}\n")).collect();
        layout.texts.push((DriverTree::LOADER_CONF.to_owned(), dirs));
        layout
    }

    /// A library under its own name, its SONAME, and where programs ask for it without a version.
    fn library(&mut self, file: Found, library: elf::Library, version: &str) {
        let name = file.name.clone();
        let width = library.width;
        let stem = families::stem(&name, version).unwrap_or(&name).to_owned();
        let soname = library.soname.unwrap_or_else(|| name.clone());
        let place = format!("{}/{name}", lib_dir(width));
        if soname == name || stem.starts_with(families::BY_FILE_NAME) {
            let path = place.clone();
            self.libraries.push(Library { soname: name.clone(), path, width });
        }
        if soname != name {
            self.link(&soname, &name, width);
        }
        if families::LINKER_NAMES.contains(&stem.as_str()) {
            self.link(&format!("{stem}.so"), &soname, width);
        }
        let [indirect, direct] = INDIRECT_GLX;
        if soname == direct {
            self.link(indirect, direct, width);
        }
        self.files.push((place, file));
    }

    fn link(&mut self, name: &str, target: &str, width: Width) {
        let path = format!("{}/{name}", lib_dir(width));
        // Two files with one SONAME: the first was found where the loader looks first.
        if self.links.iter().all(|(other, _)| *other != path) {
            self.libraries.push(Library { soname: name.to_owned(), path: path.clone(), width });
            self.links.push((path, target.to_owned()));
        }
    }

    /// A module of the X server's stands among the libraries, and has a link wherever an image's server may look for it.
    fn x_module(&mut self, file: Found) {
        let (kind, plain) = match file.name == data::X_DRIVER {
            true => ("drivers", data::X_DRIVER),
            false => ("extensions", data::X_GLX),
        };
        let own = format!("{LIB_DIR}/{}/{kind}/{}", data::X_MODULES, file.name);
        for server in data::X_SERVERS {
            let place = format!("{server}/{kind}/{plain}");
            self.links.push((place.clone(), relative(&place, &own)));
            self.data.push(place);
        }
        self.files.push((own, file));
    }

    /// The backend of GBM, where what draws was found: a link wherever an image's libgbm may look for it.
    fn backends(&mut self) {
        let has = |soname: &str| {
            let is = |one: &Library| one.soname == soname && one.width == Width::Native;
            self.libraries.iter().any(is)
        };
        let draws = INDIRECT_GLX.iter().any(|soname| has(soname)) || has("libEGL_nvidia.so.0");
        if !draws || !has(data::GBM_LIBRARY) {
            return;
        }
        let backend = format!("{LIB_DIR}/{}", data::GBM);
        let library = format!("{LIB_DIR}/{}", data::GBM_LIBRARY);
        self.links.push((backend.clone(), relative(&backend, &library)));
        for folder in data::LOADER_DIRS {
            let place = format!("{folder}/{}", data::GBM);
            self.links.push((place.clone(), relative(&place, &backend)));
            self.data.push(place);
        }
    }

    /// The directories of libraries that there are, native ones first.
    fn lib_dirs(&self) -> impl Iterator<Item = &'static str> {
        let narrow = self.libraries.iter().any(|library| library.width == Width::Narrow);
        let widths = std::iter::once(Width::Native).chain(narrow.then_some(Width::Narrow));
        widths.map(lib_dir)
    }

    /// Every directory, relative to the root, parents first.
    fn directories(&self) -> Vec<PathBuf> {
        let files = self.files.iter().map(|(place, _)| place.as_str());
        let links = self.links.iter().map(|(place, _)| place.as_str());
        let texts = self.texts.iter().map(|(place, _)| place.as_str());
        let parents = files.chain(links).chain(texts).filter_map(|one| Path::new(one).parent());
        let all: BTreeSet<PathBuf> = parents
            .chain([Path::new(LIB_DIR)])
            .flat_map(Path::ancestors)
            .filter_map(|dir| dir.strip_prefix("/").ok())
            .filter(|dir| *dir != Path::new(""))
            .map(Path::to_owned)
            .collect();
        all.into_iter().collect()
    }

    /// The tree's description once it stands at `path`.
    pub(super) fn tree(&self, path: PathBuf) -> DriverTree {
        DriverTree {
            path,
            lib_dirs: self.lib_dirs().map(str::to_owned).collect(),
            directories: self.directories(),
            libraries: self.libraries.clone(),
            binaries: self.binaries.clone(),
            firmware: self.firmware.clone(),
            data: self.data.clone(),
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

fn lib_dir(width: Width) -> &'static str {
    match width {
        Width::Native => LIB_DIR,
        Width::Narrow => LIB_DIR_OF_32_BITS,
    }
}

/// What a link at `place` says to lead to `target`, whatever root both are below.
fn relative(place: &str, target: &str) -> String {
    let mut folder: Vec<&str> = place.split('/').collect();
    folder.pop();
    let target: Vec<&str> = target.split('/').collect();
    let common = folder.iter().zip(&target).take_while(|(one, other)| one == other).count();
    let up = folder[common..].iter().map(|_| "..");
    up.chain(target[common..].iter().copied()).collect::<Vec<_>>().join("/")
}

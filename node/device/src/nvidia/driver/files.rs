//! The driver's files on the node: where they are looked for, below the driver's root.
//!
//! Decides which file is found, and what has to be. Must not know how a container gets them.

use std::path::Path;

use plan::{Capabilities, Capability, Driver};

use super::root::{Found, Root};
use super::{Width, data, elf, families};
use crate::Host;
use crate::error::DeviceError;

/// Where loaders look, in their order, and where some clouds' nodes have the driver; what is not for this machine is passed over.
const LIB_DIRS: [&str; 9] = [
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib",
    "/lib",
    "/usr/local/nvidia/lib64",
];

/// The same for 32-bit programs.
const LIB_DIRS_OF_32_BITS: [&str; 8] = [
    "/usr/lib/i386-linux-gnu",
    "/usr/lib/arm-linux-gnueabihf",
    "/lib/i386-linux-gnu",
    "/lib/arm-linux-gnueabihf",
    "/usr/lib32",
    "/lib32",
    "/usr/lib",
    "/lib",
];

const BIN_DIRS: [&str; 8] = [
    "/usr/bin",
    "/usr/sbin",
    "/bin",
    "/sbin",
    "/usr/local/bin",
    "/opt/bin",
    "/usr/lib/nvidia/current",
    "/usr/local/nvidia/bin",
];

const FIRMWARE_DIRS: [&str; 2] = ["/lib/firmware", "/usr/lib/firmware"];

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Files {
    /// With what each goes by.
    pub(super) libraries: Vec<(Found, elf::Library)>,
    pub(super) programs: Vec<Found>,
    pub(super) firmware: Vec<Found>,
    /// Each to be where it was found.
    pub(super) data: Vec<Found>,
    pub(super) x_modules: Vec<Found>,
}

/// Finds the driver's files for these capabilities.
pub(super) fn find(
    host: &Host,
    driver: &Driver,
    capabilities: &Capabilities,
) -> Result<Files, DeviceError> {
    let root = Root::open(host.driver_path())?;
    let version = &driver.version;
    let mut libraries = libraries(&root, version, capabilities, Width::Native)?;
    if capabilities.has(Capability::Compat32) {
        libraries.extend(self::libraries(&root, version, capabilities, Width::Narrow)?);
    }
    let files = Files {
        libraries,
        programs: programs(&root, capabilities)?,
        firmware: firmware(&root, host, version)?,
        data: data(&root, version, capabilities)?,
        x_modules: x_modules(&root, version, capabilities)?,
    };
    has_essentials(&files, &root, version, capabilities)?;
    Ok(files)
}

/// A capability that is named has to be there; of `all`, what the node has: only CUDA and NVML have every node.
fn has_essentials(
    files: &Files,
    root: &Root,
    version: &str,
    capabilities: &Capabilities,
) -> Result<(), DeviceError> {
    let every = Capabilities::default();
    let asked = |one| capabilities.has(one) && (every.has(one) || !capabilities.is_all());
    let has = |stem: &str, width| {
        files.libraries.iter().any(|(found, library)| {
            library.width == width && families::stem(&found.name, version) == Some(stem)
        })
    };
    let searched = |dirs: &[&str]| dirs.iter().map(|&dir| dir.to_owned()).collect();
    for (capability, stems) in families::ESSENTIAL {
        if asked(capability) && !stems.iter().any(|stem| has(stem, Width::Native)) {
            return Err(DeviceError::NoLibrary {
                library: stems[0],
                version: version.to_owned(),
                capability: capability.name(),
                root: root.path.clone(),
                searched: searched(&LIB_DIRS),
            });
        }
    }
    let narrow = |(_, library): &(Found, elf::Library)| library.width == Width::Narrow;
    if asked(Capability::Compat32) && !files.libraries.iter().any(narrow) {
        return Err(DeviceError::NoNarrowLibrary {
            version: version.to_owned(),
            root: root.path.clone(),
            searched: searched(&LIB_DIRS_OF_32_BITS),
        });
    }
    Ok(())
}

fn libraries(
    root: &Root,
    version: &str,
    capabilities: &Capabilities,
    width: Width,
) -> Result<Vec<(Found, elf::Library)>, DeviceError> {
    let mut found: Vec<(Found, elf::Library)> = Vec::new();
    for dir in library_dirs(root, width)? {
        for name in root.names(&dir)? {
            let Some(stem) = families::stem(&name, version) else { continue };
            let known = found.iter().any(|(other, _)| other.name == name);
            if known || !families::is_of(stem, capabilities) {
                continue;
            }
            // Where every number is a version, a link is just another name.
            let follow = !families::has_own_version(stem);
            let Some(file) = root.file(&dir, name, follow)? else { continue };
            if let Some(library) = elf::library(&file.file).filter(|one| one.width == width) {
                found.push((file, library));
            }
        }
    }
    Ok(found)
}

/// The loader's directories, and those below them where distributions put a driver of several.
fn library_dirs(root: &Root, width: Width) -> Result<Vec<String>, DeviceError> {
    let mut dirs = Vec::new();
    let loaders = match width {
        Width::Native => &LIB_DIRS[..],
        Width::Narrow => &LIB_DIRS_OF_32_BITS,
    };
    for dir in loaders {
        dirs.push((*dir).to_owned());
        dirs.push(format!("{dir}/vdpau"));
        // Debian's alternatives: `nvidia/current`, `nvidia/tesla-535`.
        for variant in root.names(&format!("{dir}/nvidia"))? {
            dirs.push(format!("{dir}/nvidia/{variant}"));
        }
    }
    Ok(dirs)
}

fn programs(root: &Root, capabilities: &Capabilities) -> Result<Vec<Found>, DeviceError> {
    let mut found = Vec::new();
    for (name, capability) in families::PROGRAMS {
        if capabilities.has(capability) {
            found.extend(root.first(&BIN_DIRS, name)?);
        }
    }
    Ok(found)
}

fn firmware(root: &Root, host: &Host, version: &str) -> Result<Vec<Found>, DeviceError> {
    let parameter = host.path("/sys/module/firmware_class/parameters/path");
    let own = std::fs::read_to_string(parameter).unwrap_or_default();
    // The kernel's path is the host's; the driver's root may be a part of it.
    let own = Path::new(own.trim());
    let own = own.strip_prefix(&host.driver_root).unwrap_or(own).to_string_lossy().into_owned();
    let own = Some(own).filter(|own| !own.is_empty());
    let dirs = own.into_iter().chain(FIRMWARE_DIRS.map(str::to_owned));
    for dir in dirs.map(|dir| format!("{dir}/nvidia/{version}")) {
        let mut found = Vec::new();
        for name in root.names(&dir)? {
            if name.starts_with("gsp") && name.ends_with(".bin") {
                found.extend(root.file(&dir, name, true)?);
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

fn data(
    root: &Root,
    version: &str,
    capabilities: &Capabilities,
) -> Result<Vec<Found>, DeviceError> {
    let mut found: Vec<Found> = Vec::new();
    for data in data::DATA.iter().filter(|data| data.is_for(capabilities)) {
        for dir in data::BASES.map(|base| format!("{base}/{}", data.folder)) {
            for name in root.names(&dir)? {
                // One that is there twice is read twice.
                let known = |other: &Found| {
                    other.name == name && other.path.ends_with(&format!("{}/{name}", data.folder))
                };
                if data.has(&name, capabilities, version) && !found.iter().any(known) {
                    found.extend(root.file(&dir, name, true)?);
                }
            }
        }
    }
    Ok(found)
}

fn x_modules(
    root: &Root,
    version: &str,
    capabilities: &Capabilities,
) -> Result<Vec<Found>, DeviceError> {
    if !capabilities.has(Capability::Display) {
        return Ok(Vec::new());
    }
    let dirs =
        LIB_DIRS.iter().flat_map(|dir| data::X_FOLDERS.map(|below| format!("{dir}/{below}")));
    let dirs: Vec<String> = dirs.collect();
    let mut found = Vec::new();
    for name in [data::X_DRIVER.to_owned(), format!("{}.{version}", data::X_GLX)] {
        for dir in &dirs {
            let module = root.file(dir, name.clone(), true)?;
            let is_ours = |module: &Found| {
                elf::library(&module.file).is_some_and(|one| one.width == Width::Native)
            };
            if let Some(module) = module.filter(is_ours) {
                found.push(module);
                break;
            }
        }
    }
    Ok(found)
}

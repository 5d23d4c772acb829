//! Preparing a tree: hard links to the driver's files where they can be, copies where not.
//!
//! ```text
//! lock ─► find ─► fingerprint ─► there and whole? ─► else: build beside it ─► rename ─► this boot's link to it
//! ```
//!
//! Decides whether a tree that stands is whole: it outlives the boot, and a power cut may have taken parts of it. Must not run where
//! containers are launched: it reads and may copy hundreds of MiB.

use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions};
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg};
use nix::unistd::linkat;
use plan::{Capabilities, Driver};

use super::files::find;
use super::layout::Layout;
use super::root::Found;
use super::{DriverTree, FORMAT, Manifest, checked_name, joined, known, plain, read_manifest};
use crate::error::{DeviceError, file};
use crate::{Host, keep};

/// Prepares the driver's files of these capabilities, or finds that they are prepared.
///
/// # Errors
/// When the files are not where they should be, or the tree cannot be written.
pub fn prepare_driver(
    host: &Host,
    driver: &Driver,
    capabilities: &Capabilities,
) -> Result<DriverTree, DeviceError> {
    let trees = host.state.join("driver").join(plain(&driver.version));
    keep::make_dir(&trees)?;
    let _lock = lock(&trees)?;
    // Whoever holds the lock is alone: what is unfinished is a killed one's.
    for name in keep::names(&trees)?.iter().filter(|name| name.starts_with(keep::TEMPORARY)) {
        remove(&trees.join(name))?;
    }
    let layout = Layout::of(find(host, driver, capabilities)?, &driver.version);
    let folder = trees.join(format!("{}-{}", joined(capabilities), layout.fingerprint()));
    if !is_whole(&layout, &folder)? {
        let unfinished = keep::beside(&folder);
        build(&layout, &folder, &unfinished)?;
        if folder.exists() {
            fs::rename(&folder, keep::beside(&folder)).map_err(file("set aside", &folder))?;
        }
        fs::rename(&unfinished, &folder).map_err(file("put in its place", &folder))?;
    }
    let checked = keep::boot_dir(host)?.join(checked_name(host, driver, capabilities));
    point(&checked, &folder)?;
    let missing = || file("read what was just written in", &folder)(io::ErrorKind::NotFound.into());
    known(host, &checked, capabilities)?.ok_or_else(missing)
}

fn lock(trees: &Path) -> Result<Flock<File>, DeviceError> {
    let path = trees.join("lock");
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = open.map_err(file("open the lock", &path))?;
    let locked = Flock::lock(lock, FlockArg::LockExclusive);
    locked.map_err(|(_, errno)| file("lock", &path)(errno.into()))
}

/// Makes `link` lead to `folder`, in one step.
fn point(link: &Path, folder: &Path) -> Result<(), DeviceError> {
    let unfinished = keep::beside(link);
    symlink(folder, &unfinished).map_err(file("create the link", &unfinished))?;
    fs::rename(&unfinished, link).map_err(file("put in its place", link))
}

fn build(layout: &Layout, folder: &Path, unfinished: &Path) -> Result<(), DeviceError> {
    let root = unfinished.join("root");
    let tree = layout.tree(folder.join("root"));
    keep::make_dir(unfinished)?;
    make_visible(&root)?;
    for dir in &tree.directories {
        make_visible(&root.join(dir))?;
    }
    for (place, found) in &layout.files {
        link_or_copy(found, &at(&root, place))?;
    }
    for (place, target) in &layout.links {
        symlink(target, at(&root, place)).map_err(file("create the link", place))?;
    }
    for (place, text) in &layout.texts {
        let path = at(&root, place);
        keep::write_new(&path, text.as_bytes(), 0o444).map_err(file("write", &path))?;
    }
    let manifest = unfinished.join("manifest.json");
    let bytes = serde_json::to_vec(&Manifest { format: FORMAT, tree }).map_err(|error| {
        let how = format!("cannot be written: {error}");
        DeviceError::Malformed { path: manifest.clone(), how }
    })?;
    keep::write_new(&manifest, &bytes, 0o600).map_err(file("write", &manifest))
}

fn at(root: &Path, place: &str) -> PathBuf {
    root.join(place.trim_start_matches('/'))
}

/// A folder that users in containers may enter, whatever our umask is.
fn make_visible(dir: &Path) -> Result<(), DeviceError> {
    let mode = DriverTree::DIRECTORY_MODE;
    let made = DirBuilder::new().mode(mode).create(dir);
    made.and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(mode)))
        .map_err(file("create the folder", dir))
}

/// Links the very file that was found, not what has its name by now.
fn link_or_copy(found: &Found, to: &Path) -> Result<(), DeviceError> {
    let from = format!("/proc/self/fd/{}", found.file.as_raw_fd());
    match linkat(AT_FDCWD, from.as_str(), AT_FDCWD, to, AtFlags::AT_SYMLINK_FOLLOW) {
        Ok(()) => Ok(()),
        // Another filesystem; not allowed or not known there; too many links.
        Err(Errno::EXDEV | Errno::EPERM | Errno::EACCES | Errno::EMLINK | Errno::EOPNOTSUPP) => {
            copy(found, to).map_err(file("copy a driver file to", to))
        }
        Err(errno) => Err(file("link a driver file to", to)(errno.into())),
    }
}

/// The copy outlives the boot, so it must be on the disk before the tree is: the next boot takes it for whole by size and time.
fn copy(found: &Found, to: &Path) -> io::Result<()> {
    let mut from = &found.file;
    from.rewind()?;
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut from, &mut copy)?;
    copy.set_permissions(fs::Permissions::from_mode(found.meta.mode() & 0o755))?;
    copy.set_times(FileTimes::new().set_modified(found.meta.modified()?))?;
    copy.sync_all()
}

/// Whether the tree stands as it was built: every file the one that was found, or a copy of its size and time.
fn is_whole(layout: &Layout, folder: &Path) -> Result<bool, DeviceError> {
    let root = folder.join("root");
    if read_manifest(folder)?.as_ref() != Some(&layout.tree(root.clone())) {
        return Ok(false);
    }
    let file = |(place, found): &(String, Found)| {
        fs::symlink_metadata(at(&root, place)).is_ok_and(|meta| {
            let same = (meta.dev(), meta.ino()) == (found.meta.dev(), found.meta.ino());
            let time = meta.modified().ok() == found.meta.modified().ok();
            same || (meta.is_file() && meta.len() == found.meta.len() && time)
        })
    };
    let link = |(place, target): &(String, String)| {
        fs::read_link(at(&root, place)).is_ok_and(|found| found == Path::new(target))
    };
    let text = |(place, text): &(String, String)| {
        fs::read(at(&root, place)).is_ok_and(|found| found == text.as_bytes())
    };
    Ok(layout.files.iter().all(file)
        && layout.links.iter().all(link)
        && layout.texts.iter().all(text))
}

fn remove(path: &Path) -> Result<(), DeviceError> {
    fs::remove_dir_all(path).map_err(file("remove the unfinished", path))
}

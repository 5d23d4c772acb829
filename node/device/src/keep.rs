//! What Berth keeps for the boot, and how files are read and replaced.
//!
//! Decides that a file is there whole or not at all: it is written beside its place and renamed. Nothing is synced, since nothing of it
//! outlives the boot.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Host;
use crate::error::{DeviceError, file};

/// Most that is read of any file: more is no file of the kernel's, the driver's or ours.
pub(crate) const MOST: u64 = 64 << 20;

/// The folder of this boot, made if it is missing.
pub(crate) fn boot_dir(host: &Host) -> Result<PathBuf, DeviceError> {
    let dir = host.run.join(host.boot_id()?);
    make_dir(&dir)?;
    Ok(dir)
}

/// Makes a folder that is ours alone.
pub(crate) fn make_dir(dir: &Path) -> Result<(), DeviceError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(file("create the folder", dir))
}

/// Where files are kept for one container each.
const KEPT: &str = "kept";

/// Keeps a file until it is forgotten or the boot ends, under a name without slashes, and says where it is.
///
/// # Errors
/// When it cannot be written.
pub fn keep(host: &Host, name: &str, bytes: &[u8]) -> Result<PathBuf, DeviceError> {
    let dir = boot_dir(host)?.join(KEPT);
    make_dir(&dir)?;
    let path = dir.join(name.replace('/', "_"));
    replace(&path, bytes, 0o644)?;
    Ok(path)
}

/// Names of the files that are kept.
///
/// # Errors
/// When they cannot be listed.
pub fn kept(host: &Host) -> Result<Vec<String>, DeviceError> {
    names(&boot_dir(host)?.join(KEPT))
}

/// Removes a kept file, if it is there. Where it is mounted it stays.
///
/// # Errors
/// When it cannot be removed.
pub fn forget(host: &Host, name: &str) -> Result<(), DeviceError> {
    remove(&boot_dir(host)?.join(KEPT).join(name.replace('/', "_")))
}

/// Removes what killed processes left unfinished in this boot's folders.
///
/// # Errors
/// When it cannot be listed or removed.
pub fn sweep(host: &Host) -> Result<(), DeviceError> {
    let boot = boot_dir(host)?;
    for dir in [boot.join(KEPT), boot.join("proc"), boot] {
        for name in names(&dir)?.iter().filter(|name| is_abandoned(name)) {
            remove(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Whether the process is gone that made an unfinished file: [`beside`] names it. Another one with its number keeps the file a while longer.
fn is_abandoned(name: &str) -> bool {
    let pid = name.strip_prefix(TEMPORARY).and_then(|rest| rest.rsplit('.').nth(1));
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// Removes a file, or a folder with what is in it, that may have gone already.
fn remove(path: &Path) -> Result<(), DeviceError> {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let removed = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if !is_absent(&error) => Err(file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Puts a file in its place in one step.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DeviceError> {
    let temporary = beside(path);
    let written = write_new(&temporary, bytes, mode)
        .map_err(file("write", &temporary))
        .and_then(|()| fs::rename(&temporary, path).map_err(file("put in its place", path)));
    if written.is_err() {
        // What stays if this fails, too, goes with the boot.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes a file that must not exist, with exactly this mode.
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// A name next to `path` that nobody else uses.
pub(crate) fn beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = OsString::from(TEMPORARY);
    name.push(path.file_name().unwrap_or_default());
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}.{number}", std::process::id()));
    path.with_file_name(name)
}

/// How names of unfinished files and folders begin.
pub(crate) const TEMPORARY: &str = ".new-";

/// Reads a file, if it is there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, DeviceError> {
    // Opening a fifo must not wait for its other end.
    let opened = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if is_absent(&error) => return Ok(None),
        opened => opened.map_err(file("open", path))?,
    };
    let mut bytes = Vec::new();
    opened.take(MOST + 1).read_to_end(&mut bytes).map_err(file("read", path))?;
    if bytes.len() as u64 > MOST {
        let how = format!("is larger than {} MiB: what is it?", MOST >> 20);
        return Err(DeviceError::Malformed { path: path.into(), how });
    }
    Ok(Some(bytes))
}

/// Reads a file of this size at most that root has written, or whoever this process is: no link, no fifo, nothing of a container's.
///
/// # Errors
/// When it is anything else, or cannot be read.
pub fn read_of_root(path: &Path, most: u64) -> Result<Vec<u8>, DeviceError> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let opened = opened.map_err(file("open", path))?;
    let meta = opened.metadata().map_err(file("look at", path))?;
    let is_own = [0, nix::unistd::geteuid().as_raw()].contains(&meta.uid());
    if !meta.is_file() || !is_own || meta.len() > most {
        let how = format!("is no file of root's with {most} bytes at most, and is not believed");
        return Err(DeviceError::Malformed { path: path.into(), how });
    }
    let mut bytes = Vec::new();
    opened.take(most).read_to_end(&mut bytes).map_err(file("read", path))?;
    Ok(bytes)
}

/// Reads a text that must be there.
pub(crate) fn read_text(path: &Path) -> Result<String, DeviceError> {
    let absent = || file("read", path)(io::ErrorKind::NotFound.into());
    let bytes = read(path)?.ok_or_else(absent)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Names in a folder, sorted; none where there is no folder.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, DeviceError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        entries => entries.map_err(file("list", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(file("list", dir))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Whether a name is this, and a number behind it.
pub(crate) fn is_numbered(name: &str, before: &str) -> bool {
    let number = name.strip_prefix(before).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        replace(&path, b"one", 0o444).expect("written");
        replace(&path, b"two", 0o640).expect("replaced though it was read-only");
        assert_eq!(read(&path).expect("read").as_deref(), Some(&b"two"[..]));
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(names(dir.path()).expect("listed"), ["file"]);
    }

    #[test]
    fn what_the_dead_left_unfinished_is_swept_and_what_the_living_make_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let id = "c0ffee00-0000-4000-8000-000000000000";
        let proc = dir.path().join("proc/sys/kernel/random");
        fs::create_dir_all(&proc).expect("made");
        fs::write(proc.join("boot_id"), id).expect("written");
        let at = |name: &str| dir.path().join(name);
        let host = Host {
            root: dir.path().into(),
            driver_root: "/".into(),
            nvml: "x".into(),
            run: at("run"),
            state: at("state"),
        };
        let boot = boot_dir(&host).expect("made");
        let kept = keep(&host, "a/b", b"x").expect("kept");
        let living = beside(&kept);
        fs::write(&living, "").expect("written");
        // No process has a number like this: see PID_MAX_LIMIT in the kernel.
        let tree = boot.join("proc/.new-0123.4194999.7/nvidia");
        fs::create_dir_all(&tree).expect("made");
        fs::write(boot.join(".new-inventory.json.4194999.0"), "").expect("written");
        sweep(&host).expect("swept");
        assert_eq!(names(&boot).expect("listed"), ["kept", "proc"]);
        assert!(names(&boot.join("proc")).expect("listed").is_empty());
        assert!(living.exists() && kept.exists());
        forget(&host, "a/b").expect("forgotten");
        forget(&host, "a/b").expect("forgotten already");
        assert!(!kept.exists());
    }

    #[test]
    fn a_failed_replacement_leaves_nothing_and_names_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("taken");
        fs::create_dir_all(path.join("in the way")).expect("made");
        let error = replace(&path, b"x", 0o600).expect_err("a folder is there").to_string();
        assert!(error.contains("/taken"), "{error}");
        assert_eq!(names(dir.path()).expect("listed"), ["taken"]);
    }

    #[test]
    fn what_is_not_there_is_absent_and_what_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(&dir.path().join("a/b")).expect("absent"), None);
        assert!(names(&dir.path().join("a")).expect("absent").is_empty());
        assert!(read(dir.path()).is_err(), "a folder is no file");
    }
}

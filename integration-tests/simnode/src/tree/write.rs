//! Making files below a root, by paths relative to it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::error::{At, NodeError};

/// A root to write below.
pub(super) struct Tree {
    root: PathBuf,
}

/// The text of a file of this machine.
pub(super) fn read(path: &Path) -> Result<String, NodeError> {
    fs::read_to_string(path).at("read", path)
}

impl Tree {
    pub fn create(root: &Path) -> Result<Self, NodeError> {
        fs::create_dir(root).at("create", root)?;
        Ok(Self::open(root))
    }

    pub fn open(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The path on this machine, its parent made.
    fn place(&self, path: impl AsRef<Path>) -> Result<PathBuf, NodeError> {
        let place = self.root.join(path);
        let parent = place.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).at("create", parent)?;
        Ok(place)
    }

    /// The path on this machine.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Whether something is there.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        fs::symlink_metadata(self.root.join(path)).is_ok()
    }

    /// Names of the folders in a folder.
    pub fn folders(&self, path: impl AsRef<Path>) -> Result<Vec<String>, NodeError> {
        let place = self.root.join(path);
        let entries = fs::read_dir(&place).at("list", &place)?.flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        Ok(folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    pub fn folder(&self, path: impl AsRef<Path>) -> Result<(), NodeError> {
        let place = self.root.join(path);
        fs::create_dir_all(&place).at("create", &place)
    }

    pub fn file(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> Result<(), NodeError> {
        let place = self.place(path)?;
        fs::write(&place, text).at("write", &place)
    }

    /// One line.
    pub fn line(&self, path: impl AsRef<Path>, text: impl AsRef<str>) -> Result<(), NodeError> {
        self.file(path, format!("{}\n", text.as_ref()))
    }

    /// A file that can be executed.
    pub fn program(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> Result<(), NodeError> {
        let place = self.place(path)?;
        fs::write(&place, text).at("write", &place)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).at("chmod", &place)
    }

    /// A copy of a file of this machine.
    pub fn copy(&self, path: impl AsRef<Path>, from: &Path, mode: u32) -> Result<(), NodeError> {
        let place = self.place(path)?;
        fs::copy(from, &place).at("copy", from)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).at("chmod", &place)
    }

    /// A symbolic link.
    pub fn link(&self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<(), NodeError> {
        let place = self.place(path)?;
        symlink(target, &place).at("link", &place)
    }

    /// A character device.
    pub fn device(&self, path: &str, number: (u32, u32), mode: u32) -> Result<(), NodeError> {
        let place = self.place(path)?;
        let number = makedev(number.0.into(), number.1.into());
        mknod(&place, SFlag::S_IFCHR, Mode::from_bits_truncate(mode), number)
            .at("mknod", &place)?;
        // Against the umask.
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).at("chmod", &place)
    }

    /// A Unix socket that nobody listens on.
    pub fn socket(&self, path: &str) -> Result<(), NodeError> {
        let place = self.place(path)?;
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&place, SFlag::S_IFSOCK, mode, 0).at("make the socket", &place)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o666)).at("chmod", &place)
    }

    /// Moves a folder in the place of another one, which goes.
    pub fn exchange(&self, path: &str, fresh: &str) -> Result<(), NodeError> {
        // Both are there at once, so that they cannot have the same inode.
        let old = format!("{path}.old");
        let (place, fresh, aside) =
            (self.root.join(path), self.root.join(fresh), self.root.join(&old));
        if place.exists() {
            fs::rename(&place, &aside).at("rename", &place)?;
        }
        fs::rename(&fresh, &place).at("rename", &fresh)?;
        self.remove(&old)
    }

    /// Removes a folder or link with what is in it; nothing to do when it is not there.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<(), NodeError> {
        let place = self.root.join(path);
        match fs::symlink_metadata(&place) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&place).at("remove", &place),
            Ok(_) => fs::remove_file(&place).at("remove", &place),
            Err(_) => Ok(()),
        }
    }
}

//! Images with a loader of their own, as real ones have: made of this machine's libc, in the layouts that distributions use.
//!
//! Decides where things are in each layout. What is in them is enough for a shell, `ldconfig -p` and programs that load libraries.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::tarball::Tarball;
use crate::busybox;

/// How an image lays out its libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Merged /usr, libraries below `/usr/lib/<triplet>`, a loader cache.
    Debian,
    /// Merged /usr, libraries in `/usr/lib64`, a loader cache.
    RedHat,
    /// As Debian's, without a loader cache: an image of copied files.
    Cacheless,
    /// musl's loader, which knows no cache.
    Musl,
}

/// All of them.
pub const LAYOUTS: [Layout; 4] = [Layout::Debian, Layout::RedHat, Layout::Cacheless, Layout::Musl];

impl Layout {
    /// The image's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian => "localhost/berth/debian:test",
            Self::RedHat => "localhost/berth/redhat:test",
            Self::Cacheless => "localhost/berth/cacheless:test",
            Self::Musl => "localhost/berth/musl:test",
        }
    }

    fn libraries(self) -> String {
        match self {
            Self::Debian | Self::Cacheless => format!("usr/lib/{}", triplet()),
            Self::RedHat => "usr/lib64".into(),
            Self::Musl => "usr/lib".into(),
        }
    }

    /// Builds the root file system in `root`.
    ///
    /// # Errors
    /// When this machine lacks busybox-static, a libc or ldconfig.
    pub fn build(self, root: &Path) -> Result<()> {
        for folder in ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc/ld.so.conf.d", "proc"] {
            fs::create_dir_all(root.join(folder))?;
        }
        for folder in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{folder}"), root.join(folder))?;
        }
        busybox::build(root)?;
        fs::create_dir_all(root.join(self.libraries()))?;
        if self == Self::Musl {
            let loader = format!("usr/lib/ld-musl-{}.so.1", std::env::consts::ARCH);
            return Ok(fs::write(root.join(loader), b"")?);
        }
        self.install_libc(root)?;
        let config = "include /etc/ld.so.conf.d/*.conf\n";
        fs::write(root.join("etc/ld.so.conf"), config)?;
        fs::write(root.join("etc/ld.so.conf.d/libc.conf"), format!("/{}\n", self.libraries()))?;
        if self != Self::Cacheless {
            // A tree of our own making: nothing in it can lead ldconfig astray.
            let status = Command::new("/sbin/ldconfig").arg("-r").arg(root).status();
            ensure!(status.context("run ldconfig")?.success(), "ldconfig failed");
        }
        Ok(())
    }

    fn install_libc(self, root: &Path) -> Result<()> {
        let loader = loader();
        let name = loader.file_name().context("a loader")?;
        fs::copy(&loader, root.join("usr/lib64").join(name)).context("copy the loader")?;
        let from = Path::new("/usr/lib").join(triplet());
        for library in ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libgcc_s.so.1"]
        {
            let source = [from.join(library), Path::new("/lib").join(triplet()).join(library)]
                .into_iter()
                .find(|path| path.exists())
                .with_context(|| format!("{library} is not on this machine"))?;
            fs::copy(&source, root.join(self.libraries()).join(library))?;
        }
        fs::copy("/sbin/ldconfig", root.join("usr/sbin/ldconfig")).context("copy ldconfig")?;
        Ok(())
    }

    /// The image's one layer.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn layer(self) -> Result<Vec<u8>> {
        layer(|root| self.build(root))
    }
}

/// A layer of the files that `build` makes in a folder.
pub(super) fn layer(build: impl FnOnce(&Path) -> Result<()>) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    build(folder.path())?;
    let mut tar = Tarball::default();
    pack(&mut tar, folder.path(), Path::new(""))?;
    Ok(tar.finish())
}

fn pack(tar: &mut Tarball, root: &Path, below: &Path) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(root.join(below))?.collect::<std::io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        let name = path.to_str().context("a plain name")?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            tar.folder(name)?;
            pack(tar, root, &path)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path())?;
            tar.link(name, target.to_str().context("a plain name")?)?;
        } else if kind.is_fifo() {
            tar.special(name, None)?;
        } else if kind.is_char_device() {
            let device = entry.metadata()?.rdev();
            let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
            tar.special(name, Some((major.try_into()?, minor.try_into()?)))?;
        } else {
            let mode = std::os::unix::fs::PermissionsExt::mode(&entry.metadata()?.permissions());
            tar.file(name, mode & 0o777, &fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

fn triplet() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// The machine's own dynamic loader.
fn loader() -> PathBuf {
    let name = match std::env::consts::ARCH {
        "aarch64" => "/lib/ld-linux-aarch64.so.1",
        _ => "/lib64/ld-linux-x86-64.so.2",
    };
    PathBuf::from(name)
}

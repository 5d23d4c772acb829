//! Opening what containerd names.
//!
//! Decides that no open ever waits for the other side: output fifos are opened for both directions,
//! input fifos first for reading and then for writing. Must not move data.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::uri::Scheme;

/// Where output goes.
#[derive(Debug)]
pub enum Target {
    /// A fifo or another pipe; never blocks.
    Pipe(OwnedFd),
    /// A regular file, opened for appending.
    File(File),
}

impl Target {
    /// Opens the fifo, or whatever else is there, under `name`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open(name: &str) -> io::Result<Self> {
        let name = Scheme::plain(name);
        if !std::fs::metadata(name)?.file_type().is_fifo() {
            return Self::append_to(OpenOptions::new().append(true), name.as_ref());
        }
        // For both directions: opening does not wait for a reader, and what is written while there is
        // none stays in the fifo.
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        Ok(Self::Pipe(options.open(name)?.into()))
    }

    /// Opens a log file, made with the folders above it if need be.
    ///
    /// # Errors
    /// What the kernel said; ENXIO for a fifo that nobody reads.
    pub fn log_file(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Self::append_to(OpenOptions::new().create(true).append(true), path)
    }

    fn append_to(options: &mut OpenOptions, path: &Path) -> io::Result<Self> {
        // Not even a fifo that was put in the file's place may keep the event loop waiting.
        let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
        let is_fifo = file.metadata()?.file_type().is_fifo();
        Ok(if is_fifo { Self::Pipe(file.into()) } else { Self::File(file) })
    }

    /// The same target once more, for a second stream.
    ///
    /// # Errors
    /// EMFILE.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Pipe(fd) => Self::Pipe(fd.try_clone()?),
            Self::File(file) => Self::File(file.try_clone()?),
        })
    }

    /// A pipe of our own, which something else reads.
    pub fn pipe(writer: PipeWriter) -> Self {
        Self::Pipe(writer.into())
    }
}

/// Where input comes from.
#[derive(Debug)]
pub enum Source {
    /// A fifo: an end to read from, and one that keeps it from ending.
    Fifo(OwnedFd, OwnedFd),
    /// Anything else, which the container may have as it is.
    File(File),
}

impl Source {
    /// Opens what is under `name`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open(name: &str) -> io::Result<Self> {
        let name = Scheme::plain(name);
        let mut options = OpenOptions::new();
        let reader = options.read(true).custom_flags(libc::O_NONBLOCK).open(name)?;
        if !reader.metadata()?.file_type().is_fifo() {
            return Ok(Self::File(reader));
        }
        let mut options = OpenOptions::new();
        let holder = options.write(true).custom_flags(libc::O_NONBLOCK).open(name)?;
        Ok(Self::Fifo(reader.into(), holder.into()))
    }
}

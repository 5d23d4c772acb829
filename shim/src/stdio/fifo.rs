//! Opening what containerd names.
//!
//! Decides that no open ever waits for the other side: output fifos are opened for both directions,
//! input fifos first for reading and then for writing. Must not move data.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

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
        let is_fifo = std::fs::metadata(name)?.file_type().is_fifo();
        if is_fifo {
            // For both directions: opening does not wait for a reader, and what is written while
            // there is none stays in the fifo.
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
            Ok(Self::Pipe(options.open(name)?.into()))
        } else {
            Ok(Self::File(OpenOptions::new().append(true).open(name)?))
        }
    }

    /// A pipe of our own, which something else reads.
    pub fn pipe(writer: PipeWriter) -> Self {
        Self::Pipe(writer.into())
    }
}

/// Opens an input fifo: an end to read from, and one that keeps it from ending.
///
/// # Errors
/// What the kernel said.
pub fn open_input(name: &str) -> io::Result<(OwnedFd, OwnedFd)> {
    let name = Scheme::plain(name);
    let mut options = OpenOptions::new();
    let reader = options.read(true).custom_flags(libc::O_NONBLOCK).open(name)?;
    let mut options = OpenOptions::new();
    let holder = options.write(true).custom_flags(libc::O_NONBLOCK).open(name)?;
    Ok((reader.into(), holder.into()))
}

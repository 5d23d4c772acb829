//! Connected stdio of a running process.
//!
//! Decides what is moved from where to where, and in which order it ends. Must not know containers.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::console::resize;
use super::copy::register;
use super::logger::Logger;
use super::pump::Pump;
use super::{Pending, StdioError};

/// Everything that moves for one process.
#[derive(Debug, Default)]
pub struct Streams {
    outputs: Vec<Pump>,
    input: Option<Pump>,
    /// Keeps the input fifo from ending.
    holder: Mutex<Option<OwnedFd>>,
    terminal: Option<Arc<AsyncFd<OwnedFd>>>,
    logger: Option<Logger>,
}

impl Streams {
    pub(super) fn start(pending: Pending) -> Result<Self, StdioError> {
        let setup = |what| move |source: io::Error| StdioError::Setup { what, source };
        let mut streams = Self { logger: pending.logger, ..Self::default() };
        if let Some(socket) = &pending.console {
            let master = socket.receive().map_err(StdioError::NoTerminal)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            let master = register(master, interest).map_err(setup("terminal"))?;
            streams.terminal = Some(Arc::new(master));
        }
        for output in pending.outputs {
            let pump = match (output.pipe, &streams.terminal) {
                (Some(pipe), _) => Pump::from_pipe(pipe, output.target),
                (None, Some(master)) => Pump::from_terminal(master.clone(), output.target),
                (None, None) => continue,
            };
            streams.outputs.push(pump.map_err(setup("output"))?);
        }
        if let Some(input) = pending.input {
            let pump = match (input.pipe, &streams.terminal) {
                (Some(pipe), _) => Pump::into_pipe(input.reader, pipe.into()),
                (None, Some(master)) => Pump::into_terminal(input.reader, master.clone()),
                (None, None) => return Ok(streams),
            };
            streams.input = Some(pump.map_err(setup("input"))?);
            streams.holder = Mutex::new(Some(input.holder));
        }
        Ok(streams)
    }

    /// Lets the input end once its last writer has gone.
    pub fn close_input(&self) {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Sets the terminal's size in characters; without a terminal, nothing.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        match &self.terminal {
            Some(master) => resize(master.get_ref(), width, height),
            None => Ok(()),
        }
    }

    /// Drains what the ended process has written, for at most `limit`, and closes everything.
    pub async fn finish(mut self, limit: Duration) {
        drop(self.input.take());
        // A process that outlives the container's may hold the other side of a terminal.
        drop(self.terminal.take());
        let drain = async {
            for output in &mut self.outputs {
                output.drained().await;
            }
        };
        if tokio::time::timeout(limit, drain).await.is_err() {
            warn!("output is still held back after {limit:?} and is cut off");
        }
        drop(self.outputs);
        if let Some(logger) = self.logger {
            logger.end().await;
        }
    }
}

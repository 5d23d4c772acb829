//! One process that containerd knows: a container's init, or an exec.
//!
//! Decides how turns are taken and what is remembered of an end. Must not call the runtime.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use super::error::TaskError;
use super::lifecycle::{Lifecycle, Turn, Verb};
use crate::process::{Exit, Handle};
use crate::stdio::{StdioSpec, Streams};

/// A process and what is known of it.
#[derive(Debug)]
pub struct Process {
    /// As errors name it.
    pub name: String,
    /// What containerd asked for.
    pub stdio: StdioSpec,
    lifecycle: watch::Sender<Lifecycle>,
    started: OnceLock<Started>,
    exit: watch::Sender<Option<Exit>>,
    stdio_state: Mutex<StdioState>,
}

#[derive(Debug, Default)]
struct StdioState {
    streams: Option<Streams>,
    /// Set by a close that came before there was anything to close.
    input_closed: bool,
}

/// What is known once the runtime has made the process.
#[derive(Debug)]
struct Started {
    pid: i32,
    /// `None` when it had ended before it could be held.
    handle: Option<Handle>,
}

/// A turn that is under way. Dropped without success, it counts as failed.
#[derive(Debug)]
pub struct TurnGuard {
    process: Arc<Process>,
    succeeded: bool,
}

impl Process {
    /// A process that is about to be made.
    pub fn new(name: String, stdio: StdioSpec) -> Self {
        Self {
            name,
            stdio,
            lifecycle: watch::Sender::new(Lifecycle::new()),
            started: OnceLock::new(),
            exit: watch::Sender::new(None),
            stdio_state: Mutex::default(),
        }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`TaskError::Illegal`] as soon as waiting is of no use.
    pub async fn turn(self: &Arc<Self>, verb: Verb) -> Result<TurnGuard, TaskError> {
        let mut changes = self.lifecycle.subscribe();
        loop {
            let mut turn = Ok(Turn::Wait);
            self.lifecycle.send_if_modified(|life| {
                turn = life.begin(verb);
                turn == Ok(Turn::Granted)
            });
            match turn {
                Ok(Turn::Granted) => {
                    return Ok(TurnGuard { process: Arc::clone(self), succeeded: false });
                }
                // Cannot fail while the sender is borrowed from `self`.
                Ok(Turn::Wait) => drop(changes.changed().await),
                Err(illegal) => {
                    return Err(TaskError::Illegal { name: self.name.clone(), illegal });
                }
            }
        }
    }

    /// The state right now.
    pub fn lifecycle(&self) -> Lifecycle {
        *self.lifecycle.borrow()
    }

    /// Notes that the runtime has made the process.
    pub fn set_started(&self, pid: i32, handle: Option<Handle>) {
        // A process is made once; a second call would be a bug and changes nothing.
        let _ = self.started.set(Started { pid, handle });
    }

    /// Its PID, 0 before it is made.
    pub fn pid(&self) -> i32 {
        self.started.get().map_or(0, |started| started.pid)
    }

    /// A handle to signal it by; `None` before it is made, or if it had ended before it was held.
    pub fn handle(&self) -> Option<&Handle> {
        self.started.get()?.handle.as_ref()
    }

    fn stdio_state(&self) -> MutexGuard<'_, StdioState> {
        self.stdio_state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts its streams in place.
    pub fn set_streams(&self, streams: Streams) {
        let mut state = self.stdio_state();
        if state.input_closed {
            streams.close_input();
        }
        state.streams = Some(streams);
    }

    /// Takes its streams away, to end them.
    pub fn take_streams(&self) -> Option<Streams> {
        self.stdio_state().streams.take()
    }

    /// Lets its input end once the last writer has gone; also before it is started, as a client does
    /// whose own input was short.
    pub fn close_input(&self) {
        let mut state = self.stdio_state();
        state.input_closed = true;
        if let Some(streams) = &state.streams {
            streams.close_input();
        }
    }

    /// Sets the size of its terminal in characters; without one, nothing.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        self.stdio_state().streams.as_ref().map_or(Ok(()), |streams| streams.resize(width, height))
    }

    /// Notes that it has ended; nobody is told yet.
    pub fn reap(&self) {
        self.lifecycle.send_modify(Lifecycle::reap);
    }

    /// Waits until its end may be told.
    pub async fn may_tell_exit(&self) {
        // Cannot fail while the sender is borrowed from `self`.
        let _ = self.lifecycle.subscribe().wait_for(Lifecycle::may_tell_exit).await;
    }

    /// Tells everybody who waits.
    pub fn tell_exit(&self, exit: Exit) {
        self.exit.send_replace(Some(exit));
        self.lifecycle.send_modify(Lifecycle::exit);
    }

    /// Its end, if it has been told.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Exit {
        let mut exits = self.exit.subscribe();
        loop {
            if let Some(exit) = *exits.borrow_and_update() {
                return exit;
            }
            // Cannot fail while the sender is borrowed from `self`.
            let _ = exits.changed().await;
        }
    }
}

impl TurnGuard {
    /// Ends the turn with success.
    pub fn succeed(mut self) {
        self.succeeded = true;
    }
}

impl Drop for TurnGuard {
    fn drop(&mut self) {
        self.process.lifecycle.send_modify(|life| life.finish(self.succeeded));
    }
}

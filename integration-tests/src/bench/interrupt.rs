//! Turns Ctrl-C and SIGTERM into a wish that the bench asks about between its steps, so that it takes its
//! containers down before it leaves.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: libc::c_int) {
    ASKED.store(true, Ordering::Relaxed);
}

/// Whether the user wants to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Installs the handler. A handler, not a mask: a mask would be inherited by every shim and container.
pub fn watch() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: sigaction is unsafe because a handler may run anywhere; this one stores an atomic only,
        // which is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

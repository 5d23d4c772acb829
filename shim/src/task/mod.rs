//! Tasks: containers and the processes in them, one file per verb.
//!
//! Decides what happens for each request of the Task API, free of its wire format. No lock is held over
//! an await: what takes time is guarded by a turn (see [`lifecycle`]), and whoever only reads or kills
//! waits for nothing.

mod admission;
mod checkpoint;
mod container;
mod create;
mod delete;
mod error;
mod exec;
mod exit;
mod kill;
mod lifecycle;
mod observe;
mod process;
mod record;
mod restore;
mod shim;
mod start;
mod update;

pub use checkpoint::CheckpointRequest;
pub use create::{CreateRequest, PID_FILE};
pub use delete::Deleted;
pub use error::TaskError;
pub use exec::ExecRequest;
pub use lifecycle::Status;
pub use record::Record;
pub use shim::Shim;

//! Processes as the kernel shows them: one reaper, one handle per process that is watched.

mod handle;
mod reaper;

pub use handle::Handle;
pub use reaper::{Exit, Reaper, Spawned};

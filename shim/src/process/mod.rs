//! Processes as the kernel shows them: one reaper, one handle per process that is watched.

mod handle;
mod reaper;

/// Tests are threads of one process and share its children, which a reaper reaps without asking whose
/// they are: whoever starts one holds this.
#[cfg(test)]
pub(crate) static CHILDREN: std::sync::Mutex<()> = std::sync::Mutex::new(());

pub use handle::Handle;
pub use reaper::{Exit, Expectation, Reaper, Spawned};

//! Work that may block, on a thread of its own.
//!
//! The event loop serves every container of a pod, so nothing that waits for a filesystem may run on
//! it. Decides nothing. A thread is started and ended each time rather than kept: such work is rare,
//! and an idle thread costs every pod memory.

use std::io;

use tokio::sync::oneshot;

/// Stack of such a thread: only what is touched is ever real. Parsing what others wrote may go some hundred calls deep.
const STACK: usize = 1024 * 1024;

/// Runs `work` and returns what it returned.
///
/// # Errors
/// EAGAIN when no thread could be started; `Other` when the work panicked.
pub async fn off_loop<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, result) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        // A receiver that is gone does not want the result any more.
        .spawn(move || drop(sender.send(work())))?;
    result.await.map_err(|_| io::Error::other(format!("the {name} thread panicked")))
}

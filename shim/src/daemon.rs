//! The shim process: one event loop, one thread, until its last container is gone.
//!
//! Decides how the process presents itself to the host, what it does on signals, and when it ends.
//! Must not know verbs.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setpgid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use crate::bootstrap::Inheritance;
use crate::cli::Cli;
use crate::events::Events;
use crate::logging;
use crate::process::Reaper;
use crate::service::services;
use crate::stdio::LOGGER_GRACE;
use crate::task::Shim;

/// How long the last events and answers may take: containerd gives Shutdown three seconds.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the shim could not serve.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {source}")]
pub struct ServeError {
    action: &'static str,
    source: io::Error,
}

/// Cuts the ties to whoever started us, and makes us the parent of orphans.
///
/// # Errors
/// [`ServeError`]
pub fn detach(bundle: &Path) -> Result<(), ServeError> {
    let fail = |action| move |source| ServeError { action, source };
    let null =
        File::options().read(true).write(true).open("/dev/null").map_err(fail("open /dev/null"))?;
    // Without containerd's fifo (started by hand) there is nobody to read a log.
    let log = logging::open_fifo(bundle);
    let log = log.as_ref().map_or(null.as_fd(), AsFd::as_fd);
    // The parent does the same: whoever comes first.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(log))
        .map_err(|errno| fail("let go of the standard streams")(errno.into()))?;
    forget_command();
    Ok(())
}

/// Serves until the last container is gone.
///
/// # Errors
/// [`ServeError`] when it could not begin.
pub fn serve(cli: &Cli, inheritance: Inheritance) -> Result<(), ServeError> {
    let fail = |action| move |source| ServeError { action, source };
    logging::install(cli.debug, &cli.namespace, &inheritance.group);
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|errno| fail("become a subreaper")(errno.into()))?;
    keep_memory_small();
    event_loop().map_err(fail("make an event loop"))?.block_on(async {
        let result = run(cli, &inheritance).await;
        inheritance.socket.remove();
        result
    })
}

/// The event loop, also that of the `delete` command: one thread, so that what a container does cannot
/// race with what its exit does.
///
/// # Errors
/// When descriptors ran out.
pub fn event_loop() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Keeps collecting children.
///
/// # Errors
/// When the signal cannot be watched.
pub fn collect_children(reaper: &Reaper) -> io::Result<()> {
    let mut children = signal(SignalKind::child())?;
    let reaper = reaper.clone();
    tokio::spawn(async move {
        while children.recv().await.is_some() {
            reaper.reap();
        }
    });
    Ok(())
}

struct Signals {
    dump: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn watch() -> io::Result<Self> {
        Ok(Self {
            dump: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

async fn run(cli: &Cli, inheritance: &Inheritance) -> Result<(), ServeError> {
    let fail = |action| move |source| ServeError { action, source };
    let reaper = Reaper::default();
    collect_children(&reaper).map_err(fail("watch for children"))?;
    let mut signals = Signals::watch().map_err(fail("watch for signals"))?;
    let events = Events::new(&cli.namespace, &inheritance.events_address);
    let shim = Arc::new(Shim::new(
        cli.namespace.clone(),
        inheritance.group.clone(),
        inheritance.config.clone(),
        events.clone(),
        reaper,
    ));
    let listener = inheritance
        .socket
        .listener()
        .try_clone()
        .and_then(tokio::net::UnixListener::from_std)
        .map_err(fail("listen"))?;
    let mut server =
        Server::new().add_listener(Listener::from(listener)).register_service(services(&shim));
    server.start().await.map_err(|e| fail("serve")(io::Error::other(e)))?;
    loop {
        tokio::select! {
            () = shim.stopped() => break,
            _ = signals.dump.recv() => info!("state: {}", shim.describe()),
            _ = signals.terminate.recv() => on_terminate(&shim),
            _ = signals.interrupt.recv() => on_terminate(&shim),
        }
    }
    // Whoever starts a shim of this group from now on must not find us.
    inheritance.socket.remove();
    let farewell = async {
        events.flush().await;
        // Answers that are under way still go out.
        server.shutdown().await
    };
    match tokio::time::timeout(FAREWELL, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => error!(%error, "the server did not shut down cleanly"),
        Err(_) => warn!("events or answers were still under way after {FAREWELL:?}"),
    }
    outlive_loggers(&shim.reaper).await;
    Ok(())
}

/// Loggers that were told to end may still be writing, and nobody but us would insist that they end.
async fn outlive_loggers(reaper: &Reaper) {
    if tokio::time::timeout(LOGGER_GRACE, reaper.childless()).await.is_err() {
        reaper.kill_the_rest();
    }
}

fn on_terminate(shim: &Shim) {
    if !shim.shutdown() {
        warn!("asked to end while containers are left; staying with them");
    }
}

/// Keeps glibc's allocator from growing by an arena per thread and from keeping what was freed.
fn keep_memory_small() {
    const TRIM_THRESHOLD: i32 = 64 * 1024;
    // SAFETY: (why needed) only mallopt(3) sets these. (why sound) the process has one thread, and the
    // call takes two integers.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
    }
}

/// Takes the word `start` off our command line as `ps` shows it, for this process is not the one that
/// was told to. Best effort, and for human eyes only.
fn forget_command() {
    let Ok(command) = std::fs::read("/proc/self/cmdline") else { return };
    let Some(shorter) = command.strip_suffix(b"start\0") else { return };
    // Field 48 of proc_pid_stat(5), the start of the arguments, counted from behind the name, which may
    // contain anything.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let Some(start) = fields.split(' ').nth(45).and_then(|f| f.parse::<u64>().ok()) else { return };
    if let Ok(memory) = File::options().write(true).open("/proc/self/mem") {
        let _ = memory.write_all_at(b"\0\0\0\0\0", start + shorter.len() as u64);
    }
}

//! `-info`: what the shim and its OCI runtime can do.
//!
//! containerd reads from this whether read-only recursive mounts and user namespaces may be offered,
//! and with id-mapped mounts asks once per create: the runtime's answer is therefore kept in a file,
//! keyed by the runtime binary's identity. Decides when that file may be believed.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::bootstrap::INPUT_LIMIT;
use crate::options::{OptionsError, RuntimeOptions, look_up};
use crate::process::Handle;
use engine::config::{Config, ConfigError};

/// The runtime's name as handlers are configured.
const NAME: &str = "io.containerd.berth.v2";
/// Type of the features structure (OCI runtime-spec, `features.md`) as containerd names it.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InfoError {
    /// Standard input cannot be read.
    #[error("cannot read the options on standard input: {0}")]
    Input(io::Error),
    /// Standard input is not an `Any`.
    #[error("the options on standard input are malformed: {0}")]
    Malformed(containerd_shim_protos::protobuf::Error),
    /// The node's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The options cannot be used.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// There is no such runtime.
    #[error(
        "failed to look up the path of OCI runtime {0:?} in PATH; install it, or name it in the handler's BinaryName or in [runtime] binary"
    )]
    NoRuntime(String),
}

/// The encoded `RuntimeInfo`.
///
/// # Errors
/// [`InfoError`]
pub fn info() -> Result<Vec<u8>, InfoError> {
    let mut input = Vec::new();
    // A terminal is not read: somebody tries the shim by hand.
    if !io::stdin().is_terminal() {
        io::stdin().lock().take(INPUT_LIMIT).read_to_end(&mut input).map_err(InfoError::Input)?;
    }
    let options = match input.as_slice() {
        [] => None,
        bytes => Some(Any::parse_from_bytes(bytes).map_err(InfoError::Malformed)?),
    };
    let config = Config::load()?;
    let resolved = RuntimeOptions::resolve(&config, options.as_ref())?;
    let binary = look_up(&resolved.binary).ok_or(InfoError::NoRuntime(resolved.binary))?;
    let version = RuntimeVersion {
        version: env!("CARGO_PKG_VERSION").into(),
        revision: crate::REVISION.into(),
        ..RuntimeVersion::default()
    };
    // A runtime without `features` has none to tell of.
    let features = features(&binary, resolved.control_deadline, &config.node.run)
        .map(|value| Any { type_url: FEATURES.into(), value, ..Any::default() });
    let info = RuntimeInfo {
        name: NAME.into(),
        version: MessageField::some(version),
        options: options.into(),
        features: features.into(),
        ..RuntimeInfo::default()
    };
    // Encoding into memory fails only for unset required fields, which proto3 does not have.
    Ok(info.write_to_bytes().unwrap_or_default())
}

/// The output of `<runtime> features`, JSON; from the cache in `run` if the binary is the one that was asked. Lost at boot, which is soon
/// enough.
fn features(binary: &Path, deadline: Duration, run: &Path) -> Option<Vec<u8>> {
    let meta = fs::metadata(binary).ok()?;
    let (device, inode) = (meta.dev(), meta.ino());
    let changed = format!("{}.{:09}", meta.ctime(), meta.ctime_nsec());
    let cached = run.join(format!("features-{device}-{inode}-{changed}.json"));
    if let Ok(known) = fs::read(&cached) {
        return Some(known);
    }
    let answer = ask(binary, deadline)?;
    serde_json::from_slice::<serde::de::IgnoredAny>(&answer).ok()?;
    // Best effort: without the file the runtime is asked again.
    let temp = cached.with_extension(std::process::id().to_string());
    let _ = fs::create_dir_all(run)
        .and_then(|()| fs::write(&temp, &answer))
        .and_then(|()| fs::rename(&temp, &cached));
    Some(answer)
}

/// What `<runtime> features` prints, if it does so in time and ends well.
fn ask(binary: &Path, deadline: Duration) -> Option<Vec<u8>> {
    let until = Instant::now() + deadline;
    let mut command = Command::new(binary);
    command.arg("features").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.process_group(0).spawn().ok()?;
    let answer = child.stdout.take().and_then(|stdout| read_until(stdout, until));
    if answer.is_none() || !ends_by(&child, until) {
        // A group of its own, whose leader nobody but us reaps; ESRCH if it has just ended.
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    }
    child.wait().ok().filter(std::process::ExitStatus::success).and(answer)
}

/// Waits for the end of a child that may go on without its output.
fn ends_by(child: &Child, until: Instant) -> bool {
    // It is our child and unreaped, so the number is its own.
    let handle = Handle::open(child.id().cast_signed());
    handle.is_ok_and(|handle| readable_by(&handle, until))
}

/// Waits until reading `fd` would not block.
fn readable_by(fd: impl AsFd, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => {}
            other => return other.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Everything up to the pipe's end; `None` if that does not come in time.
fn read_until(mut pipe: impl Read + AsFd, until: Instant) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while readable_by(&pipe, until) {
        match pipe.read(&mut piece).ok()? {
            0 => return Some(answer),
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_hangs_is_not_waited_for() {
        let (reader, writer) = io::pipe().expect("a pipe");
        assert_eq!(read_until(reader, Instant::now() + Duration::from_millis(20)), None);
        drop(writer);
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(writer);
        assert_eq!(read_until(reader, Instant::now() + Duration::from_secs(60)), Some(Vec::new()));
    }
}

//! `start`: find the shim of a group, or become the parent of a new one, and print where it listens.
//!
//! ```text
//! read stdin ─► group ─► bind ─┬─ taken and alive ─► print its address
//!                              └─ ours ─► fork ─┬─ child: serve
//!                                               └─ parent: cgroup, OOM score, print the address
//! ```
//!
//! The socket listens before the fork, so that whoever reads the address can connect at once. The child
//! is forked and not executed anew: the process is small, has one thread, and what it has read is of
//! use to the child. Decides all of that. Must not serve.

mod dialect;
mod place;
mod socket;

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{ForkResult, Pid, fork, setpgid};
use oci_specs::{Bundle, BundleError};

use crate::cli::Cli;
use crate::options::{OptionsError, RuntimeOptions};
use engine::config::{Config, ConfigError};

use dialect::Greeting;
pub use dialect::INPUT_LIMIT;
pub use place::keep_descriptors;
pub use socket::{ShimSocket, SocketError, is_dead};

/// Annotations that group containers into one shim, in order of precedence.
const GROUP_ANNOTATIONS: [&str; 2] =
    ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Where the address is left in the bundle: containerd 1.6 and 1.7 read it when they restart.
pub const ADDRESS_FILE: &str = "address";

/// Why no shim was started. Nothing is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The node's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The runtime options on standard input cannot be used.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Something of the process itself.
    #[error("cannot {action}: {source}")]
    Process {
        /// What was to be done.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What `start` came to.
pub enum Started {
    /// This is the parent, or the group has its shim already: print this and end.
    Reply(Vec<u8>),
    /// This is the child: serve.
    Serve(Box<Inheritance>),
}

/// What the child takes over.
pub struct Inheritance {
    /// The listening socket.
    pub socket: ShimSocket,
    /// The node's configuration.
    pub config: Config,
    /// containerd's ttrpc address for events; empty for none.
    pub events_address: String,
    /// The group's name.
    pub group: String,
    /// The bundle of the first container.
    pub bundle: PathBuf,
}

/// Carries out `start`. Must be called while the process has one thread.
///
/// # Errors
/// [`StartError`]
pub fn start(cli: &Cli) -> Result<Started, StartError> {
    let process = |action: &str| {
        let action = action.to_owned();
        move |source| StartError::Process { action, source }
    };
    let greeting = Greeting::read(cli).map_err(process("read standard input"))?;
    let bundle_path = std::env::current_dir().map_err(process("find the bundle"))?;
    let config = Config::load()?;
    let options = RuntimeOptions::resolve(&config, greeting.options())?;
    let group = group_of(&Bundle::load(&bundle_path)?, &cli.id);
    let dir = greeting.socket_dir();
    let place = ShimSocket::path(dir.as_deref(), &cli.address, &cli.namespace, &group)?;
    let address = format!("unix://{}", place.display());
    let Some(socket) = ShimSocket::bind(place)? else {
        leave_address(&bundle_path, &address)?;
        return Ok(Started::Reply(greeting.reply(config.shim.bootstrap, &address)));
    };
    let made = leave_address(&bundle_path, &address)
        .and_then(|()| place::share_core_cookie().map_err(process("set SCHED_CORE's core cookie")));
    if let Err(error) = made {
        socket.remove();
        return Err(error);
    }
    // SAFETY: (why needed) the child goes on with what was read and bound here. (why sound) the process
    // has one thread, so the child's memory is consistent and no lock is held by a thread that is gone.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let events_address = greeting.events_address();
            Ok(Started::Serve(Box::new(Inheritance {
                socket,
                config,
                events_address,
                group,
                bundle: bundle_path,
            })))
        }
        Ok(ForkResult::Parent { child }) => {
            settle(child, &options).inspect_err(|_| {
                // It has done nothing yet; its socket goes with it.
                let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
                socket.remove();
            })?;
            Ok(Started::Reply(greeting.reply(config.shim.bootstrap, &address)))
        }
        Err(errno) => {
            socket.remove();
            Err(process("start the shim")(errno.into()))
        }
    }
}

/// A shim in the foreground, without containerd: it listens where `-socket` says, else where `start`
/// would have made it listen.
///
/// # Errors
/// [`StartError`]
pub fn by_hand(cli: &Cli) -> Result<Inheritance, StartError> {
    let bundle = std::env::current_dir()
        .map_err(|source| StartError::Process { action: "find the bundle".into(), source })?;
    // Before the socket, which a bad configuration must not leave behind.
    let config = Config::load()?;
    let group = Bundle::load(&bundle).map_or_else(|_| cli.id.clone(), |b| group_of(&b, &cli.id));
    let place = match &cli.socket {
        Some(path) => path.clone(),
        None => ShimSocket::path(None, &cli.address, &cli.namespace, &group)?,
    };
    let socket = ShimSocket::bind(place.clone())?.ok_or_else(|| SocketError::Io {
        action: "bind",
        path: place,
        source: io::ErrorKind::AddrInUse.into(),
    })?;
    let events_address = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
    Ok(Inheritance { socket, config, events_address, group, bundle })
}

/// Gives the new shim its place among the host's processes.
fn settle(child: Pid, options: &RuntimeOptions) -> Result<(), StartError> {
    let process = |action: String| move |source| StartError::Process { action, source };
    // Its own group, so that a signal to containerd's does not reach it. It may have done so itself.
    setpgid(child, child)
        .map_err(|e| process("move the shim to its own group".into())(e.into()))?;
    if !options.shim_cgroup.is_empty() {
        place::join_cgroup(child, &options.shim_cgroup)
            .map_err(process(format!("move the shim to cgroup {:?}", options.shim_cgroup)))?;
    }
    place::adjust_oom_score(child).map_err(process("adjust the shim's OOM score".into()))
}

fn group_of(bundle: &Bundle, id: &str) -> String {
    let annotations = &bundle.spec().annotations;
    let named = GROUP_ANNOTATIONS.iter().find_map(|key| annotations.get(*key));
    named.filter(|group| !group.is_empty()).map_or(id, String::as_str).to_owned()
}

fn leave_address(bundle: &Path, address: &str) -> Result<(), StartError> {
    let path = bundle.join(ADDRESS_FILE);
    std::fs::write(&path, address).map_err(|source| StartError::Process {
        action: format!("write {}", path.display()),
        source,
    })
}

//! `-info`: what the shim and its OCI runtime can do.
//!
//! containerd reads from this whether read-only recursive mounts and user namespaces may be offered,
//! and with id-mapped mounts asks once per create: the runtime's answer is therefore kept in a file,
//! keyed by the runtime binary's identity. Decides when that file may be believed.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use crate::config::{Config, ConfigError};
use crate::options::{OptionsError, RuntimeOptions, look_up};

/// The runtime's name as handlers are configured.
const NAME: &str = "io.containerd.berth.v2";
/// Type of the features structure (OCI runtime-spec, `features.md`) as containerd names it.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";
/// Where answers are kept; lost at boot, which is soon enough.
const CACHE_DIR: &str = "/run/berth";

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
    #[error("failed to look up the path of OCI runtime {0:?} in PATH")]
    NoRuntime(String),
}

/// The encoded `RuntimeInfo`.
///
/// # Errors
/// [`InfoError`]
pub fn info() -> Result<Vec<u8>, InfoError> {
    let mut input = Vec::new();
    io::stdin().lock().read_to_end(&mut input).map_err(InfoError::Input)?;
    let options = match input.as_slice() {
        [] => None,
        bytes => Some(Any::parse_from_bytes(bytes).map_err(InfoError::Malformed)?),
    };
    let resolved = RuntimeOptions::resolve(&Config::load()?, options.as_ref())?;
    let binary = look_up(&resolved.binary).ok_or(InfoError::NoRuntime(resolved.binary))?;
    let version = RuntimeVersion {
        version: env!("CARGO_PKG_VERSION").into(),
        revision: crate::REVISION.into(),
        ..RuntimeVersion::default()
    };
    // A runtime without `features` has none to tell of.
    let features =
        features(&binary).map(|value| Any { type_url: FEATURES.into(), value, ..Any::default() });
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

/// The output of `<runtime> features`, JSON; from the cache if the binary is the one that was asked.
fn features(binary: &Path) -> Option<Vec<u8>> {
    let meta = fs::metadata(binary).ok()?;
    let (device, inode) = (meta.dev(), meta.ino());
    let changed = format!("{}.{:09}", meta.ctime(), meta.ctime_nsec());
    let cached = Path::new(CACHE_DIR).join(format!("features-{device}-{inode}-{changed}.json"));
    if let Ok(known) = fs::read(&cached) {
        return Some(known);
    }
    let asked =
        Command::new(binary).arg("features").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let answer = asked.ok().filter(|output| output.status.success())?.stdout;
    serde_json::from_slice::<serde::de::IgnoredAny>(&answer).ok()?;
    // Best effort: without the file the runtime is asked again.
    let temp = cached.with_extension(std::process::id().to_string());
    let _ = fs::create_dir_all(CACHE_DIR)
        .and_then(|()| fs::write(&temp, &answer))
        .and_then(|()| fs::rename(&temp, &cached));
    Some(answer)
}

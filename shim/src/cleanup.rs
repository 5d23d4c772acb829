//! `delete`: clean up after a container whose shim cannot do it any more.
//!
//! containerd runs this whenever it loses a shim, after normal deletes, too, gives it five seconds, no
//! options, and reads its whole output as the answer. Decides from the bundle's record alone what there
//! is to clean, does it in an order in which a half-done cleanup can be repeated, and touches nothing
//! that does not carry the container's id.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use crate::bootstrap::{ADDRESS_FILE, is_dead};
use crate::cli::Cli;
use crate::mount::{MountError, unmount_all};
use crate::options::RuntimeOptions;
use crate::process::{Exit, Reaper};
use crate::remains;
use crate::runtime::{Runc, RuntimeError, no_launch_is_left};
use crate::task::{Deleted, PID_FILE, Record};
use engine::Node;
use engine::config::{Config, Dialect, RuntimeSection};

/// Time for one call of the OCI runtime, of which there may be two: containerd kills this command after
/// five seconds.
const RUNTIME_DEADLINE: Duration = Duration::from_secs(2);

/// What could not be cleaned up. containerd shows the words, keeps the bundle and with it the record, and asks
/// again when it restarts; a bundle that went with a success would take all that is known along.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The record cannot be used.
    #[error("cannot clean up after container {id:?}: {path} cannot be read: {source}", path = path.display())]
    Record {
        /// Container id.
        id: String,
        /// The record.
        path: PathBuf,
        /// What the kernel or the decoder said.
        source: io::Error,
    },
    /// The OCI runtime still has the container.
    #[error("container {id:?} is left behind: {source}")]
    Runtime {
        /// Container id.
        id: String,
        /// In the runtime's words.
        source: RuntimeError,
    },
    /// Its root filesystem is still mounted.
    #[error("the root filesystem of container {id:?} is left behind: {source}")]
    Mount {
        /// Container id.
        id: String,
        /// Which, and why.
        source: MountError,
    },
}

/// Cleans up after `cli.id` and says how it ended, as far as that can be known.
///
/// # Errors
/// [`CleanupError`] when something is left; what could be done has been.
pub async fn delete(cli: &Cli, reaper: &Reaper) -> Result<Deleted, CleanupError> {
    let status = 128 + (Signal::SIGKILL as i32).cast_unsigned();
    let exit = Some(Exit { status, at: SystemTime::now() });
    let Some((bundle, record)) = bundle_of(cli)? else { return Ok(Deleted { pid: 0, exit }) };
    let pid = fs::read_to_string(bundle.join(PID_FILE)).ok();
    let pid = pid.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let mut cleaned = clean(cli, &cli.id, &bundle, record.as_ref(), reaper).await;
    if let Some(record) = record
        && record.group == cli.id
        && record.bootstrap == Dialect::V3
    {
        cleaned = cleaned.and(clean_members(cli, &bundle, reaper).await);
    }
    // After the members: its death is what allows to touch them.
    remove_dead_socket(&bundle);
    cleaned.map(|()| Deleted { pid, exit })
}

/// The container's bundle, which containerd names or starts us in, and its record if it was ever about to be
/// made. `None` where what was named is another container's.
fn bundle_of(cli: &Cli) -> Result<Option<(PathBuf, Option<Record>)>, CleanupError> {
    let here = cli.bundle.clone().or_else(|| std::env::current_dir().ok()).unwrap_or_default();
    // Started in a sibling's bundle, as containerd does for a pod's members.
    let sibling = here.parent().map(|parent| parent.join(&cli.id));
    for bundle in [Some(here), sibling].into_iter().flatten() {
        let named = bundle.file_name().is_some_and(|name| name == cli.id.as_str());
        match Record::read(&bundle) {
            Ok(record) if is_of(&cli.id, named, record.as_ref()) => {
                return Ok(Some((bundle, record)));
            }
            Err(source) if named => {
                let (id, path) = (cli.id.clone(), Record::path(&bundle));
                return Err(CleanupError::Record { id, path, source });
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Whether a bundle is the container's: the record says so, else (also that of an older shim) the bundle's name.
fn is_of(id: &str, named: bool, record: Option<&Record>) -> bool {
    let recorded = record.map(|record| record.id.as_str()).filter(|id| !id.is_empty());
    recorded.map_or(named, |recorded| recorded == id)
}

async fn clean(
    cli: &Cli,
    id: &str,
    bundle: &Path,
    record: Option<&Record>,
    reaper: &Reaper,
) -> Result<(), CleanupError> {
    let mut cleared = Ok(());
    if let Some(record) = record {
        no_launch_is_left(bundle).await;
        let runtime = runtime_of(record, &cli.namespace, reaper);
        let done = remains::clear(&runtime, id, &record.cgroups_path).await;
        cleared = done.map_err(|source| CleanupError::Runtime { id: id.to_owned(), source });
    }
    let unmounted = unmount_all(&bundle.join("rootfs"))
        .map_err(|source| CleanupError::Mount { id: id.to_owned(), source });
    // Its node cannot be known with a configuration that cannot be read: reconcile will find it.
    if let Ok(config) = Config::load()
        && record.is_some()
    {
        let owner = engine::Owner { namespace: &cli.namespace, container: id };
        let _ = Node::new(&config).clean_up(owner);
    }
    cleared.and(unmounted)
}

fn runtime_of(record: &Record, namespace: &str, reaper: &Reaper) -> Runc {
    let options = RuntimeOptions {
        binary: record.runtime.clone(),
        root: record.root.clone(),
        systemd_cgroup: record.systemd_cgroup,
        control_deadline: RUNTIME_DEADLINE,
        ..RuntimeOptions::from_section(&RuntimeSection::default())
    };
    Runc::new(options, namespace, reaper.clone())
}

/// With a version 3 reply, containerd calls `delete` for the sandbox alone: its members are cleaned
/// here, but only once nobody serves the group any more.
async fn clean_members(cli: &Cli, bundle: &Path, reaper: &Reaper) -> Result<(), CleanupError> {
    let mut cleaned = Ok(());
    if !socket_of(bundle).is_some_and(|socket| is_dead(&socket)) {
        return cleaned;
    }
    let Some(Ok(siblings)) = bundle.parent().map(fs::read_dir) else { return cleaned };
    for sibling in siblings.flatten() {
        let (path, name) = (sibling.path(), sibling.file_name());
        let (Some(id), Ok(Some(record))) = (name.to_str(), Record::read(&path)) else { continue };
        if id != cli.id && record.group == cli.id && is_of(id, true, Some(&record)) {
            // One that cannot be cleaned up does not keep the others.
            let done = clean(cli, id, &path, Some(&record), reaper).await;
            cleaned = cleaned.and(done);
        }
    }
    cleaned
}

fn socket_of(bundle: &Path) -> Option<PathBuf> {
    let address = fs::read_to_string(bundle.join(ADDRESS_FILE)).ok()?;
    address.trim().strip_prefix("unix://").map(PathBuf::from)
}

/// A shim that was killed could not take its socket along.
fn remove_dead_socket(bundle: &Path) {
    if let Some(socket) = socket_of(bundle)
        && is_dead(&socket)
    {
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cli(id: &str, bundle: PathBuf) -> Cli {
        let args = ["-namespace", "n", "-id", id, "-bundle"].map(Into::into);
        let rest = [bundle.into_os_string(), "delete".into()];
        Cli::parse(args.into_iter().chain(rest)).expect("what containerd sends")
    }

    fn record(id: &str) -> Record {
        Record { id: id.into(), runtime: "runc".into(), ..Record::default() }
    }

    #[test]
    fn another_containers_bundle_is_not_ours() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let place = |id: &str| dir.path().join(id);
        for id in ["birch", "beech", "alder"] {
            fs::create_dir(place(id)).expect("writable");
        }
        record("birch").write(&place("birch")).expect("writable");
        record("").write(&place("alder")).expect("writable");
        record("oak").write(&place("beech")).expect("writable");
        let found = |id: &str, at: &str| bundle_of(&cli(id, place(at))).expect("readable");
        let own = Some((place("birch"), Some(record("birch"))));
        assert_eq!(found("birch", "birch"), own);
        assert_eq!(found("birch", "beech"), own, "started in a sibling's bundle");
        // The record decides, the name only where there is none or an older shim's.
        assert_eq!(found("oak", "beech"), Some((place("beech"), Some(record("oak")))));
        assert_eq!(found("beech", "beech"), None);
        assert_eq!(found("alder", "alder"), Some((place("alder"), Some(record("")))));
        assert_eq!(found("maple", "alder"), Some((place("maple"), None)), "nobody's yet");
        fs::write(Record::path(&place("birch")), "{").expect("writable");
        let error = bundle_of(&cli("birch", place("birch"))).expect_err("a record in pieces");
        assert!(error.to_string().contains("birch/berth.json"), "{error}");
    }
}

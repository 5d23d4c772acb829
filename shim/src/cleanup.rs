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
use crate::mount::unmount_all;
use crate::options::RuntimeOptions;
use crate::process::{Exit, Reaper};
use crate::remains;
use crate::runtime::Runc;
use crate::task::{Deleted, PID_FILE, Record};
use engine::Node;
use engine::config::{Config, Dialect, RuntimeSection};

/// Time for one call of the OCI runtime, of which there may be two: containerd kills this command after
/// five seconds.
const RUNTIME_DEADLINE: Duration = Duration::from_secs(2);

/// Cleans up after `cli.id` and says how it ended, as far as that can be known.
pub async fn delete(cli: &Cli, reaper: &Reaper) -> Deleted {
    let bundle = bundle_of(cli);
    let pid = fs::read_to_string(bundle.join(PID_FILE)).ok();
    let pid = pid.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let record = Record::read(&bundle).ok().flatten();
    clean(cli, &cli.id, &bundle, record.as_ref(), reaper).await;
    if let Some(record) = record
        && record.group == cli.id
        && record.bootstrap == Dialect::V3
    {
        clean_members(cli, &bundle, reaper).await;
    }
    // After the members: its death is what allows to touch them.
    remove_dead_socket(&bundle);
    let status = 128 + (Signal::SIGKILL as i32).cast_unsigned();
    Deleted { pid, exit: Some(Exit { status, at: SystemTime::now() }) }
}

/// The bundle, which containerd names or starts us in.
fn bundle_of(cli: &Cli) -> PathBuf {
    let here = cli.bundle.clone().or_else(|| std::env::current_dir().ok()).unwrap_or_default();
    if here.file_name().is_some_and(|name| name == cli.id.as_str()) || Record::path(&here).exists()
    {
        return here;
    }
    // Started in a sibling's bundle, as containerd does for a pod's members.
    let sibling = here.parent().map(|parent| parent.join(&cli.id)).filter(|path| path.exists());
    sibling.unwrap_or(here)
}

async fn clean(cli: &Cli, id: &str, bundle: &Path, record: Option<&Record>, reaper: &Reaper) {
    if let Some(record) = record {
        let runtime = runtime_of(record, &cli.namespace, reaper);
        // An error has nowhere to go: what stays is found by the next delete.
        let _ = remains::clear(&runtime, id, &record.cgroups_path).await;
    }
    let _ = unmount_all(&bundle.join("rootfs"));
    // Its node cannot be known with a configuration that cannot be read: reconcile will find it.
    if let Ok(config) = Config::load()
        && record.is_some()
    {
        let owner = engine::Owner { namespace: &cli.namespace, container: id };
        let _ = Node::new(&config).clean_up(owner);
    }
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
async fn clean_members(cli: &Cli, bundle: &Path, reaper: &Reaper) {
    if !socket_of(bundle).is_some_and(|socket| is_dead(&socket)) {
        return;
    }
    let Some(Ok(siblings)) = bundle.parent().map(fs::read_dir) else { return };
    for sibling in siblings.flatten() {
        let (path, name) = (sibling.path(), sibling.file_name());
        let (Some(id), Ok(Some(record))) = (name.to_str(), Record::read(&path)) else { continue };
        if id != cli.id && record.group == cli.id {
            clean(cli, id, &path, Some(&record), reaper).await;
        }
    }
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

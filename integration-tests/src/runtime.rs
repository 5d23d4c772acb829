//! Puts another OCI runtime in runc's place: `BERTH_TEST_RUNTIME=crun`, a name in PATH or a path.
//!
//! Decides how: the test program becomes itself anew, with a folder before all others in PATH in which `runc` is that runtime, so that the
//! shim, containerd and the trials find no other. Must not know what differs then; that is in `runtime-differences.toml`.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::machine::cgroup_hierarchies;
use crate::under_test::in_path;
use crate::versions::Installation;

/// Where hosts have their cgroup hierarchies, and hybrid ones cgroup v2 beside those of v1.
const CGROUPS: &str = "/sys/fs/cgroup";
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// The runtime that was asked for instead of runc, by the name that its differences are listed under.
pub fn substitute() -> Option<String> {
    let asked = asked()?;
    Some(Path::new(&asked).file_name()?.to_string_lossy().into_owned())
}

/// Whether the runtime that keeps this record of a container is the one that was asked for.
pub fn keeps(record: &Path) -> bool {
    record.is_dir() && record.join("state.json").is_file() == substitute().is_none()
}

fn asked() -> Option<OsString> {
    env::var_os("BERTH_TEST_RUNTIME").filter(|asked| !asked.is_empty() && asked != "runc")
}

/// Why this containerd's containers cannot run on the runtime that was asked for: they have a config.json of a later version than it reads.
///
/// # Errors
/// When containerd's `ctr` or the runtime cannot be asked.
pub fn refusal(installation: &Installation) -> Result<Option<String>> {
    let Some(asked) = asked() else { return Ok(None) };
    let spec = Command::new(installation.bin.join("ctr")).args(["oci", "spec"]).output()?;
    let spec: serde_json::Value = serde_json::from_slice(&spec.stdout).context("ctr oci spec")?;
    let version = spec["ociVersion"].as_str().context("a version")?;
    let dir = tempfile::tempdir()?;
    // Nothing could be made of the rest, but the version is looked at first.
    let bundle = serde_json::json!({ "ociVersion": version });
    fs::write(dir.path().join("config.json"), bundle.to_string())?;
    let mut create = Command::new(&asked);
    create.arg("--root").arg(dir.path().join("root")).args(["create", "--bundle"]);
    let said = create.arg(dir.path()).arg("probe").output()?;
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(!said.status.success(), "an empty container was made");
    let refused = words.contains("unknown version").then(|| {
        let name = asked.to_string_lossy();
        format!("this {name} runs no container whose config.json is of version {version}")
    });
    Ok(refused)
}

/// Returns where runc is what was asked for, becoming the program anew if it is not yet. To be called before there are threads.
///
/// # Errors
/// When it is not installed, or its place cannot be made.
pub fn put_in_place() -> Result<()> {
    let Some(asked) = asked() else { return Ok(()) };
    let name = asked.to_string_lossy();
    let runtime = in_path(&name)
        .with_context(|| format!("{name} (BERTH_TEST_RUNTIME) is not in PATH: install it"))?
        .canonicalize()?;
    if in_path("runc").is_some_and(|runc| runc.canonicalize().is_ok_and(|runc| runc == runtime)) {
        return Ok(());
    }
    if refuses_hybrid(&runtime) && has_controllers(Path::new(UNIFIED)) {
        show_v1_alone().with_context(|| format!("hiding {UNIFIED}, which {name} cannot bear"))?;
    }
    let mut folders = vec![place_of(&runtime)?];
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let error = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env("PATH", env::join_paths(folders)?)
        .exec();
    Err(error).context("becoming this program anew")
}

/// A folder in which `runc` leads to this runtime.
fn place_of(runtime: &Path) -> Result<PathBuf> {
    let name = runtime.file_name().context("it has a name")?;
    let folder = env::current_exe()?.with_file_name("in-place-of-runc").join(name);
    fs::create_dir_all(&folder)?;
    let link = folder.join("runc");
    match symlink(runtime, &link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&link)?;
            symlink(runtime, &link)?;
        }
        other => other?,
    }
    Ok(folder)
}

/// crun, up to now, runs nothing where cgroup v2 has controllers beside those of v1.
fn refuses_hybrid(runtime: &Path) -> bool {
    runtime.file_name().is_some_and(|name| name == "crun")
}

fn has_controllers(unified: &Path) -> bool {
    fs::read_to_string(unified.join("cgroup.controllers"))
        .is_ok_and(|controllers| !controllers.trim().is_empty())
}

/// For this process and what it starts, the host is one with cgroup v1 alone.
fn show_v1_alone() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let (none, private) = (None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC);
    mount(none, "/", none, private, none)?;
    let made = tempfile::tempdir()?;
    mount(Some("tmpfs"), made.path(), Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    for (controllers, place) in cgroup_hierarchies()? {
        if let Ok(name) = place.strip_prefix(CGROUPS)
            && !controllers.is_empty()
        {
            let shown = made.path().join(name);
            fs::create_dir(&shown)?;
            mount(Some(&place), &shown, none, MsFlags::MS_BIND, none)?;
        }
    }
    for entry in fs::read_dir(CGROUPS)?.flatten() {
        if let Ok(target) = fs::read_link(entry.path()) {
            symlink(target, made.path().join(entry.file_name()))?;
        }
    }
    umount2(CGROUPS, MntFlags::MNT_DETACH)?;
    Ok(mount(Some(made.path()), CGROUPS, none, MsFlags::MS_MOVE, none)?)
}

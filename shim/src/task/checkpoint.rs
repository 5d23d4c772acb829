//! Checkpoint: a container's processes become files, by the OCI runtime and criu.
//!
//! ```text
//! known? ─► no GPU? ─► a place to write to? ─► turn ─► criu there? ─► runtime checkpoint
//! ```
//!
//! Decides what is refused before anything is touched, and that a checkpoint that fails leaves no image behind that was not there
//! before and no container frozen. Must not know how criu is found (see `criu.rs`).

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use tracing::warn;

use super::container::Container;
use super::error::TaskError;
use super::lifecycle::{Phase, Verb};
use super::shim::Shim;
use crate::criu::Workplace;
use crate::off_loop::off_loop;
use crate::options::OptionsError;
use crate::runtime::{DumpSwitches, RuntimeError};

/// The one type of options that there is for a checkpoint.
const OPTIONS: &str = "containerd.runc.v1.CheckpointOptions";
/// criu's log of a checkpoint, and what is kept of it in the bundle where the checkpoint fails; as with containerd's own shim.
const LOG: &str = "dump.log";
const KEPT_LOG: &str = "criu-dump.log";

/// What containerd asks for.
#[derive(Debug)]
pub struct CheckpointRequest {
    /// Container id.
    pub id: String,
    /// Where the image goes; empty if the options say it.
    pub path: String,
    /// `containerd.runc.v1.CheckpointOptions`
    pub options: Option<Any>,
    /// Until when containerd waits for the answer, if it says.
    pub patience: Option<Instant>,
}

impl Shim {
    /// Saves a container's processes.
    ///
    /// # Errors
    /// [`TaskError`]; the container goes on as before, unless the runtime's deadline ended criu in the middle of its work.
    pub async fn checkpoint(self: Arc<Self>, request: CheckpointRequest) -> Result<(), TaskError> {
        let container = self.container(&request.id)?;
        if let Some(grant) = container.admission.grant() {
            return Err(TaskError::GpuNotSaved { id: request.id, grant: grant.clone() });
        }
        let options = options(request.options.as_ref())?;
        let path = if request.path.is_empty() { &options.image_path } else { &request.path };
        let path = absolute(&container.id, path)?;
        let turn = container.init.turn(Verb::Checkpoint).await?;
        let missing =
            |source| TaskError::NoCriu { id: container.id.clone(), verb: "checkpoint", source };
        let program = container.criu.find().map_err(missing)?;
        let image = Image::make(&path).map_err(|source| TaskError::File {
            action: "make the checkpoint's folder",
            path: path.clone(),
            source,
        })?;
        let work = Path::new(&options.work_path);
        let place =
            Workplace::make(&container.bundle, program.as_deref(), work).map_err(|source| {
                let path = container.bundle.clone();
                TaskError::File { action: "make a place for criu in", path, source }
            });
        let dumped = match place {
            Ok(place) => dump(&container, &path, &place, &options, request.patience).await,
            Err(error) => Err(error),
        };
        if let Err(error) = dumped {
            // Large, maybe, and on a disk.
            let _ = off_loop("discard", move || image.discard()).await;
            return Err(error);
        }
        turn.succeed();
        Ok(())
    }
}

async fn dump(
    container: &Container,
    image: &Path,
    place: &Workplace,
    options: &CheckpointOptions,
    patience: Option<Instant>,
) -> Result<(), TaskError> {
    let (id, places) = (&container.id, place.places(image));
    let dumped = container.runtime.checkpoint(id, places, &switches(options), patience).await;
    let Err(source) = dumped else { return Ok(()) };
    let life = container.init.lifecycle();
    if matches!(source, RuntimeError::Deadline { .. })
        && life.phase() == Phase::Running
        && life.is_alive()
        && let Err(error) = container.runtime.resume(id, None).await
    {
        // criu freezes what it saves, and was killed before it could thaw it; or it had not come so far.
        warn!(id, %error, "not thawed after a checkpoint that took too long");
    }
    let said = place.words(LOG, &container.bundle, KEPT_LOG);
    let source = source.because(said);
    Err(TaskError::Runtime { what: "OCI runtime checkpoint failed", source })
}

fn options(any: Option<&Any>) -> Result<CheckpointOptions, TaskError> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty() || !any.value.is_empty()) else {
        return Ok(CheckpointOptions::default());
    };
    if any.type_url.rsplit('/').next() != Some(OPTIONS) {
        return Err(OptionsError::UnknownCheckpointType(any.type_url.clone()).into());
    }
    let read = CheckpointOptions::parse_from_bytes(&any.value);
    Ok(read.map_err(|source| OptionsError::Malformed { kind: OPTIONS, source })?)
}

fn switches(options: &CheckpointOptions) -> DumpSwitches {
    DumpSwitches {
        leave_running: !options.exit,
        open_tcp: options.open_tcp,
        external_unix_sockets: options.external_unix_sockets,
        terminal: options.terminal,
        file_locks: options.file_locks,
        empty_namespaces: options.empty_namespaces.clone(),
        cgroups_mode: options.cgroups_mode.clone(),
    }
}

fn absolute(id: &str, path: &str) -> Result<PathBuf, TaskError> {
    if Path::new(path).is_absolute() {
        return Ok(path.into());
    }
    let problem = match path {
        "" => "it is not said where to; name a folder".to_owned(),
        _ => format!("{path:?} is no absolute path; name the folder by its whole path"),
    };
    Err(TaskError::BadImage { id: id.to_owned(), verb: "checkpoint", problem })
}

/// The folder that an image goes to, and what of it must go again if the checkpoint fails.
#[derive(Debug)]
struct Image {
    path: PathBuf,
    before: Before,
}

/// What was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    AnEmptyFolder,
    /// Another checkpoint, maybe: criu writes over it, and what is whose cannot be told afterwards.
    Files,
}

impl Image {
    fn make(path: &Path) -> io::Result<Self> {
        let before = match fs::read_dir(path).map(Iterator::count) {
            Ok(0) => Before::AnEmptyFolder,
            Ok(_) => Before::Files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Before::Nothing,
            Err(error) => return Err(error),
        };
        // It holds the memory of a container.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self { path: path.to_owned(), before })
    }

    fn discard(self) {
        // What cannot be removed is an unfinished image in a place that its owner knows.
        let _ = match self.before {
            Before::Nothing => fs::remove_dir_all(&self.path),
            Before::AnEmptyFolder => fs::read_dir(&self.path).map(|entries| {
                for entry in entries.flatten() {
                    let _ = fs::remove_file(entry.path());
                }
            }),
            Before::Files => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_one_type_are_read() {
        let typed =
            CheckpointOptions { exit: true, open_tcp: true, ..CheckpointOptions::default() };
        let any = |type_url: &str, value: Vec<u8>| Any {
            type_url: type_url.into(),
            value,
            ..Any::default()
        };
        let bytes = typed.write_to_bytes().expect("encodable");
        let sent = any("types.containerd.io/containerd.runc.v1.CheckpointOptions", bytes);
        let read = options(Some(&sent)).expect("valid");
        assert_eq!(read, typed);
        let wanted = DumpSwitches { open_tcp: true, ..DumpSwitches::default() };
        assert_eq!(switches(&read), wanted);
        let none = options(None).expect("none is fine");
        assert!(switches(&none).leave_running);
        let other = options(Some(&any("other.Type", vec![]))).expect_err("unknown").to_string();
        assert!(other.contains("other.Type"), "{other}");
        assert!(options(Some(&any(OPTIONS, vec![0x3a, 0xff]))).is_err());
    }

    #[test]
    fn what_was_not_there_before_is_gone_after_a_failure() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fail = |path: &Path| {
            let image = Image::make(path).expect("writable");
            fs::write(path.join("pages-1.img"), "half").expect("writable");
            image.discard();
        };
        let fresh = dir.path().join("a/fresh");
        fail(&fresh);
        assert!(!fresh.exists());
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).expect("writable");
        fail(&empty);
        assert_eq!(fs::read_dir(&empty).expect("still there").count(), 0);
        let full = dir.path().join("full");
        fs::create_dir(&full).expect("writable");
        fs::write(full.join("mine"), "").expect("writable");
        fail(&full);
        assert!(full.join("mine").exists());
        assert!(Image::make(&full.join("mine")).is_err(), "a file is no folder");
    }
}

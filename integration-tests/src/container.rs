//! A container, an exec, and what a container is to be: values that a trial holds while the shim under
//! test has the real thing. Must not know how a shim was started.

use std::path::Path;

use containerd_shim_protos::api::{self, ExecProcessRequest};
use containerd_shim_protos::shim::oci::CheckpointOptions;
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::bundle::{Bundle, Spec};
use crate::shim::Shim;
use crate::stdio::{Stdio, Streams};
use crate::task::{Answer, Task, any};

/// What a container is to be, before it is created.
pub struct Launch {
    /// Container id.
    pub id: String,
    /// Its config.json.
    pub spec: Spec,
    /// Its streams.
    pub streams: Streams,
    /// File systems that Create mounts on the bundle's rootfs.
    pub rootfs: Vec<api::Mount>,
    /// Task options; None sends none.
    pub options: Option<Any>,
    /// The image that it is restored from; empty for none.
    pub checkpoint: String,
}

/// A created container. Dropping it does nothing; [`Lab::retire`] ends it as containerd does.
pub struct Container {
    /// Its bundle (and id).
    pub bundle: Bundle,
    /// The shim that has it.
    pub shim: Shim,
    /// Its streams.
    pub io: Stdio,
    /// Its init.
    pub pid: u32,
    /// The process part of its config.json, which execs begin from.
    pub process: serde_json::Value,
}

/// A started exec.
pub struct Exec {
    /// Exec id.
    pub id: String,
    /// Its streams.
    pub io: Stdio,
    /// Its process.
    pub pid: u32,
}

impl Container {
    /// The id.
    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    /// The shim's task service.
    pub fn task(&self) -> &Task {
        &self.shim.task
    }

    /// Start of the init.
    pub async fn start(&self) -> Answer<u32> {
        self.task().start(self.id(), "").await
    }

    /// State's status.
    pub async fn status(&self) -> Answer<api::Status> {
        self.task().status(self.id(), "").await
    }

    /// Kill of the init alone.
    pub async fn kill(&self, signal: i32) -> Answer<()> {
        self.task().kill(self.id(), "", signal as u32, false).await
    }

    /// Wait for the init; the exit status.
    pub async fn wait(&self) -> Answer<u32> {
        self.task().wait(self.id(), "").await.map(|answer| answer.exit_status)
    }

    /// Checkpoint to the folder `image`.
    pub async fn checkpoint(
        &self,
        image: &Path,
        change: impl FnOnce(&mut CheckpointOptions),
    ) -> Answer<()> {
        let mut options = CheckpointOptions::default();
        change(&mut options);
        let body = options.write_to_bytes().expect("options encode");
        let request = api::CheckpointTaskRequest {
            id: self.id().into(),
            path: image.display().to_string(),
            options: Some(any("containerd.runc.v1.CheckpointOptions", body)).into(),
            ..Default::default()
        };
        self.task().checkpoint(&request).await
    }

    /// Delete.
    pub async fn delete(&self) -> Answer<api::DeleteResponse> {
        self.task().delete(self.id(), "").await
    }

    /// The request that containerd would send to add an exec.
    pub fn exec_request(
        &self,
        id: &str,
        args: &[&str],
        streams: &Streams,
        io: &Stdio,
    ) -> ExecProcessRequest {
        let mut process = self.process.clone();
        process["args"] = serde_json::json!(args);
        process["terminal"] = serde_json::json!(streams.is_terminal());
        ExecProcessRequest {
            id: self.id().into(),
            exec_id: id.into(),
            terminal: streams.is_terminal(),
            stdin: io.stdin_path.clone(),
            stdout: io.stdout_path.clone(),
            stderr: io.stderr_path.clone(),
            spec: Some(any(
                "types.containerd.io/opencontainers/runtime-spec/1/Process",
                process.to_string().into_bytes(),
            ))
            .into(),
            ..Default::default()
        }
    }
}

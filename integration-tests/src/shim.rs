//! Starts the shim under test in the dialects of containerd's releases, reads its reply, and runs its
//! `delete` command. Decides what each release sends. Must not know trials.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult, Extension};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::bundle::Bundle;
use crate::command::{Finished, Joined, run};
use crate::scratch::{MARK, Scratch};
use crate::task::{self, Task};

/// What `start` is given besides flags; each release of containerd adds to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// 1.6: TTRPC_ADDRESS, options on stdin.
    V1_6,
    /// 1.7: MAX_SHIM_VERSION (2), GRPC_ADDRESS, NAMESPACE too.
    V1_7,
    /// 2.0 to 2.2: MAX_SHIM_VERSION is 3.
    V2_0,
    /// 2.3: BootstrapParams on stdin instead of bare options.
    V2_3,
}

/// The identity that containerd gives a shim: who calls, and where.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The binary.
    pub shim: PathBuf,
    /// containerd namespace.
    pub namespace: String,
    /// Value of `-address`.
    pub address: PathBuf,
    /// Value of TTRPC_ADDRESS; None leaves it out.
    pub events: Option<String>,
}

/// How one `start` is called.
#[derive(Clone, Debug)]
pub struct Start {
    /// Release imitated.
    pub dialect: Dialect,
    /// Task options, as containerd hands them to `start` on stdin.
    pub options: Option<Any>,
    /// 2.3 only: where sockets shall go.
    pub socket_dir: Option<PathBuf>,
    /// Replaces the bytes on stdin.
    pub raw_stdin: Option<Vec<u8>>,
    /// Further environment.
    pub env: Vec<(String, String)>,
}

impl Default for Start {
    fn default() -> Start {
        Start {
            dialect: Dialect::V1_7,
            options: None,
            socket_dir: None,
            raw_stdin: None,
            env: Vec::new(),
        }
    }
}

/// A shim's reply to `start`, in whichever form it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Highest Task API version it speaks: 2 for a plain address.
    pub version: i32,
    /// `unix:///...`
    pub address: String,
    /// `ttrpc`, which a plain address implies.
    pub protocol: String,
}

impl Reply {
    /// Reads a plain address, JSON, or protobuf BootstrapResult.
    pub fn parse(bytes: &[u8]) -> Result<Reply> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let text = text.trim();
            if text.starts_with("unix://") {
                return Ok(Reply { version: 2, address: text.into(), protocol: "ttrpc".into() });
            }
            if let Ok(Value::Object(json)) = serde_json::from_str(text) {
                let field = |name: &str| json.get(name).and_then(Value::as_str).map(str::to_string);
                return Ok(Reply {
                    version: json.get("version").and_then(Value::as_i64).context("no version")?
                        as i32,
                    address: field("address").context("no address")?,
                    protocol: field("protocol").context("no protocol")?,
                });
            }
        }
        match BootstrapResult::parse_from_bytes(bytes) {
            Ok(result) if !result.address.is_empty() => Ok(Reply {
                version: result.version,
                address: result.address,
                protocol: result.protocol,
            }),
            _ => bail!("not a reply to start: {:?}", String::from_utf8_lossy(bytes)),
        }
    }

    /// The Task service name that containerd would call.
    pub fn service(&self) -> &'static str {
        if self.version >= 3 { task::V3 } else { task::V2 }
    }

    /// The socket's path.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(self.address.trim_start_matches("unix://"))
    }
}

/// The sockets that a shim for (`address`, `namespace`, `group`) may have: containerd's own shim hashes the
/// three as a path; Berth's hashes them after its name, so that it never joins another runtime's group.
pub fn conventional_sockets(address: &Path, namespace: &str, group: &str) -> [PathBuf; 2] {
    let stock = address.join(namespace).join(group);
    let berth = format!("berth\0{}\0{namespace}\0{group}", address.display());
    [stock.as_os_str().as_encoded_bytes(), berth.as_bytes()].map(|name| {
        let hex: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
        Path::new("/run/containerd/s").join(hex)
    })
}

impl Caller {
    /// Runs `start` in the bundle and gives what it left, whether it worked or not.
    pub async fn start(&self, scratch: &Scratch, bundle: &Bundle, how: &Start) -> Result<Finished> {
        self.expect_sockets(scratch, bundle);
        let mut command = self.command(scratch, bundle)?;
        command.arg("-publish-binary").arg(self.shim.with_file_name("containerd"));
        command.args(["-id", &bundle.id, "start"]);
        if how.dialect != Dialect::V1_6 {
            command.env("MAX_SHIM_VERSION", if how.dialect == Dialect::V1_7 { "2" } else { "3" });
            command.env("GRPC_ADDRESS", &self.address).env("NAMESPACE", &self.namespace);
        }
        command.envs(how.env.iter().map(|(name, value)| (name, value)));
        let input = match &how.raw_stdin {
            Some(raw) => raw.clone(),
            None => self.stdin(bundle, how)?,
        };
        run(command, input, Joined::Yes).await
    }

    /// Runs the `delete` command as containerd does when a shim's connection has closed.
    pub async fn delete(&self, scratch: &Scratch, bundle: &Bundle) -> Result<DeleteResponse> {
        let finished = self.delete_raw(scratch, bundle).await?;
        if !finished.status.success() {
            bail!("delete of {} failed ({}): {}", bundle.id, finished.status, finished.errors());
        }
        DeleteResponse::parse_from_bytes(&finished.stdout)
            .with_context(|| format!("not a DeleteResponse: {:?}", finished.text()))
    }

    /// Runs the `delete` command and gives what it left.
    pub async fn delete_raw(&self, scratch: &Scratch, bundle: &Bundle) -> Result<Finished> {
        let mut command = self.command(scratch, bundle)?;
        command.args(["-id", &bundle.id, "-bundle"]).arg(&bundle.path).arg("delete");
        run(command, Vec::new(), Joined::No).await
    }

    fn command(&self, scratch: &Scratch, bundle: &Bundle) -> Result<Command> {
        let mut command = Command::new(&self.shim);
        command.current_dir(&bundle.path).env(MARK, scratch.root()).env("GOMAXPROCS", "2");
        command.env("BERTH_CONFIG", scratch.node_config()?).env_remove("TTRPC_ADDRESS");
        if let Some(events) = &self.events {
            command.env("TTRPC_ADDRESS", events);
        }
        command.args(["-namespace", &self.namespace, "-address"]).arg(&self.address);
        Ok(command)
    }

    fn stdin(&self, bundle: &Bundle, how: &Start) -> Result<Vec<u8>> {
        if how.dialect != Dialect::V2_3 {
            return Ok(how
                .options
                .as_ref()
                .map(Any::write_to_bytes)
                .transpose()?
                .unwrap_or_default());
        }
        let mut params = BootstrapParams::new();
        params.instance_id = bundle.id.clone();
        params.namespace = self.namespace.clone();
        params.containerd_version = "2.3.0".into();
        params.containerd_ttrpc_address = self.events.clone().unwrap_or_default();
        params.containerd_grpc_address = self.address.display().to_string();
        params.socket_dir = how.socket_dir.as_ref().map(|dir| dir.display().to_string());
        if let Some(options) = &how.options {
            params
                .extensions
                .push(Extension { value: Some(options.clone()).into(), ..Default::default() });
        }
        Ok(params.write_to_bytes()?)
    }

    /// A `start` that fails may still have left the socket it would have used.
    fn expect_sockets(&self, scratch: &Scratch, bundle: &Bundle) {
        let text = std::fs::read(bundle.config()).unwrap_or_default();
        let spec: Value = serde_json::from_slice(&text).unwrap_or_default();
        let annotated = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"]
            .into_iter()
            .find_map(|name| spec["annotations"][name].as_str());
        let group = annotated.unwrap_or(&bundle.id);
        for group in [group, &bundle.id] {
            for socket in conventional_sockets(&self.address, &self.namespace, group) {
                scratch.expect_socket(socket);
            }
        }
    }
}

/// A running shim, as the caller of `start` knows it. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Shim {
    /// What it replied.
    pub reply: Reply,
    /// Its task service, under the name that the reply implies (or BERTH_TEST_TASK_SERVICE).
    pub task: Task,
    /// Its process.
    pub pid: u32,
}

impl Shim {
    /// Connects to the address in `reply` and asks who answers.
    pub async fn connect(reply: Reply, id: &str) -> Result<Shim> {
        let service = std::env::var("BERTH_TEST_TASK_SERVICE");
        let service = service.unwrap_or_else(|_| reply.service().to_string());
        let task = Task::connect(&reply.address, &service).await?;
        // Before its first Create a shim knows no container; containerd's own answers Connect all the same.
        let pid = match task.connect_to(id).await {
            Ok(answer) => answer.shim_pid,
            Err(err) => bail!("Connect before Create: {err}"),
        };
        Ok(Shim { reply, task, pid })
    }
}

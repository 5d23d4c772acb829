//! The Task API as a client sees it, under either of its service names. Decides how an answer that is
//! a refusal looks to a trial. Must not know where the shim came from.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use containerd_shim_protos::api;
use containerd_shim_protos::shim::oci::ProcessDetails;
use protobuf::{EnumOrUnknown, Message};
use ttrpc::Code;
use ttrpc::asynchronous::Client;

use crate::deadline::STUCK;

pub use containerd_shim_protos::types::empty::Empty;

/// The service name that containerd 1.6 to 1.7 call, and later ones after a plain address.
pub const V2: &str = "containerd.task.v2.Task";
/// The service name that containerd 2.x calls on a shim that advertised it.
pub const V3: &str = "containerd.task.v3.Task";

/// The type of what Pids says of an exec.
const DETAILS: &str = "containerd.runc.v1.ProcessDetails";

/// A call that gave no answer of its type.
#[derive(Clone, Debug)]
pub struct CallError {
    /// The method.
    pub method: String,
    /// The status code; None when the connection broke or the client's own deadline passed.
    pub code: Option<Code>,
    /// The status message, or what the transport said.
    pub message: String,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{}: {code:?}: {}", self.method, self.message),
            None => write!(f, "{}: {}", self.method, self.message),
        }
    }
}

impl std::error::Error for CallError {}

/// What a call gives.
pub type Answer<T> = std::result::Result<T, CallError>;

/// A connection to a shim's task service. Clones share the connection.
#[derive(Clone)]
pub struct Task {
    client: Client,
    service: String,
    patience: Duration,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Task {
    /// Connects to `address` (`unix:///...`), to call methods of `service`.
    pub async fn connect(address: &str, service: &str) -> Result<Task> {
        let client = Client::connect(address).await?;
        Ok(Task { client, service: service.to_string(), patience: STUCK })
    }

    /// The same connection, under another service name.
    pub fn named(&self, service: &str) -> Task {
        Task { service: service.to_string(), ..self.clone() }
    }

    /// The same connection; calls are given up (and the shim told so) after `patience`.
    pub fn patient_for(&self, patience: Duration) -> Task {
        Task { patience, ..self.clone() }
    }

    /// Any method with any messages.
    pub async fn call<Q: Message, A: Message>(&self, method: &str, request: &Q) -> Answer<A> {
        let failed =
            |code, message: String| CallError { method: method.to_string(), code, message };
        let mut call = ttrpc::Request::new();
        call.service = self.service.clone();
        call.method = method.to_string();
        call.timeout_nano = i64::try_from(self.patience.as_nanos()).unwrap_or(i64::MAX);
        call.payload = request.write_to_bytes().map_err(|err| failed(None, err.to_string()))?;
        match self.client.request(call).await {
            Ok(reply) => {
                A::parse_from_bytes(&reply.payload).map_err(|err| failed(None, err.to_string()))
            }
            Err(ttrpc::Error::RpcStatus(status)) => {
                Err(failed(Some(status.code()), status.message().to_string()))
            }
            Err(other) => Err(failed(None, other.to_string())),
        }
    }

    /// Create.
    pub async fn create(&self, request: &api::CreateTaskRequest) -> Answer<u32> {
        self.call::<_, api::CreateTaskResponse>("Create", request).await.map(|answer| answer.pid)
    }

    /// Start of the init (`exec` empty) or of an exec.
    pub async fn start(&self, id: &str, exec: &str) -> Answer<u32> {
        let request =
            api::StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.call::<_, api::StartResponse>("Start", &request).await.map(|answer| answer.pid)
    }

    /// State.
    pub async fn state(&self, id: &str, exec: &str) -> Answer<api::StateResponse> {
        let request =
            api::StateRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.call("State", &request).await
    }

    /// State's status alone.
    pub async fn status(&self, id: &str, exec: &str) -> Answer<api::Status> {
        self.state(id, exec).await.map(|state| state.status.enum_value_or_default())
    }

    /// Kill.
    pub async fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> Answer<()> {
        let request = api::KillRequest {
            id: id.into(),
            exec_id: exec.into(),
            signal,
            all,
            ..Default::default()
        };
        self.call::<_, Empty>("Kill", &request).await.map(drop)
    }

    /// Wait.
    pub async fn wait(&self, id: &str, exec: &str) -> Answer<api::WaitResponse> {
        let request =
            api::WaitRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.call("Wait", &request).await
    }

    /// Checkpoint.
    pub async fn checkpoint(&self, request: &api::CheckpointTaskRequest) -> Answer<()> {
        self.call::<_, Empty>("Checkpoint", request).await.map(|_| ())
    }

    /// Delete.
    pub async fn delete(&self, id: &str, exec: &str) -> Answer<api::DeleteResponse> {
        let request =
            api::DeleteRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.call("Delete", &request).await
    }

    /// Exec: adds a process, without starting it.
    pub async fn exec(&self, request: &api::ExecProcessRequest) -> Answer<()> {
        self.call::<_, Empty>("Exec", request).await.map(drop)
    }

    /// Pids.
    pub async fn pids(&self, id: &str) -> Answer<Vec<u32>> {
        Ok(self.processes(id).await?.into_iter().map(|(pid, _)| pid).collect())
    }

    /// Pids: each with the exec id that its details carry (none for the init and for strangers).
    pub async fn processes(&self, id: &str) -> Answer<Vec<(u32, Option<String>)>> {
        let request = api::PidsRequest { id: id.into(), ..Default::default() };
        let answer: api::PidsResponse = self.call("Pids", &request).await?;
        let exec = |process: &api::ProcessInfo| {
            let details = process.info.as_ref().filter(|any| any.type_url == DETAILS)?;
            Some(ProcessDetails::parse_from_bytes(&details.value).ok()?.exec_id)
        };
        Ok(answer.processes.iter().map(|process| (process.pid, exec(process))).collect())
    }

    /// Pause.
    pub async fn pause(&self, id: &str) -> Answer<()> {
        let request = api::PauseRequest { id: id.into(), ..Default::default() };
        self.call::<_, Empty>("Pause", &request).await.map(drop)
    }

    /// Resume.
    pub async fn resume(&self, id: &str) -> Answer<()> {
        let request = api::ResumeRequest { id: id.into(), ..Default::default() };
        self.call::<_, Empty>("Resume", &request).await.map(drop)
    }

    /// CloseIO of stdin.
    pub async fn close_stdin(&self, id: &str, exec: &str) -> Answer<()> {
        let request = api::CloseIORequest {
            id: id.into(),
            exec_id: exec.into(),
            stdin: true,
            ..Default::default()
        };
        self.call::<_, Empty>("CloseIO", &request).await.map(drop)
    }

    /// ResizePty.
    pub async fn resize(&self, id: &str, exec: &str, width: u32, height: u32) -> Answer<()> {
        let request = api::ResizePtyRequest {
            id: id.into(),
            exec_id: exec.into(),
            width,
            height,
            ..Default::default()
        };
        self.call::<_, Empty>("ResizePty", &request).await.map(drop)
    }

    /// Update with `linux.resources` as JSON, the way containerd sends them.
    pub async fn update(&self, id: &str, resources: &serde_json::Value) -> Answer<()> {
        let request = api::UpdateTaskRequest {
            id: id.into(),
            resources: Some(any(
                "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources",
                resources.to_string().into_bytes(),
            ))
            .into(),
            ..Default::default()
        };
        self.call::<_, Empty>("Update", &request).await.map(drop)
    }

    /// Stats: the type URL and the encoded metrics.
    pub async fn stats(&self, id: &str) -> Answer<protobuf::well_known_types::any::Any> {
        let request = api::StatsRequest { id: id.into(), ..Default::default() };
        let answer: api::StatsResponse = self.call("Stats", &request).await?;
        Ok(answer.stats.unwrap_or_default())
    }

    /// Connect.
    pub async fn connect_to(&self, id: &str) -> Answer<api::ConnectResponse> {
        let request = api::ConnectRequest { id: id.into(), ..Default::default() };
        self.call("Connect", &request).await
    }

    /// Shutdown.
    pub async fn shutdown(&self, id: &str) -> Answer<()> {
        let request = api::ShutdownRequest { id: id.into(), ..Default::default() };
        self.call::<_, Empty>("Shutdown", &request).await.map(drop)
    }
}

/// A protobuf Any.
pub fn any(type_url: &str, value: Vec<u8>) -> protobuf::well_known_types::any::Any {
    protobuf::well_known_types::any::Any { type_url: type_url.into(), value, ..Default::default() }
}

/// Holds when the call was refused with `code` and a message that names `object`. Containerd's own shim
/// often names nothing; see the header of reference-differences.toml.
pub fn refused<T: fmt::Debug>(answer: Answer<T>, code: Code, object: &str) -> Result<()> {
    refused_as(answer, &[code], object)
}

/// As [`refused`], where containerd's own shim lets an uncoded error through and a code would say more.
pub fn refused_as<T: fmt::Debug>(answer: Answer<T>, codes: &[Code], object: &str) -> Result<()> {
    match answer {
        Ok(answer) => bail!("expected {codes:?} naming {object:?}, was granted: {answer:?}"),
        Err(err) if !err.code.is_some_and(|code| codes.contains(&code)) => {
            bail!("expected {codes:?}, got {err}")
        }
        Err(err) if !crate::under_test::reference() && !err.message.contains(object) => {
            bail!("the message does not name {object:?}: {err}")
        }
        Err(_) => Ok(()),
    }
}

/// A status as the API encodes it, for comparisons in messages.
pub fn status_of(state: &api::StateResponse) -> api::Status {
    EnumOrUnknown::enum_value_or_default(&state.status)
}

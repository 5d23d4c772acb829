//! The Task service: requests off the wire and answers onto it.
//!
//! Versions 2 and 3 of the API have the same messages, so one service answers under both names.
//! Decides that an operation which has begun is finished, even when its caller hangs up in the middle
//! (a restarting containerd must not leave half a container). Must not decide anything else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
    StatsResponse, Status as WireStatus, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{EnumOrUnknown, Message, MessageField};
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::{Task, create_task};
use tracing::debug;
use ttrpc::r#async::{Service, TtrpcContext};

use crate::mount::Mount;
use crate::process::Exit;
use crate::status::status_of;
use crate::stdio::StdioSpec;
use crate::task::{
    CheckpointRequest, CreateRequest, Deleted, ExecRequest, Shim, Status, TaskError,
};
use crate::time::timestamp;

/// The names under which the Task service is asked for.
const TASK_NAMES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
/// Services that a newer containerd may ask for. A service without methods answers UNIMPLEMENTED, on
/// which containerd falls back; an unknown one would answer INVALID_ARGUMENT.
const EMPTY_NAMES: [&str; 2] =
    ["containerd.runtime.sandbox.v1.Sandbox", "containerd.services.streaming.v1.Streaming"];

/// Every service of the shim's socket.
pub fn services(shim: &Arc<Shim>) -> HashMap<String, Service> {
    let mut services = HashMap::new();
    for name in TASK_NAMES {
        let service: Arc<dyn Task + Send + Sync> = Arc::new(TaskService(Arc::clone(shim)));
        // The generated table knows one version's name; the handlers are the same for both.
        services.extend(create_task(service).into_values().map(|table| (name.to_owned(), table)));
    }
    for name in EMPTY_NAMES {
        let empty = Service { methods: HashMap::new(), streams: HashMap::new() };
        services.insert(name.to_owned(), empty);
    }
    services
}

struct TaskService(Arc<Shim>);

impl TaskService {
    fn shim(&self) -> Arc<Shim> {
        Arc::clone(&self.0)
    }
}

type Answer<T> = ttrpc::Result<T>;

/// Carries an operation out to its end, whatever becomes of the caller.
async fn finish<T, F>(verb: &'static str, id: &str, operation: F) -> Answer<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, TaskError>> + Send + 'static,
{
    let result = tokio::spawn(operation).await.unwrap_or(Err(TaskError::Lost(verb)));
    answer(verb, id, result)
}

fn answer<T>(verb: &'static str, id: &str, result: Result<T, TaskError>) -> Answer<T> {
    result.map_err(|error| {
        // The caller is told and logs it; here it is of use only to whoever debugs the shim.
        debug!(id, %error, "{verb} failed");
        status_of(&error)
    })
}

#[async_trait]
impl Task for TaskService {
    async fn create(&self, c: &TtrpcContext, r: CreateTaskRequest) -> Answer<CreateTaskResponse> {
        let id = r.id.clone();
        let request = create_request(r, patience(c));
        let pid = finish("create", &id, self.shim().create(request)).await?;
        Ok(CreateTaskResponse { pid: pid.cast_unsigned(), ..CreateTaskResponse::default() })
    }

    async fn start(&self, c: &TtrpcContext, r: StartRequest) -> Answer<StartResponse> {
        let (shim, id, patience) = (self.shim(), r.id.clone(), patience(c));
        let started = async move { shim.start(&r.id, &r.exec_id, patience).await };
        let pid = finish("start", &id, started).await?;
        Ok(StartResponse { pid: pid.cast_unsigned(), ..StartResponse::default() })
    }

    async fn delete(&self, c: &TtrpcContext, r: DeleteRequest) -> Answer<DeleteResponse> {
        let (shim, id, patience) = (self.shim(), r.id.clone(), patience(c));
        let deleted = async move { shim.delete(&r.id, &r.exec_id, patience).await };
        Ok(delete_response(finish("delete", &id, deleted).await?))
    }

    async fn exec(&self, _: &TtrpcContext, r: ExecProcessRequest) -> Answer<Empty> {
        let id = r.id.clone();
        let request = ExecRequest {
            id: r.id,
            exec: r.exec_id,
            stdio: StdioSpec {
                stdin: r.stdin,
                stdout: r.stdout,
                stderr: r.stderr,
                terminal: r.terminal,
            },
            spec: r.spec.into_option().unwrap_or_default().value,
        };
        answer("exec", &id, self.0.exec(request))?;
        Ok(Empty::default())
    }

    async fn state(&self, _: &TtrpcContext, r: StateRequest) -> Answer<StateResponse> {
        let state = answer("state", &r.id, self.0.state(&r.id, &r.exec_id))?;
        let (exit_status, exited_at) = told(state.exit);
        // As containerd's own shim has it: the id of the process that was asked about.
        let id = if r.exec_id.is_empty() { r.id } else { r.exec_id.clone() };
        Ok(StateResponse {
            id,
            exec_id: r.exec_id,
            bundle: state.bundle.to_string_lossy().into_owned(),
            pid: state.pid.cast_unsigned(),
            status: EnumOrUnknown::new(wire_status(state.status)),
            stdin: state.stdio.stdin,
            stdout: state.stdio.stdout,
            stderr: state.stdio.stderr,
            terminal: state.stdio.terminal,
            exit_status,
            exited_at,
            ..StateResponse::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, r: PidsRequest) -> Answer<PidsResponse> {
        let pids = answer("pids", &r.id, self.0.pids(&r.id))?;
        let processes = pids
            .into_iter()
            .map(|(pid, exec)| ProcessInfo {
                pid,
                info: exec.map(details).into(),
                ..ProcessInfo::default()
            })
            .collect();
        Ok(PidsResponse { processes, ..PidsResponse::default() })
    }

    async fn pause(&self, c: &TtrpcContext, r: PauseRequest) -> Answer<Empty> {
        let (shim, id, patience) = (self.shim(), r.id.clone(), patience(c));
        finish("pause", &id, async move { shim.pause(&r.id, patience).await }).await?;
        Ok(Empty::default())
    }

    async fn resume(&self, c: &TtrpcContext, r: ResumeRequest) -> Answer<Empty> {
        let (shim, id, patience) = (self.shim(), r.id.clone(), patience(c));
        finish("resume", &id, async move { shim.resume(&r.id, patience).await }).await?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, c: &TtrpcContext, r: CheckpointTaskRequest) -> Answer<Empty> {
        let id = r.id.clone();
        let request = CheckpointRequest {
            id: r.id,
            path: r.path,
            options: r.options.into_option(),
            patience: patience(c),
        };
        finish("checkpoint", &id, self.shim().checkpoint(request)).await?;
        Ok(Empty::default())
    }

    async fn kill(&self, c: &TtrpcContext, r: KillRequest) -> Answer<Empty> {
        let (shim, id, patience) = (self.shim(), r.id.clone(), patience(c));
        let killed = async move { shim.kill(&r.id, &r.exec_id, r.signal, r.all, patience).await };
        finish("kill", &id, killed).await?;
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, r: ResizePtyRequest) -> Answer<Empty> {
        answer("resize", &r.id, self.0.resize(&r.id, &r.exec_id, r.width, r.height))?;
        Ok(Empty::default())
    }

    async fn close_io(&self, _: &TtrpcContext, r: CloseIORequest) -> Answer<Empty> {
        answer("close-io", &r.id, self.0.close_input(&r.id, &r.exec_id))?;
        Ok(Empty::default())
    }

    async fn update(&self, c: &TtrpcContext, r: UpdateTaskRequest) -> Answer<Empty> {
        let (shim, id, patience) = (self.shim(), r.id.clone(), patience(c));
        let resources = r.resources.into_option().unwrap_or_default().value;
        let updated = async move { shim.update(&r.id, &resources, patience).await };
        finish("update", &id, updated).await?;
        Ok(Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, r: WaitRequest) -> Answer<WaitResponse> {
        let exit = answer("wait", &r.id, self.0.wait(&r.id, &r.exec_id).await)?;
        let (exit_status, exited_at) = told(Some(exit));
        Ok(WaitResponse { exit_status, exited_at, ..WaitResponse::default() })
    }

    async fn stats(&self, _: &TtrpcContext, r: StatsRequest) -> Answer<StatsResponse> {
        let stats = answer("stats", &r.id, self.0.stats(&r.id))?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..StatsResponse::default() })
    }

    async fn connect(&self, _: &TtrpcContext, r: ConnectRequest) -> Answer<ConnectResponse> {
        // Asked before the container is there, too: then without a task's PID.
        let task = self.0.state(&r.id, "").map_or(0, |state| state.pid);
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task.cast_unsigned(),
            ..ConnectResponse::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Answer<Empty> {
        // Some versions ask after every delete, some never: containers decide.
        self.0.shutdown();
        Ok(Empty::default())
    }
}

/// Until when an operation must have ended for its caller still to hear why it failed: a little before
/// the caller gives up.
fn patience(context: &TtrpcContext) -> Option<Instant> {
    let waits = u64::try_from(context.timeout_nano).ok().filter(|nanos| *nanos > 0)?;
    let waits = Duration::from_nanos(waits);
    Some(Instant::now() + waits - (waits / 10).min(Duration::from_secs(1)))
}

fn create_request(r: CreateTaskRequest, patience: Option<Instant>) -> CreateRequest {
    let rootfs = r.rootfs.iter().map(|m| Mount {
        kind: m.type_.clone(),
        source: m.source.clone(),
        target: m.target.clone(),
        options: m.options.clone(),
    });
    CreateRequest {
        id: r.id,
        bundle: r.bundle.into(),
        rootfs: rootfs.collect(),
        rootfs_sent: r.rootfs,
        stdio: StdioSpec {
            stdin: r.stdin,
            stdout: r.stdout,
            stderr: r.stderr,
            terminal: r.terminal,
        },
        checkpoint: r.checkpoint,
        options: r.options.into_option(),
        patience,
    }
}

/// The answer to a delete, also of the `delete` command.
pub fn delete_response(deleted: Deleted) -> DeleteResponse {
    let (exit_status, exited_at) = told(deleted.exit);
    let pid = deleted.pid.cast_unsigned();
    DeleteResponse { pid, exit_status, exited_at, ..DeleteResponse::default() }
}

fn told(
    exit: Option<Exit>,
) -> (u32, MessageField<containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp>) {
    match exit {
        Some(exit) => (exit.status, MessageField::some(timestamp(exit.at))),
        None => (0, MessageField::none()),
    }
}

fn wire_status(status: Status) -> WireStatus {
    match status {
        Status::Created => WireStatus::CREATED,
        Status::Running => WireStatus::RUNNING,
        Status::Pausing => WireStatus::PAUSING,
        Status::Paused => WireStatus::PAUSED,
        Status::Stopped => WireStatus::STOPPED,
    }
}

fn details(exec_id: String) -> Any {
    let details = ProcessDetails { exec_id, ..ProcessDetails::default() };
    // Encoding into memory fails only for unset required fields, which proto3 does not have.
    let value = details.write_to_bytes().unwrap_or_default();
    Any { type_url: "containerd.runc.v1.ProcessDetails".into(), value, ..Any::default() }
}

//! Stands in for containerd's event service: records what shims forward, in order, and lets a trial
//! await one. Must not know what a trial expects.

use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use async_trait::async_trait;
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::create_events;
use protobuf::Message;
use tokio::sync::Notify;
use ttrpc::asynchronous::{Server, TtrpcContext};

use crate::deadline::STUCK;
use crate::task::Empty;

/// One forwarded event, with the fields that events have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `/tasks/exit` and the like.
    pub topic: String,
    /// The containerd namespace of the envelope.
    pub namespace: String,
    /// The type URL of the body.
    pub type_url: String,
    /// The container's id.
    pub container: String,
    /// For an exit or delete: the exec id, or the container's own id for the init. For exec events: the exec id.
    pub process: String,
    /// The process.
    pub pid: u32,
    /// Exit status.
    pub status: u32,
}

impl Event {
    /// `topic container/process`, the form that trials compare orders in.
    pub fn label(&self) -> String {
        let topic = self.topic.trim_start_matches("/tasks/");
        if self.process.is_empty() {
            topic.to_string()
        } else {
            format!("{topic} {}", self.process)
        }
    }
}

#[derive(Default)]
struct Log {
    events: Mutex<Vec<Event>>,
    grown: Notify,
}

struct Recorder(Arc<Log>);

#[async_trait]
impl containerd_shim_protos::shim_async::Events for Recorder {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let envelope = request.envelope.unwrap_or_default();
        let body = envelope.event.clone().unwrap_or_default();
        let mut event = decode(&envelope.topic, &body.value).unwrap_or_default();
        event.topic = envelope.topic;
        event.namespace = envelope.namespace;
        event.type_url = body.type_url;
        self.0.events.lock().expect("no panic while held").push(event);
        self.0.grown.notify_waiters();
        Ok(Empty::new())
    }
}

fn decode(topic: &str, body: &[u8]) -> protobuf::Result<Event> {
    let mut event = Event::default();
    match topic {
        "/tasks/create" => {
            let body = TaskCreate::parse_from_bytes(body)?;
            (event.container, event.pid) = (body.container_id, body.pid);
        }
        "/tasks/start" => {
            let body = TaskStart::parse_from_bytes(body)?;
            (event.container, event.pid) = (body.container_id, body.pid);
        }
        "/tasks/exit" => {
            let body = TaskExit::parse_from_bytes(body)?;
            (event.container, event.process) = (body.container_id, body.id);
            (event.pid, event.status) = (body.pid, body.exit_status);
        }
        "/tasks/delete" => {
            let body = TaskDelete::parse_from_bytes(body)?;
            (event.container, event.process) = (body.container_id, body.id);
            (event.pid, event.status) = (body.pid, body.exit_status);
        }
        "/tasks/exec-added" => {
            let body = TaskExecAdded::parse_from_bytes(body)?;
            (event.container, event.process) = (body.container_id, body.exec_id);
        }
        "/tasks/exec-started" => {
            let body = TaskExecStarted::parse_from_bytes(body)?;
            (event.container, event.process, event.pid) =
                (body.container_id, body.exec_id, body.pid);
        }
        "/tasks/oom" => event.container = TaskOOM::parse_from_bytes(body)?.container_id,
        "/tasks/paused" => event.container = TaskPaused::parse_from_bytes(body)?.container_id,
        "/tasks/resumed" => event.container = TaskResumed::parse_from_bytes(body)?.container_id,
        _ => {}
    }
    Ok(event)
}

/// The stand-in, listening until dropped.
pub struct Events {
    log: Arc<Log>,
    address: String,
    // In a mutex only so that the stand-in can be shared between threads.
    _server: Mutex<Server>,
}

impl Events {
    /// Listens on `socket`.
    pub async fn listen(socket: &Path) -> Result<Events> {
        let log = Arc::new(Log::default());
        let mut server = Server::new()
            .bind(&format!("unix://{}", socket.display()))
            .with_context(|| format!("listening on {}", socket.display()))?
            .register_service(create_events(Arc::new(Recorder(log.clone()))));
        server.start().await?;
        Ok(Events { log, address: socket.display().to_string(), _server: Mutex::new(server) })
    }

    /// The value for `TTRPC_ADDRESS`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What has come so far.
    pub fn so_far(&self) -> Vec<Event> {
        self.log.events.lock().expect("no panic while held").clone()
    }

    /// What has come so far of one container, as labels.
    pub fn labels(&self, container: &str) -> Vec<String> {
        self.so_far()
            .iter()
            .filter(|event| event.container == container)
            .map(Event::label)
            .collect()
    }

    /// Awaits the first event that `matches`, past or coming.
    pub async fn first(&self, what: &str, matches: impl Fn(&Event) -> bool) -> Result<Event> {
        let search = async {
            loop {
                let grown = self.log.grown.notified();
                tokio::pin!(grown);
                grown.as_mut().enable();
                if let Some(event) = self.so_far().into_iter().find(&matches) {
                    return event;
                }
                grown.await;
            }
        };
        tokio::time::timeout(STUCK, search)
            .await
            .map_err(|_| anyhow::anyhow!("no event: {what}; came: {:#?}", self.so_far()))
    }

    /// Awaits the first event of `container` with `topic` (`exit`, without `/tasks/`) and process (see [`Event`]).
    pub async fn of(&self, container: &str, topic: &str, process: &str) -> Result<Event> {
        let full = format!("/tasks/{topic}");
        self.first(&format!("{topic} of {container}/{process}"), |event| {
            event.topic == full && event.container == container && event.process == process
        })
        .await
    }

    /// Awaits the exit of a container's init.
    pub async fn exit(&self, container: &str) -> Result<Event> {
        self.of(container, "exit", container).await
    }
}

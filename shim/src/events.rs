//! Events to containerd, in the order in which they happened.
//!
//! One queue, one sender: an event that cannot be delivered holds up the later ones until it is
//! delivered or given up, so that containerd never sees an exit before its start. Decides topics,
//! retries and what is dropped. Without an address (a shim that was started by hand) events go
//! nowhere. Must not know how events come about.

use std::time::{Duration, SystemTime};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{MessageField, MessageFull};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tracing::warn;
use ttrpc::context;

use crate::time::timestamp;

/// Events that may wait for a containerd that is away.
const QUEUE: usize = 2048;
/// Attempts for one event, with pauses of 1, 2, 3, … seconds between them.
const ATTEMPTS: u32 = 5;
/// How long containerd may take to accept one.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Where events are handed in.
#[derive(Debug, Clone)]
pub struct Events {
    namespace: String,
    queue: Option<mpsc::Sender<Item>>,
}

#[derive(Debug)]
enum Item {
    Event(Box<Envelope>),
    Flush(oneshot::Sender<()>),
}

impl Events {
    /// Starts the sender for containerd's ttrpc `address`, a socket path; empty for none.
    pub fn new(namespace: &str, address: &str) -> Self {
        let queue = (!address.is_empty()).then(|| {
            let (queue, items) = mpsc::channel(QUEUE);
            tokio::spawn(send_all(
                format!("unix://{}", address.trim_start_matches("unix://")),
                items,
            ));
            queue
        });
        Self { namespace: namespace.to_owned(), queue }
    }

    /// Queues an event. Its topic follows from its type.
    pub fn publish<E: Topic>(&self, event: &E) {
        let Some(queue) = &self.queue else { return };
        // Encoding into memory fails only for unset required fields, which proto3 does not have.
        let value = event.write_to_bytes().unwrap_or_default();
        let any = Any { type_url: E::KIND.into(), value, ..Any::default() };
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.into(),
            event: MessageField::some(any),
            ..Envelope::default()
        };
        if queue.try_send(Item::Event(Box::new(envelope))).is_err() {
            warn!(topic = E::TOPIC, "containerd has not taken {QUEUE} events; one is dropped");
        }
    }

    /// Waits until everything queued so far is delivered or given up.
    pub async fn flush(&self) {
        let Some(queue) = &self.queue else { return };
        let (sender, flushed) = oneshot::channel();
        if queue.send(Item::Flush(sender)).await.is_ok() {
            let _ = flushed.await;
        }
    }
}

async fn send_all(address: String, mut items: mpsc::Receiver<Item>) {
    let mut client = None;
    while let Some(item) = items.recv().await {
        match item {
            Item::Flush(sender) => drop(sender.send(())),
            Item::Event(envelope) => {
                let topic = envelope.topic.clone();
                let envelope = MessageField::some(*envelope);
                let request = ForwardRequest { envelope, ..ForwardRequest::default() };
                if let Err(error) = deliver(&address, &mut client, &request).await {
                    warn!(%error, topic, "event given up after {ATTEMPTS} attempts");
                }
            }
        }
    }
}

async fn deliver(
    address: &str,
    client: &mut Option<EventsClient>,
    request: &ForwardRequest,
) -> ttrpc::Result<()> {
    let mut attempt = 1;
    loop {
        let result = match client {
            Some(client) => client.forward(context::with_duration(FORWARD_TIMEOUT), request).await,
            None => match Client::connect(address).await {
                Ok(connected) => {
                    *client = Some(EventsClient::new(connected));
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        match result {
            Ok(_) => return Ok(()),
            // containerd understood and said no: asking again would not change that.
            Err(error @ ttrpc::Error::RpcStatus(_)) => return Err(error),
            Err(error) if attempt >= ATTEMPTS => return Err(error),
            Err(_) => {
                *client = None;
                tokio::time::sleep(Duration::from_secs(attempt.into())).await;
                attempt += 1;
            }
        }
    }
}

/// An event with its topic (containerd's `core/runtime/events.go`) and its full type name.
pub trait Topic: MessageFull {
    /// Where subscribers look for it.
    const TOPIC: &'static str;
    /// Its type URL.
    const KIND: &'static str;
}

macro_rules! topics {
    ($($event:ident => $topic:literal,)*) => {$(
        impl Topic for containerd_shim_protos::events::task::$event {
            const TOPIC: &'static str = $topic;
            const KIND: &'static str = concat!("containerd.events.", stringify!($event));
        }
    )*};
}

topics! {
    TaskCreate => "/tasks/create",
    TaskStart => "/tasks/start",
    TaskOOM => "/tasks/oom",
    TaskExit => "/tasks/exit",
    TaskDelete => "/tasks/delete",
    TaskExecAdded => "/tasks/exec-added",
    TaskExecStarted => "/tasks/exec-started",
    TaskPaused => "/tasks/paused",
    TaskResumed => "/tasks/resumed",
}

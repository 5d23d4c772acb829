//! The shim of one group: its containers and what they share.
//!
//! Decides which container an id means. Must not know verbs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use engine::Node;
use engine::config::Config;
use tokio::sync::Notify;

use super::container::Container;
use super::error::TaskError;
use crate::cgroup::Hierarchies;
use crate::events::Events;
use crate::process::Reaper;

/// Everything that the verbs share.
pub struct Shim {
    /// containerd namespace.
    pub namespace: String,
    /// Group (pod) that this shim serves.
    pub group: String,
    /// The node's configuration.
    pub config: Config,
    /// The node's brain.
    pub node: Arc<Node>,
    /// Whether any container here has ever been granted anything.
    pub claimed: AtomicBool,
    /// Events to containerd.
    pub events: Events,
    /// Collects every child.
    pub reaper: Reaper,
    containers: Mutex<Containers>,
    hierarchies: OnceLock<Hierarchies>,
    stop: Notify,
}

/// The containers, and whether there may be more.
#[derive(Default)]
struct Containers {
    slots: HashMap<String, Slot>,
    /// Set by the shutdown that found none: from then on there must never be one.
    stopping: bool,
}

enum Slot {
    /// Reserved by a create that is under way.
    Creating,
    Ready(Arc<Container>),
}

/// A container id that a create has reserved. Dropped unfilled, the id is free again.
pub struct Reservation {
    shim: Arc<Shim>,
    id: String,
}

impl Shim {
    /// A shim without containers.
    pub fn new(
        namespace: String,
        group: String,
        config: Config,
        events: Events,
        reaper: Reaper,
    ) -> Self {
        Self {
            namespace,
            group,
            node: Arc::new(Node::new(&config)),
            claimed: AtomicBool::new(false),
            config,
            events,
            reaper,
            containers: Mutex::default(),
            hierarchies: OnceLock::new(),
            stop: Notify::new(),
        }
    }

    fn containers(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves an id.
    ///
    /// # Errors
    /// [`TaskError::ContainerExists`]; [`TaskError::Stopping`] once the shim has agreed to end.
    pub fn reserve(self: &Arc<Self>, id: &str) -> Result<Reservation, TaskError> {
        let mut containers = self.containers();
        if containers.stopping {
            return Err(TaskError::Stopping { id: id.to_owned() });
        }
        if containers.slots.contains_key(id) {
            return Err(TaskError::ContainerExists { id: id.to_owned() });
        }
        containers.slots.insert(id.to_owned(), Slot::Creating);
        Ok(Reservation { shim: Arc::clone(self), id: id.to_owned() })
    }

    /// The container of that id. One that is still being made does not exist yet.
    ///
    /// # Errors
    /// [`TaskError::NoSuchContainer`]
    pub fn container(&self, id: &str) -> Result<Arc<Container>, TaskError> {
        match self.containers().slots.get(id) {
            Some(Slot::Ready(container)) => Ok(Arc::clone(container)),
            _ => Err(TaskError::NoSuchContainer { id: id.to_owned() }),
        }
    }

    /// Forgets a container that is gone.
    pub fn forget(&self, id: &str) {
        self.containers().slots.remove(id);
    }

    /// The host's cgroup hierarchies, read at the first call.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn hierarchies(&self) -> io::Result<&Hierarchies> {
        if let Some(known) = self.hierarchies.get() {
            return Ok(known);
        }
        let read = Hierarchies::read()?;
        Ok(self.hierarchies.get_or_init(|| read))
    }

    /// Asks the shim to end, which it does unless it has containers. Says whether it will.
    pub fn shutdown(&self) -> bool {
        let mut containers = self.containers();
        let idle = containers.slots.is_empty();
        if idle {
            containers.stopping = true;
            self.stop.notify_one();
        }
        idle
    }

    /// Waits until the shim is to end.
    pub async fn stopped(&self) {
        self.stop.notified().await;
    }

    /// The state of everything, a line per container, for the log.
    pub fn describe(&self) -> String {
        let mut text = format!("group {} in namespace {}", self.group, self.namespace);
        for (id, slot) in &self.containers().slots {
            // Writing to a String cannot fail.
            let _ = match slot {
                Slot::Creating => write!(text, "; container {id}: being created"),
                Slot::Ready(container) => {
                    let execs: Vec<_> = container
                        .execs()
                        .values()
                        .map(|e| {
                            format!("{} pid {} {:?}", e.id, e.process.pid(), e.process.lifecycle())
                        })
                        .collect();
                    let init = &container.init;
                    write!(
                        text,
                        "; container {id}: init pid {} {:?} exit {:?}, running execs {}, execs {execs:?}",
                        init.pid(),
                        init.lifecycle(),
                        init.exit(),
                        *container.running_execs.borrow(),
                    )
                }
            };
        }
        text
    }
}

impl Reservation {
    /// Puts the container in its place.
    pub fn fill(self, container: Arc<Container>) {
        self.shim.containers().slots.insert(self.id.clone(), Slot::Ready(container));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut containers = self.shim.containers();
        if matches!(containers.slots.get(&self.id), Some(Slot::Creating)) {
            containers.slots.remove(&self.id);
        }
    }
}

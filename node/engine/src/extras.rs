//! Extras: what a container gets beside its GPUs.
//!
//! Decides that what is asked for is there or the container is refused, before anything is held. Who may ask is `plan`'s; which nodes, the
//! device's.

use device::DeviceNode;
use oci_specs::Mount;
use plan::{Extra, Refusal};

use crate::ask::Ask;
use crate::edits::bind;
use crate::{Denied, Node};

/// What all the extras of a container come to.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    pub(crate) nodes: Vec<DeviceNode>,
    pub(crate) mounts: Vec<Mount>,
}

impl Brought {
    /// Looks for what `ask` asks for.
    pub(crate) fn of(node: &Node, ask: &Ask) -> Result<Self, Denied> {
        let mut brought = Self::default();
        let Some(request) = &ask.request else { return Ok(brought) };
        for extra in request.extras.iter() {
            let nodes = device::extra_nodes(&node.host, extra)?;
            if nodes.is_empty() {
                let key = request.extras_key();
                let value = request.written.get(&key).cloned().unwrap_or_default();
                return Err(absent(key, value, extra).into());
            }
            brought.nodes.extend(nodes);
            let file = device::extra_file(&node.host, extra);
            brought.mounts.extend(file.map(|(source, place)| bind(&source, place)));
        }
        Ok(brought)
    }
}

fn absent(key: String, value: String, extra: Extra) -> Refusal {
    let looked_for = device::extra_words(extra);
    Refusal::NoExtra { key, value, extra: extra.name().to_owned(), looked_for }
}

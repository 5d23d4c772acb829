//! `berth observe` and `berth prepare-driver`: the slow looks at the node that the shim leaves to a child of its own.

use engine::Node;

/// Observes the node and writes what the shim will read.
pub fn observe(node: &Node) -> anyhow::Result<()> {
    Ok(node.observe()?)
}

/// Prepares the driver's files.
pub fn prepare_driver(node: &Node, capabilities: &str) -> anyhow::Result<()> {
    Ok(node.prepare_driver(&capabilities.parse()?)?)
}

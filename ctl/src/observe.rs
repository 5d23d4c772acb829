//! `berth observe`, `prepare-driver` and `give-back`: the slow looks at the node, and works on it, that the shim leaves to a child of
//! its own.

use std::os::fd::AsFd;

use engine::{GrantId, Node};

/// Observes the node and writes what the shim will read.
pub fn observe(node: &Node) -> anyhow::Result<()> {
    Ok(node.observe()?)
}

/// Prepares the driver's files.
pub fn prepare_driver(node: &Node, capabilities: &str) -> anyhow::Result<()> {
    Ok(node.prepare_driver(&capabilities.parse()?)?)
}

/// Destroys what a grant still has. Whoever starts this has marked the grant, and gives the mark.
pub fn give_back(node: &Node, grant: &GrantId) -> anyhow::Result<()> {
    let mark = std::io::stdin().as_fd().try_clone_to_owned().ok();
    Ok(node.give_back(grant, mark)?)
}

//! The node's inventory as the launch path has it: from the cache, else from one child for the whole node.
//!
//! Decides when a child is started. A node without the driver has nothing, and that needs no child.

use plan::Inventory;

use crate::cache::{self, Key};
use crate::error::DeviceError;
use crate::tool::{Errand, Tool};
use crate::{Host, keep};

/// What the node has. A few system calls when it is as it was; else `berth observe` looks, once for all who ask.
///
/// # Errors
/// When the driver is loaded and the node cannot be observed.
pub fn inventory(host: &Host, tool: &Tool) -> Result<Inventory, DeviceError> {
    let Some(before) = Key::now(host)? else { return Ok(Inventory::default()) };
    if let Some(inventory) = cache::load(host, &[&before]) {
        return Ok(inventory);
    }
    let lock = keep::boot_dir(host)?.join("observe.lock");
    let errand = Errand { task: "look at the node's GPUs", args: &["observe"], lock: &lock };
    tool.fetch(&errand, || {
        // Looking can itself change what is listed (the driver wakes up), and so can others meanwhile.
        let now = Key::now(host)?;
        let keys: Vec<&Key> = now.iter().chain([&before]).collect();
        Ok(cache::load(host, &keys))
    })
}

#[cfg(test)]
mod tests;

//! The node's inventory as the launch path has it: from the cache, else from one child for the whole node.
//!
//! Decides when a child is started. A node without the driver has nothing, and that needs no child.

use plan::{GpuUuid, Inventory};

use super::mig;
use crate::cache::{self, Key};
use crate::error::DeviceError;
use crate::tool::{Errand, Tool};
use crate::{Host, keep};

/// What the node has. A few system calls when it is as it was; else `berth observe` looks, once for all who ask. The MIG instances of a GPU on which
/// somebody works (`is_busy`) are changing: of those, what was known last is told.
///
/// # Errors
/// When the driver is loaded and the node cannot be observed.
pub fn inventory(
    host: &Host,
    tool: &Tool,
    is_busy: impl Fn(&GpuUuid) -> bool,
) -> Result<Inventory, DeviceError> {
    let Some(before) = Key::now(host)? else { return Ok(Inventory::default()) };
    let load = |keys: &[&Key], has_looked: bool| {
        let Some(mut inventory) = cache::load(host, keys) else { return Ok(None) };
        // Of instances that come and go by the second, what a look just now has found must do.
        let is_known = mig::fill(host, &mut inventory, &is_busy)? || has_looked;
        Ok(is_known.then_some(inventory))
    };
    if let Some(inventory) = load(&[&before], false)? {
        return Ok(inventory);
    }
    let lock = keep::boot_dir(host)?.join("observe.lock");
    let errand = Errand { task: "look at the node's GPUs", args: &["observe"], lock: &lock };
    let mut has_looked = false;
    tool.fetch(&errand, || {
        // Looking can itself change what is listed (the driver wakes up), and so can others meanwhile.
        let now = Key::now(host)?;
        let keys: Vec<&Key> = now.iter().chain([&before]).collect();
        load(&keys, std::mem::replace(&mut has_looked, true))
    })
}

/// Puts into the inventory which MIG instances there are now, as far as they are known. Looks at no GPU.
///
/// # Errors
/// When the driver's listing cannot be read.
pub fn instances_now(host: &Host, inventory: &mut Inventory) -> Result<(), DeviceError> {
    mig::fill(host, inventory, |_| true).map(drop)
}

#[cfg(test)]
mod tests;

//! The machine: what it has, what a container gets of it, and how that is put into the container's world.
//!
//! ```text
//! host side        inventory ─ device_nodes ─ char_links ─ proc_tree ─ driver_tree      nvidia/, kubelet
//! container side   rootfs ─ loader_cache ─ arm
//! ```
//!
//! Decides nothing about who gets what: it reads facts and carries out. Must not know requests, grants, the ledger, OCI or containerd.
//! NVML is loaded in the `berth` program alone (feature `nvml`), never where containers are launched.

#![deny(unsafe_code)]

pub mod arm;
pub mod kubelet;
pub mod loader_cache;
pub mod rootfs;

mod cache;
mod call;
mod cpuset;
mod error;
mod host;
mod keep;
mod living;
mod nvidia;
mod tool;
mod topology;

pub use arm::Placing;
pub use cache::problems;
pub use cpuset::{Allowed, allowed};
pub use error::DeviceError;
pub use host::Host;
pub use keep::{forget, keep, kept, read_of_root, sweep};
pub use living::{Living, init_pid, living};
#[cfg(feature = "nvml")]
pub use nvidia::driver::{DriverFile, driver_files, prepare_driver};
pub use nvidia::driver::{DriverTree, Library, Width, driver_tree, old_trees};
pub use nvidia::extras::{extra_file, extra_nodes, extra_words};
pub use nvidia::inventory::{instances_now, inventory};
#[cfg(feature = "nvml")]
pub use nvidia::mig::act::{Migs, migs, switch_mode};
pub use nvidia::mig::{instance_inode, is_in_mig_mode};
pub use nvidia::nodes::{
    DeviceNode, LinkProblem, MigDevice, capability_minors, char_links, device_nodes,
    missing_char_links, stand_on_the_host,
};
#[cfg(feature = "nvml")]
pub use nvidia::observe::observe;
pub use nvidia::proc_tree::proc_tree;
pub use tool::{Errand, Tool};
pub use topology::topology;

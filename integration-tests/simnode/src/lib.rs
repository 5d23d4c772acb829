//! A GPU node without a GPU: a host tree, its state, and what its driver library answers from.
//!
//! Decides what a simulated node looks like, and is the one place where its facts stand. Must not know Berth: whoever tests
//! Berth against it needs a second opinion, not an echo.
//!
//! ```text
//! DIR/root/…               the node's file system: proc, sys, dev, usr/lib/…, run
//! DIR/.simnode/state.json  what its GPUs are and do; every process's driver library reads it
//! DIR/.simnode/lock        held (flock) while it is changed
//! ```
#![forbid(unsafe_code)]

pub mod code;
pub mod container;
pub mod elf;
mod error;
pub mod fault;
mod find;
pub mod latency;
mod layout;
pub mod machine;
pub mod mig;
pub mod model;
mod node;
pub mod pci;
pub mod profile;
pub mod state;
pub mod store;
mod tree;

pub use error::NodeError;
pub use find::{nvidia_smi, nvml_library};
pub use layout::Layout;
pub use node::{Change, Node, Options};
pub use profile::Profile;
pub use state::{Latency, State};

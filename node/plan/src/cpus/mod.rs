//! CPUs and memory next to a container's GPUs: what is near, what a container gets of it, and what becomes of it when others change its
//! resources.
//!
//! ```text
//! Topology ─► Near::of(GPUs) ─► Ground (less isolated, reserved, the pool; what the cgroup allows) ─► pin ─► Pinning
//!                                                          exclusively: pick from the pool ─┘           Update ─► merge
//! ```
//!
//! Decides all of it as values. Must not read or write cgroups.

mod exclusive;
mod ground;
mod near;
mod pick;
mod pinning;
mod set;
mod topology;

pub use exclusive::{Held, exclusive};
pub use ground::Ground;
pub use near::Near;
pub use pick::pick;
pub use pinning::{Asked, Pinning, merge, pin};
pub use set::{BadList, CpuSet, NodeSet};
pub use topology::{NumaNode, Topology};

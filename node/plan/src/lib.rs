//! Pure decisions: what is asked for, what the node has, who holds what, and what follows from it.
//!
//! Decides everything about a placement that could be a choice; carrying it out makes none. Must not know files, environment, clocks,
//! processes or logs: the same values in, the same value out.

#![forbid(unsafe_code)]

pub mod audit;
pub mod capability;
mod ceiling;
pub mod cpus;
mod extra;
pub mod glob;
pub mod ids;
pub mod inventory;
pub mod mig;
mod nearest;
pub mod occupancy;
pub mod place;
pub mod policy;
pub mod refusal;
pub mod request;
pub mod requirement;
pub mod trust;
pub mod visible;
pub mod warning;
pub mod words;

pub use capability::{Capabilities, Capability};
pub use cpus::{CpuSet, Near, NodeSet, Pinning, Topology};
pub use extra::{Extra, Extras};
pub use ids::{GpuUuid, GrantId, Mib, MigUuid, PciAddress};
pub use inventory::{Ancestor, CudaVersion, Driver, Gpu, Inventory, Peer};
pub use nearest::Nearest;
pub use occupancy::{Holder, Occupancy, Slice};
pub use place::{Candidate, Placement, Verdict, decide};
pub use policy::Policy;
pub use refusal::Refusal;
pub use request::{Cpus, Numa, Request, Scope, Want};
pub use visible::Visible;
pub use warning::Warning;

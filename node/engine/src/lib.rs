//! The engine: what the doors (shim, operator's command) may ask of the node's brain.
//!
//! Decides, for one container, whether it is admitted, what is done between create and start, what
//! its execs get, and what is given back. Read `admit.rs` first: it is the flow. A container that asks for nothing passes
//! through every seam untouched. Must not know containerd, ttrpc or stdio.

#![forbid(unsafe_code)]

mod admit;
mod arm;
mod ask;
mod audit;
mod cdi;
mod claim;
pub mod config;
pub mod crash;
mod dress;
mod edits;
mod examine;
mod exec;
mod extras;
mod fault;
mod instances;
mod mode;
mod node;
mod pinning;
mod prior;
mod rebuild;
mod reconcile;
mod rehearsal;
mod release;
mod repair;
mod settle;
#[cfg(feature = "nvml")]
mod specify;
mod supposed;
mod unclaimed;
mod update;
#[cfg(feature = "nvml")]
mod works;

pub use admit::{Admission, Rootfs};
pub use ask::{Ask, Owner};
pub use cdi::CdiDevices;
pub use examine::{Check, Outcome};
pub use exec::merge_exec;
pub use fault::{Denied, Fault};
pub use ledger::{
    GivenGpu, GivenInstance, GivenSlot, Grant, Member, Origin, Snapshot, Stage, State,
};
pub use node::Node;
pub use oci_specs::cdi::{Examined, Listed, NewSpec, Problem};
pub use oci_specs::yaml;
pub use plan::cpus::NumaNode;
pub use plan::{
    Ancestor, Candidate, Capabilities, CpuSet, Driver, Gpu, GpuUuid, GrantId, Inventory, Near,
    NodeSet, Peer, Pinning, Refusal, Topology, Verdict, Warning,
};
pub use reconcile::Report;
pub use rehearsal::{Rehearsal, Rehearsed, Step};
pub use repair::Repair;
#[cfg(feature = "nvml")]
pub use specify::{DeviceName, write_spec};
pub use supposed::{Supposed, SupposedPod};
pub use unclaimed::Unclaimed;
pub use update::Update;

//! The engine's callers without containerd: bundles, stand-ins for first processes, and processes that are told where to die.
//!
//! Decides how a container is played where only the engine is tried. Everything that the kernel knows of it is real: its process, its
//! mount namespace, the locks that die with it. Must not know what a trial expects.

mod actor;
mod container;
mod init;
mod place;

pub use actor::{Actor, Ended};
pub use container::{Container, Pod, Prepared, owner};
pub use init::{Init, stand_in};
pub use place::Place;

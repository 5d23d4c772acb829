//! The engine: what the doors (shim, operator's command) may ask of the node's brain.
//!
//! Decides, for one container, whether it is admitted, what is done between create and start, what
//! its execs get, and what is given back. In this version no GPU can be granted: a container that
//! asks for none passes through every seam untouched, and one that asks is refused, not ignored.
//! Must not know containerd, ttrpc or stdio.

#![forbid(unsafe_code)]

mod admit;
mod arm;
mod exec;
mod release;

pub use admit::{Admission, Owner, Refusal, admit};
pub use arm::{Fault, arm};
pub use exec::merge_exec;
pub use release::release;

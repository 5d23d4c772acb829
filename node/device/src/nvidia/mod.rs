//! NVIDIA's driver: what it has, what belongs to it, what a container is shown of it.
//!
//! Decides nothing; the facts of this one vendor are here and nowhere else.

mod dri;
pub(crate) mod driver;
pub(crate) mod extras;
pub(crate) mod inventory;
pub(crate) mod mig;
pub(crate) mod nodes;
#[cfg(feature = "nvml")]
pub(crate) mod observe;
pub(crate) mod proc_tree;

#[cfg(test)]
pub(crate) mod fake;

//! The C ABI of `libnvidia-ml.so.1` for a simulated GPU node: what nvml.h declares, answered from the node's state.
//!
//! Decides which functions there are and what each answers. A function that is not here is not in this driver: programs
//! find its symbol missing, as they do with a real driver that is too old. Must not know Berth.
//!
//! On a node the state file answers; in a container, which has none, `/proc/driver/nvidia` and the device nodes do.

#[macro_use]
mod define;
mod activity;
mod affinity;
mod clocks;
mod compute;
mod gate;
mod handles;
mod identity;
mod instances;
mod memory;
mod mig;
mod nvlink;
mod opaque;
mod pci;
mod pointer;
mod power;
mod processes;
mod slices;
mod structs;
mod system;
mod topology;

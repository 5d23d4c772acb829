//! Harness and suites: real shims, real runc, real containerd. Everything a trial makes lives in a
//! scratch place of its own and is gone when the trial ends. Knows the Task API and OCI; knows no
//! inside of any crate of Berth.

pub mod actors;
pub mod bench;
pub mod bundle;
pub mod busybox;
pub mod command;
pub mod container;
pub mod containerd;
pub mod cri;
pub mod deadline;
pub mod dice;
pub mod events;
pub mod gpu;
pub mod images;
pub mod lab;
pub mod leaks;
pub mod machine;
pub mod runtime;
pub mod scratch;
pub mod shim;
pub mod stdio;
pub mod suite;
pub mod task;
pub mod under_test;
pub mod versions;
pub mod wait;

//! OCI bundles as data: reads `config.json` and keeps its bytes.
//!
//! Decides how a bundle is read: typed views of the few fields that Berth looks at, borrowed from
//! nothing but the file, every other byte left alone. Must not know what a GPU is, what containerd
//! is, or what anybody wants to do with the bundle.

#![forbid(unsafe_code)]

mod bundle;
mod view;

pub use bundle::{Bundle, BundleError};
pub use view::{LinuxView, NamespaceView, ProcessView, RootView, SpecView};

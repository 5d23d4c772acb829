//! OCI bundles as data: reads `config.json`, edits it in places, resolves CDI names.
//!
//! Decides how a bundle is read (typed views of the few fields that Berth looks at), how it is changed
//! ([`Edits`]: every byte that no edit is about is left alone) and what a CDI name stands for. Must not
//! know what a GPU is, what containerd is, or what anybody wants to do with the bundle.

#![forbid(unsafe_code)]

mod bundle;
pub mod cdi;
mod edit_error;
mod edits;
mod exec;
mod json;
mod parts;
mod view;
pub mod yaml;

pub use bundle::{Bundle, BundleError};
pub use edit_error::EditError;
pub use edits::Edits;
pub use exec::{edit_process, edit_resources};
pub use parts::{Device, DeviceRule, Hook, HookKind, HookPattern, Mount};
pub use view::{
    CapabilitiesView, CpuView, LinuxView, MountView, NamespaceView, ProcessView, ResourcesView,
    RootView, SpecView,
};

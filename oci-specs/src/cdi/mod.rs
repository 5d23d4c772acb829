//! The Container Device Interface: specs on disk, and what a device's name stands for.
//!
//! Decides which spec counts, whether a spec is valid, and what a list of names adds up to. A small
//! reader of CDI 0.3 to 1.1 (tags.cncf.io/container-device-interface, SPEC.md), and the text of specs of one's own.
//! Must not write files, nor know whose devices they are.

mod edits;
mod examine;
mod lenient;
mod name;
mod registry;
mod rules;
mod spec;
mod write;

use std::io;
use std::path::PathBuf;

pub use edits::{ContainerEdits, DeviceNode};
pub use examine::{Examined, examine, spec_files};
pub use name::{QualifiedName, annotation_devices};
pub use registry::{Listed, Registry};
pub use rules::Problem;
pub use write::NewSpec;

/// Why a CDI name or spec is of no use. Every variant names the file or the device.
#[derive(Debug, thiserror::Error)]
pub enum CdiError {
    /// Not a name.
    #[error(
        "{name:?} is not the name of a CDI device: {problem}; \
         it reads vendor/class=device, as in example.com/device=0"
    )]
    Name {
        /// What was given.
        name: String,
        /// Which rule it breaks.
        problem: &'static str,
    },
    /// An annotation that asks for CDI devices holds something else.
    #[error("annotation {key:?}: {source}")]
    Annotation {
        /// The annotation.
        key: String,
        /// Why.
        source: Box<CdiError>,
    },
    /// A directory of specs cannot be listed.
    #[error("cannot list the CDI specs in {path}: {source}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// No spec has the device.
    #[error("no CDI spec has the device {name}; looked into {searched}{broken}")]
    Unknown {
        /// The device.
        name: QualifiedName,
        /// The directories.
        searched: String,
        /// Specs there that could not be read, one of which may have it; empty or a clause.
        broken: String,
    },
    /// Two specs of the same priority have the device.
    #[error(
        "two CDI specs have the device {name}: {first} and {second}; remove it from one of them",
        first = first.display(), second = second.display()
    )]
    Conflict {
        /// The device.
        name: QualifiedName,
        /// One spec.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// What the device's spec wants a container to get cannot be given.
    #[error("CDI spec {path}: {problem}", path = path.display())]
    Unsupported {
        /// The spec.
        path: PathBuf,
        /// What and why.
        problem: String,
    },
    /// A device node whose numbers the spec leaves to the host.
    #[error("cannot look up the device node {path} that a CDI spec wants: {source}", path = path.display())]
    Node {
        /// The node on the host.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;

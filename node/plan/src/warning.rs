//! What a container is admitted without: best-effort things that could not be had, in words.
//!
//! Decides the words. A warning never refuses; whether something is essential is the caller's decision.

use crate::words::shown;

/// Something that the container runs without.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// The image's C library is musl.
    #[error(
        "berth: the image's loader is musl ({}): the driver's libraries need glibc, so CUDA, NVML and nvidia-smi cannot run in it; its devices are there; use an image with glibc",
        shown(.loader)
    )]
    Musl {
        /// Path of the loader in the image.
        loader: String,
    },
    /// The image has no loader cache.
    #[error("berth: the image has no {}: its loader finds the driver's libraries through {instead}, but ldconfig -p does not list them", shown(.cache))]
    NoLoaderCache {
        /// `/etc/ld.so.cache`.
        cache: String,
        /// `LD_LIBRARY_PATH`.
        instead: String,
    },
    /// The image's loader cache is no such thing.
    #[error("berth: the image's {} cannot be read ({why}) and was replaced", shown(.cache))]
    BadLoaderCache {
        /// Its path in the image.
        cache: String,
        /// Why.
        why: String,
    },
    /// A best-effort step did not work.
    #[error("berth: {what} could not be brought: {why}; the container runs without it")]
    Without {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
    /// A privileged container holds GPUs.
    #[error(
        "berth: the container is privileged ({why}): it can use every GPU of the node, whatever it was granted"
    )]
    Unconfined {
        /// What makes it so.
        why: String,
    },
}

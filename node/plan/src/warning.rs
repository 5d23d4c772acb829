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
        "the image's loader is musl ({}): the driver's libraries need glibc, so CUDA, NVML and nvidia-smi cannot run in it; its devices are there; use an image with glibc",
        shown(.loader)
    )]
    Musl {
        /// Path of the loader in the image.
        loader: String,
    },
    /// The image has no loader cache, and none can be put there.
    #[error(
        "the image has no {} and its root cannot be written, so its loader does not find the driver's libraries: run ldconfig when building the image, or set LD_LIBRARY_PATH={libraries}",
        shown(.cache)
    )]
    NoLoaderCache {
        /// `/etc/ld.so.cache`.
        cache: String,
        /// Where the libraries are.
        libraries: String,
    },
    /// A best-effort step did not work.
    #[error("{what} could not be brought: {why}; the container runs without it")]
    Without {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
}

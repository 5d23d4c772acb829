//! Breakage, and the two ways in which an admission can end without a container.
//!
//! Decides words only where no crate below has them. Must not know status codes.

use std::io;
use std::path::PathBuf;

use device::DeviceError;
use device::arm::ArmError;
use ledger::LedgerError;
use oci_specs::BundleError;
use oci_specs::cdi::CdiError;
use plan::Refusal;

/// Breakage while a decision was made or carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The machine, or what Berth keeps on it.
    #[error("berth: {0}")]
    Device(#[from] DeviceError),
    /// The record of who holds what.
    #[error("berth: {0}")]
    Ledger(#[from] LedgerError),
    /// The container's configuration.
    #[error("berth: {0}")]
    Bundle(#[from] BundleError),
    /// The container's mount namespace, between create and start.
    #[error("berth: {0}")]
    Arm(#[from] ArmError),
    /// The container's root filesystem, which the image made what it is.
    #[error("berth: cannot prepare the root filesystem of container {container:?}: {problem}")]
    Rootfs {
        /// Container id.
        container: String,
        /// What stood in the way.
        problem: String,
    },
    /// What is known of a process.
    #[error("berth: cannot read about process {pid}: {source}")]
    Process {
        /// Its PID.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The grant that an admission stands for has gone.
    #[error(
        "berth: grant {grant} of container {container:?} is no longer in the ledger: \
         it was released while the container was being made; create it again"
    )]
    GrantGone {
        /// The grant.
        grant: String,
        /// Container id.
        container: String,
    },
    /// A GPU that was granted has left the node.
    #[error("berth: {gpu} is not on this node any more; see berth doctor")]
    NoSuchGpu {
        /// The GPU.
        gpu: String,
    },
    /// A profile that was granted is none of the GPU's any more: its driver was replaced.
    #[error("berth: {gpu} has no profile {name} any more; see berth topo")]
    NoSuchProfile {
        /// The profile.
        name: String,
        /// The GPU.
        gpu: String,
    },
    /// Somebody else made a MIG instance where one was about to be made.
    #[error(
        "berth: another than Berth has just made a MIG instance where {name} was to be, at slice {start} of {gpu}; create the container again"
    )]
    PlaceTaken {
        /// The profile.
        name: String,
        /// The first slice.
        start: u32,
        /// The GPU.
        gpu: String,
    },
    /// Whether a request fits depends on what no driver says yet.
    #[error(
        "berth: it cannot be told what fits beside instances on GPUs that are not in MIG mode yet: the driver says what a GPU can be cut into \
         once it is; switch one on, or plan less at once"
    )]
    Untold,
    /// Specifications of devices.
    #[error("berth: {0}")]
    Cdi(Box<CdiError>),
    /// A driver, and nothing that it drives.
    #[error(
        "berth: the driver shows no GPU, and no MIG device of one in MIG mode, so there is nothing to specify; see berth doctor"
    )]
    NothingToSpecify,
    /// A specification that cannot be put in its place.
    #[error("berth: cannot write the specification {path}: {source}", path = path.display())]
    Specification {
        /// Where it was to be.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A repair after which something that lives would have no record.
    #[error(
        "berth: the ledger {path} is not repaired: what these have could be given a second time: {what}; \
         end them first and try again, or accept that with `berth ledger repair --force`",
        path = path.display()
    )]
    RepairLoses {
        /// The ledger.
        path: PathBuf,
        /// What lives.
        what: String,
    },
    /// The kernel's source of randomness.
    #[error("berth: cannot read random bits: {0}")]
    Random(io::Error),
}

impl From<CdiError> for Fault {
    fn from(error: CdiError) -> Self {
        Self::Cdi(Box::new(error))
    }
}

/// Why a container was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The request cannot be met here; an expected answer.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Something is broken.
    #[error(transparent)]
    Broken(#[from] Fault),
}

macro_rules! broken {
    ($($error:ty),+) => {$(
        impl From<$error> for Denied {
            fn from(error: $error) -> Self {
                Self::Broken(error.into())
            }
        }
    )+};
}
broken!(DeviceError, LedgerError, BundleError);

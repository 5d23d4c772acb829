//! What the node's operator allows. Data only; read from the configuration file by `engine`, where its keys are documented.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::ceiling::check_ceiling;
use crate::extra::Extra;
use crate::ids::Mib;
use crate::mig::Mix;

/// `policy.annotation-requests`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnnotationRequests {
    /// Outside CRI always; in CRI pods of `namespaces`, while no other allocator owns the GPUs.
    #[default]
    Auto,
    /// From everybody.
    Allow,
    /// From nobody.
    Deny,
}

/// `policy.env-requests`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnvRequests {
    /// `NVIDIA_VISIBLE_DEVICES` alone asks for nothing.
    #[default]
    Off,
    /// It asks outside CRI; in CRI pods it is ignored.
    NonCri,
}

/// Who may use a feature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audience {
    /// Nobody.
    Off,
    /// Containers of ctr, nerdctl or Docker.
    #[default]
    NonCri,
    /// Everybody whose requests are allowed at all.
    All,
}

impl Audience {
    /// As the configuration has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NonCri => "non-cri",
            Self::All => "all",
        }
    }
}

/// `[policy.ceilings."<namespace or glob>"]`: the most that a namespace may hold at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Ceiling {
    /// Whole GPUs.
    pub gpus: Option<u32>,
    /// Device memory of all that it holds, in MiB.
    pub memory: Option<Mib>,
}

/// `[policy]`, and `node.gpus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Policy {
    /// Whether annotations may ask.
    pub annotation_requests: AnnotationRequests,
    /// Kubernetes namespaces (names, or globs with `*` and `?`) whose pods may ask under `auto`.
    pub namespaces: Vec<String>,
    /// Whether `NVIDIA_VISIBLE_DEVICES` may ask.
    pub env_requests: EnvRequests,
    /// Who may name exact devices.
    pub devices: Audience,
    /// Who may have CPUs of `node.exclusive-cpus` for themselves.
    pub exclusive_cpus: Audience,
    /// Who may have GPUDirect Storage.
    pub gds: Audience,
    /// Who may have the network adapters with RDMA.
    pub rdma: Audience,
    /// Who may have GDRCopy.
    pub gdrcopy: Audience,
    /// Who may have the channels of IMEX.
    pub imex: Audience,
    /// Who may have the NVSwitches.
    pub nvswitch: Audience,
    /// Whether a privileged container may have a request; it is then recorded as unconfined.
    pub privileged: bool,
    /// Whether hooks of a CDI specification that Berth resolves itself are kept, NVIDIA's own excepted (Berth does their work).
    pub cdi_hooks: bool,
    /// Whose requests may switch an idle GPU into MIG mode, where none in MIG mode has room.
    pub mig_mode_switch: Audience,
    /// How often each MIG profile is expected to be asked for, which decides what room is worth keeping; empty: all alike.
    pub mig_mix: Mix,
    /// Ceilings by namespace; the containerd namespace outside CRI.
    pub ceilings: BTreeMap<String, Ceiling>,
    /// `node.gpus`: UUIDs or PCI addresses of the GPUs that Berth may hand out; empty for all.
    #[serde(skip)]
    pub gpus: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            annotation_requests: AnnotationRequests::default(),
            namespaces: Vec::new(),
            env_requests: EnvRequests::default(),
            devices: Audience::default(),
            exclusive_cpus: Audience::Off,
            // Each reaches past the container's own GPUs: to storage, to other nodes, to what all GPUs share.
            gds: Audience::Off,
            rdma: Audience::Off,
            gdrcopy: Audience::Off,
            imex: Audience::Off,
            nvswitch: Audience::Off,
            privileged: false,
            cdi_hooks: false,
            // A GPU in MIG mode is lost to those who need it whole, and only the operator can say whether that is wanted.
            mig_mode_switch: Audience::Off,
            mig_mix: Mix::default(),
            ceilings: BTreeMap::new(),
            gpus: Vec::new(),
        }
    }
}

impl Policy {
    /// Who may have this extra; the key is called as it is.
    pub fn audience_of(&self, extra: Extra) -> Audience {
        match extra {
            Extra::Gds => self.gds,
            Extra::Rdma => self.rdma,
            Extra::Gdrcopy => self.gdrcopy,
            Extra::Imex => self.imex,
            Extra::Nvswitch => self.nvswitch,
        }
    }
}

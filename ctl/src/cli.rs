//! The command line. Decides names, help and what is required; does nothing.

use std::path::PathBuf;

use clap::{Args, ColorChoice, Parser, Subcommand, ValueEnum};
use engine::{GpuUuid, GrantId};

/// See what Berth has given to whom on this node, and why.
///
/// Berth runs below Kubernetes and containerd, where containers are launched. This command reads its ledger and the node. Only `reconcile`
/// and `ledger repair` change what is held or recorded; `cdi generate --output` and `topo --svg` write the file that you name.
#[derive(Debug, Parser)]
#[command(name = "berth", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Answer in JSON. Its fields are stable: they are only ever added.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List grants: who holds which GPU.
    Ps,
    /// Tell what a container asked for, what it got, and why not something else.
    Explain {
        /// Container id (or its beginning, six characters at least), the owner as `ps` shows it, or a grant's id.
        container: String,
    },
    /// Show the GPUs, how close they are to each other, and who sits where.
    Topo(Topo),
    /// Tell what a request would get now, and why; nothing is changed. Exits with 0 (it fits), 1 (it is refused) or 2 (it cannot be told).
    Plan(Box<PlanArgs>),
    /// Check everything that Berth needs on this node. Exits with 0 (all well), 1 (warnings) or 2 (failures).
    Doctor,
    /// Compare the ledger with what lives, and give back what the dead still hold.
    Reconcile {
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// The configuration.
    Config {
        /// What of it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// The record of who holds what.
    Ledger {
        /// What of it.
        #[command(subcommand)]
        command: LedgerCommand,
    },
    /// Devices of the Container Device Interface.
    Cdi {
        /// What of them.
        #[command(subcommand)]
        command: CdiCommand,
    },
    /// Print a script that completes this command in a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Look at the node and remember what is there. The shim runs this.
    #[command(hide = true)]
    Observe,
    /// Prepare the driver's files for containers. The shim runs this.
    #[command(hide = true)]
    PrepareDriver {
        /// Which parts of the driver, as `berth.dev/driver-capabilities` names them.
        #[arg(long)]
        capabilities: String,
    },
    /// Make the MIG instances of a grant. The shim runs this, with the GPU's lock as its standard input.
    #[command(hide = true)]
    MakeInstances {
        /// The grant's id.
        #[arg(long)]
        grant: GrantId,
        /// The GPU's UUID.
        #[arg(long)]
        gpu: GpuUuid,
    },
    /// Switch a GPU that nobody uses into MIG mode. The shim runs this, with the GPU's lock as its standard input.
    #[command(hide = true)]
    SwitchMode {
        /// The GPU's UUID.
        #[arg(long)]
        gpu: GpuUuid,
    },
    /// Destroy what a grant that is being given back still has. The shim runs this, with the grant's mark as its standard input.
    #[command(hide = true)]
    GiveBack {
        /// The grant's id.
        #[arg(long)]
        grant: GrantId,
    },
}

/// How to show the node; as a matrix of GPUs by default.
#[derive(Debug, Args)]
pub struct Topo {
    /// As a tree: NUMA nodes, CPUs, PCIe, GPUs, MIG slices, holders.
    #[arg(long, conflicts_with_all = ["map", "svg"])]
    pub tree: bool,
    /// As a map of cores and slices, each with the letter and colour of who holds it.
    #[arg(long, conflicts_with = "svg")]
    pub map: bool,
    /// Draw the map into this file, as SVG; `-` for standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub svg: Option<PathBuf>,
    /// Whether the map is coloured; by default on a terminal, unless NO_COLOR is set.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
}

/// A request: in flags, or as a manifest of Kubernetes.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// So many whole GPUs: `berth.dev/gpus`.
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub gpus: Option<String>,
    /// MIG instances, such as `1g.10gb` or `2x3g.40gb`: `berth.dev/mig`.
    #[arg(long, value_name = "PROFILE", conflicts_with = "file")]
    pub mig: Option<String>,
    /// Exactly these GPUs, or these MIG devices, by UUID, between commas: `berth.dev/devices`.
    #[arg(long, value_name = "UUIDS", conflicts_with = "file")]
    pub devices: Option<String>,
    /// `auto`, `off` or a number: `berth.dev/cpus`.
    #[arg(long, value_name = "CPUS", conflicts_with = "file")]
    pub cpus: Option<String>,
    /// `prefer`, `strict` or `off`: `berth.dev/numa`.
    #[arg(long, value_name = "HOW", conflicts_with = "file")]
    pub numa: Option<String>,
    /// Parts of the driver, between commas: `berth.dev/driver-capabilities`.
    #[arg(long, value_name = "LIST", conflicts_with = "file")]
    pub driver_capabilities: Option<String>,
    /// Devices beside the GPUs, between commas: `berth.dev/extras`.
    #[arg(long, value_name = "LIST", conflicts_with = "file")]
    pub extras: Option<String>,
    /// Any annotation, by its whole key (`berth.dev/isolation=any`); may be given several times.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "file")]
    pub annotation: Vec<String>,
    /// A variable of the container's environment, which may bring requirements (`NVIDIA_REQUIRE_CUDA`); may be given several times.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "file")]
    pub env: Vec<String>,
    /// As a privileged container.
    #[arg(long, conflicts_with = "file")]
    pub privileged: bool,
    /// As a pod of this Kubernetes namespace, so that what the policy says of pods counts; without it, as a container of ctr or nerdctl.
    #[arg(long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// containerd namespace of a container without a pod.
    #[arg(long, value_name = "NAMESPACE", default_value = "default", conflicts_with_all = ["file", "namespace"])]
    pub containerd_namespace: String,
    /// A manifest (`-` for standard input): pods, or what makes pods from a template. Each container is planned in the order of its start.
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Plan the same so many times, one after the other, and tell how many fit.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub count: u32,
}

/// What of CDI.
#[derive(Debug, Subcommand)]
pub enum CdiCommand {
    /// List the devices that specifications of this node describe, as an admission sees them.
    List {
        /// A further directory of specifications, which beats those before it.
        #[arg(long, value_name = "DIRECTORY")]
        spec_dir: Vec<PathBuf>,
    },
    /// Write a specification of this node's GPUs and MIG devices, for engines without Berth's shim.
    Generate(Generate),
    /// Tell everything that is wrong with specifications. Exits with 1 if there are errors.
    Validate {
        /// Files; without any, all that admissions read.
        files: Vec<PathBuf>,
    },
}

/// What is written, and where.
#[derive(Debug, Args)]
pub struct Generate {
    /// The file, as in /etc/cdi/nvidia.yaml; without one, it is printed.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The form; without one, as the file's name says, else YAML.
    #[arg(long)]
    pub format: Option<Format>,
    /// By what devices are named.
    #[arg(long, value_delimiter = ',', default_value = "index,uuid")]
    pub device_name: Vec<Naming>,
    /// Who the devices are said to be of.
    #[arg(long, default_value = "nvidia.com")]
    pub vendor: String,
    /// What sort of device they are said to be.
    #[arg(long, default_value = "gpu")]
    pub class: String,
}

/// A form of specifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

/// By what a device is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Naming {
    /// 0; of a MIG device 0:1.
    Index,
    /// GPU-…, MIG-….
    Uuid,
}

/// A shell that can be taught to complete commands.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shell {
    /// GNU Bash, with bash-completion.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}

/// What of the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the configuration that is in force, with every default.
    Show,
}

/// What of the ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Print every record.
    Show,
    /// Check that the ledger can be read and that its records make sense together.
    Verify,
    /// Make a ledger that cannot be read one that can: of its records and of what lives. The damaged one is kept beside it.
    Repair {
        /// Only say what is wrong and what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Also where a running container would lose its record, so that its GPUs could be given a second time.
        #[arg(long)]
        force: bool,
    },
}

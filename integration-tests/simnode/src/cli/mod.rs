//! The commands that take more than a line: `inject`, `set`, `show`.

pub mod mig;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use simnode::code::Code;
use simnode::fault::{Action, Fault};
use simnode::state::{self, MigMode, Process, Use};
use simnode::{Change, Node, State};

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Latency {
    None,
    Real,
}

impl From<Latency> for state::Latency {
    fn from(latency: Latency) -> Self {
        match latency {
            Latency::None => Self::None,
            Latency::Real => Self::Real,
        }
    }
}

/// What is to go wrong, and when.
#[derive(Debug, Args)]
pub struct Inject {
    /// The node's folder.
    dir: PathBuf,
    /// The function as in nvml.h, or `*`.
    #[arg(long, default_value = "*")]
    function: String,
    /// Only calls for this GPU: index, UUID or PCI address.
    #[arg(long)]
    gpu: Option<String>,
    /// At which call from now on, over all processes.
    #[arg(long, default_value_t = 1)]
    nth: u64,
    /// And at every later one.
    #[arg(long)]
    onwards: bool,
    /// Let the driver do it first: an error, or a death, that comes after the deed.
    #[arg(long)]
    after: bool,
    #[command(flatten)]
    what: What,
}

/// Just one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Answer with this code, such as GPU_IS_LOST.
    #[arg(long)]
    error: Option<Code>,
    /// Take so long first.
    #[arg(long)]
    delay_ms: Option<u64>,
    /// Kill the calling process.
    #[arg(long)]
    die: bool,
    /// Forget all that was injected.
    #[arg(long)]
    clear: bool,
}

impl What {
    fn action(&self, after: bool) -> Option<Action> {
        Some(match (self.error, self.delay_ms, after) {
            (Some(code), _, false) => Action::Error(code),
            (Some(code), _, true) => Action::ErrorAfter(code),
            (_, Some(milliseconds), _) => Action::Delay(milliseconds),
            _ if self.clear => return None,
            (_, _, false) => Action::Die,
            (_, _, true) => Action::DieAfter,
        })
    }
}

impl Inject {
    pub fn run(self) -> Result<()> {
        let node = Node::open(&self.dir)?;
        let Some(action) = self.what.action(self.after) else {
            return Ok(node.change(Change::ClearFaults)?);
        };
        let state = node.state()?;
        let gpu = self.gpu.map(|gpu| state.find(&gpu)).transpose()?;
        let (nth, onwards) = (self.nth, self.onwards);
        let fault = Fault { function: self.function, gpu, nth, onwards, action, seen: 0 };
        Ok(node.change(Change::Inject(fault))?)
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Module {
    Load,
    Unload,
    Reload,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Kind {
    Compute,
    Graphics,
    Mps,
}

/// What can happen to a node. A GPU is an index, a UUID or a PCI address.
#[derive(Debug, Subcommand)]
pub enum Set {
    /// MIG mode of a GPU, by force: `simnode mig` does what the driver would.
    Mig {
        gpu: String,
        mode: Switch,
        /// Only from the next load of the driver on.
        #[arg(long)]
        pending: bool,
    },
    /// A process begins to use a GPU.
    Begin {
        gpu: String,
        pid: u32,
        /// MiB; without it the driver cannot say.
        #[arg(long)]
        memory: Option<u64>,
        #[arg(long, value_enum, default_value_t = Kind::Compute)]
        kind: Kind,
        /// GPU instance, under MIG.
        #[arg(long)]
        gpu_instance: Option<u32>,
        /// Compute instance, under MIG.
        #[arg(long)]
        compute_instance: Option<u32>,
    },
    /// A process stops using a GPU.
    End { gpu: String, pid: u32 },
    /// Load of a GPU, in per cent: of its SMs, and of its memory.
    Utilisation { gpu: String, sm: u32, memory: u32 },
    /// A GPU falls off the bus (on), or comes back (off).
    Lost { gpu: String, lost: Switch },
    /// Persistence mode of all GPUs.
    Persistence { mode: Switch },
    /// The kernel's modules.
    Driver { module: Module },
    /// Start the machine anew.
    Reboot,
}

impl Set {
    pub fn run(self, dir: &Path) -> Result<()> {
        let node = Node::open(dir)?;
        let on = |switch| matches!(switch, Switch::On);
        let change = match self {
            Self::Mig { gpu, mode, pending } => {
                let state = node.state()?;
                let before = state.gpus[state.find(&gpu)?].mig.is_some_and(|mode| mode.current);
                let current = if pending { before } else { on(mode) };
                Change::Mig { gpu, mode: MigMode { current, pending: on(mode) } }
            }
            Self::Begin { gpu, pid, memory, kind, gpu_instance, compute_instance } => {
                let r#use = match kind {
                    Kind::Compute => Use::Compute,
                    Kind::Graphics => Use::Graphics,
                    Kind::Mps => Use::Mps,
                };
                let memory = memory.map(|mib| mib << 20);
                let process = Process { pid, r#use, memory, gpu_instance, compute_instance };
                Change::Begin { gpu, process }
            }
            Self::End { gpu, pid } => Change::End { gpu, pid },
            Self::Utilisation { gpu, sm, memory } => Change::Utilisation { gpu, sm, memory },
            Self::Lost { gpu, lost } => Change::Lost { gpu, lost: on(lost) },
            Self::Persistence { mode } => Change::Persistence(on(mode)),
            Self::Driver { module: Module::Unload } => Change::Unload,
            Self::Driver { module: Module::Load | Module::Reload } => Change::Load,
            Self::Reboot => Change::Reboot,
        };
        Ok(node.change(change)?)
    }
}

pub fn show(state: &State, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(state)?);
        return Ok(());
    }
    let driver = state.driver.as_ref().map_or("not loaded", |driver| driver.version.as_str());
    println!("profile {}, driver {driver}, layout {}", state.profile, state.layout);
    for (index, gpu) in state.gpus.iter().enumerate() {
        let node = gpu.node.map_or("-".to_owned(), |node| node.to_string());
        let mig = match gpu.mig {
            Some(mode) if mode.current => "on",
            Some(_) => "off",
            None => "no",
        };
        println!(
            "{index} {} {} {}, {} MiB, NUMA node {node}, MIG {mig}, {} processes{}",
            gpu.route.device,
            gpu.uuid,
            gpu.model,
            gpu.model().memory,
            gpu.processes.len(),
            if gpu.lost { ", lost" } else { "" },
        );
        mig::list(gpu);
    }
    for fault in &state.faults {
        println!("fault: {fault:?}");
    }
    Ok(())
}

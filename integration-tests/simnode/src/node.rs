//! A simulated node on disk: made, found, changed, removed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{At, NodeError};
use crate::fault::Fault;
use crate::find;
use crate::layout::Layout;
use crate::profile::Profile;
use crate::state::{Gpu, Latency, MigMode, Process, State};
use crate::store::{MARK, Store};
use crate::tree::{self, Parts};

/// How a node is to be made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the driver's files lie.
    pub layout: Layout,
    /// Whether calls of the library take their time.
    pub latency: Latency,
    /// Whether a device node is made for each MIG instance.
    pub capability_nodes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { layout: Layout::Debian, latency: Latency::None, capability_nodes: false }
    }
}

/// A node on disk. It stays when this value is dropped: only [`Node::down`] removes it.
#[derive(Debug, Clone)]
pub struct Node {
    dir: PathBuf,
    store: Store,
}

/// What can happen to a node. GPUs are named by index, UUID or PCI address.
#[derive(Debug, Clone)]
pub enum Change {
    /// MIG mode of a GPU, now and after the next reset, by force: without the mode there are no instances either.
    /// [`Node::set_mig_mode`] does what the driver would.
    Mig {
        /// Which GPU.
        gpu: String,
        /// The mode.
        mode: MigMode,
    },
    /// A process begins to use a GPU.
    Begin {
        /// Which GPU.
        gpu: String,
        /// The process.
        process: Process,
    },
    /// A process stops using a GPU.
    End {
        /// Which GPU.
        gpu: String,
        /// The process.
        pid: u32,
    },
    /// Load of the SMs and the memory, in per cent.
    Utilisation {
        /// Which GPU.
        gpu: String,
        /// Of the SMs.
        sm: u32,
        /// Of the memory.
        memory: u32,
    },
    /// A GPU falls off the bus, or comes back.
    Lost {
        /// Which GPU.
        gpu: String,
        /// Whether it is gone.
        lost: bool,
    },
    /// Persistence mode of all GPUs.
    Persistence(bool),
    /// The driver is unloaded: its files stay, what the kernel shows of it goes.
    Unload,
    /// The driver is loaded, anew if it was: another `/sys/module/nvidia`.
    Load,
    /// The machine is started anew: another boot id, nothing runs.
    Reboot,
    /// Something is to go wrong.
    Inject(Fault),
    /// Nothing is to go wrong any more.
    ClearFaults,
}

impl Node {
    /// Makes a node in `dir`, which must be empty or not there. Device nodes take root.
    ///
    /// # Errors
    /// When the folder is occupied, the library is not built, or a file cannot be made: then nothing is left.
    pub fn up(dir: &Path, profile: &Profile, options: Options) -> Result<Self, NodeError> {
        fs::create_dir_all(dir).at("create", dir)?;
        let dir = dir.canonicalize().at("resolve", dir)?;
        if fs::read_dir(&dir).at("list", &dir)?.next().is_some() {
            return Err(NodeError::Occupied { dir });
        }
        let parts = match profile.driver {
            Some(_) => Some(Parts { nvml: find::nvml_library()?, nvidia_smi: find::nvidia_smi()? }),
            None => None,
        };
        let state = State {
            profile: profile.name.to_owned(),
            layout: options.layout,
            latency: options.latency,
            driver: profile.driver.clone(),
            machine: profile.machine.clone(),
            gpus: profile.gpus(),
            switches: profile.switches().to_vec(),
            faults: Vec::new(),
            instances_made: 0,
            capability_nodes: options.capability_nodes,
        };
        let node = Self { store: Store::of(&dir), dir };
        let made = tree::build(&node.root(), &state, parts.as_ref());
        match made.and_then(|()| node.store.create(&state)) {
            Ok(()) => Ok(node),
            Err(error) => {
                // The first error is the one to tell; what is left is in a folder that was empty.
                let _ = fs::remove_dir_all(node.root());
                let _ = fs::remove_dir_all(node.dir.join(MARK));
                Err(error)
            }
        }
    }

    /// The node in `dir`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(dir: &Path) -> Result<Self, NodeError> {
        let store = Store::of(&dir.canonicalize().at("resolve", dir)?);
        store.read()?;
        Ok(Self { dir: dir.canonicalize().at("resolve", dir)?, store })
    }

    /// The folder that it was made in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The root of its file system.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The driver library on this machine, outside any chroot. A node without driver has none there.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn nvml_path(&self) -> Result<PathBuf, NodeError> {
        let state = self.state()?;
        Ok(self.root().join(tree::nvml_file(&state)))
    }

    /// Lines for Berth's configuration file.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn configuration(&self) -> Result<String, NodeError> {
        let (root, nvml) = (self.root(), self.nvml_path()?);
        let driver = match self.state()?.layout {
            Layout::DriverContainer => "driver-root = \"/run/nvidia/driver\"\n",
            Layout::Debian | Layout::DebianAlternatives | Layout::Redhat => "",
        };
        Ok(format!("[node]\nroot = {root:?}\nnvml = {nvml:?}\n{driver}"))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// What its GPUs are and do.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn state(&self) -> Result<State, NodeError> {
        self.store.read()
    }

    /// Lets something happen to it.
    ///
    /// # Errors
    /// When it cannot happen on this node, or a file cannot be changed.
    pub fn change(&self, change: Change) -> Result<(), NodeError> {
        let root = self.root();
        self.store.change(|state| apply(&root, state, change))
    }

    /// Removes it, and its folder when nothing else is there.
    ///
    /// # Errors
    /// When something is mounted below it, or a file cannot be removed.
    pub fn down(self) -> Result<(), NodeError> {
        let mounts = Path::new("/proc/self/mountinfo");
        let table = fs::read_to_string(mounts).at("read", mounts)?;
        let below = |mount: &&str| Path::new(mount).starts_with(&self.dir);
        if let Some(mount) = table.lines().filter_map(|line| line.split(' ').nth(4)).find(below) {
            return Err(NodeError::Mounted { mount: mount.to_owned(), dir: self.dir });
        }
        let root = self.root();
        fs::remove_dir_all(&root).at("remove", &root)?;
        // Last: until then the folder is known as a node, and `down` can be called again.
        let mark = self.dir.join(MARK);
        fs::remove_dir_all(&mark).at("remove", &mark)?;
        // Others may keep something beside it.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }
}

fn apply(root: &Path, state: &mut State, change: Change) -> Result<(), NodeError> {
    match change {
        Change::Mig { gpu, mode } => {
            let gpu = state.gpu_mut(&gpu)?;
            if gpu.mig.is_none() {
                let what = format!("MIG mode of {}", gpu.uuid);
                return Err(NodeError::Impossible { what, why: "this kind of GPU has none" });
            }
            gpu.mig = Some(mode);
            if !mode.current {
                gpu.instances.clear();
            }
            tree::instances(root, state)?;
        }
        Change::Begin { gpu, process } => state.gpu_mut(&gpu)?.processes.push(process),
        Change::End { gpu, pid } => {
            state.gpu_mut(&gpu)?.processes.retain(|process| process.pid != pid);
        }
        Change::Utilisation { gpu, sm, memory } => {
            state.gpu_mut(&gpu)?.utilisation = (sm, memory);
        }
        Change::Lost { gpu, lost } => state.gpu_mut(&gpu)?.lost = lost,
        Change::Persistence(on) => state.gpus.iter_mut().for_each(|gpu| gpu.persistence = on),
        Change::Unload => {
            state.driver = None;
            state.gpus.iter_mut().for_each(Gpu::attach);
            tree::unload(root, state)?;
        }
        Change::Load => load(root, state)?,
        Change::Reboot => {
            tree::new_boot_id(root)?;
            if state.driver.is_some() {
                load(root, state)?;
            }
        }
        Change::Inject(fault) => state.faults.push(fault),
        Change::ClearFaults => state.faults.clear(),
    }
    Ok(())
}

fn load(root: &Path, state: &mut State) -> Result<(), NodeError> {
    let driver = Profile::named(&state.profile)?.driver;
    let why = "its profile has none";
    let driver = driver.ok_or_else(|| NodeError::Impossible { what: "driver".to_owned(), why })?;
    state.driver = Some(driver);
    for gpu in &mut state.gpus {
        gpu.processes.clear();
        gpu.utilisation = (0, 0);
        gpu.lost = false;
        gpu.attach();
    }
    tree::load(root, state)
}

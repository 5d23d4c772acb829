//! `NVIDIA_VISIBLE_DEVICES` and its relatives: the older ways to name GPUs, read into data and resolved to GPUs and MIG instances.
//!
//! Decides what the names mean (NVIDIA's toolkit: `internal/config/image`). Must not know whether they are to be believed: that is `trust`'s.

use crate::ids::GpuUuid;
use crate::inventory::{Gpu, Inventory};
use crate::mig::{Devices, Slot};
use crate::place::is_allowed;
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::request::Want;

/// The variable's value, and the folder of the mounts, where the device plugin passes devices as `volume-mounts`; `/run` is the same place.
const MOUNTS: [&str; 2] = ["/var/run/nvidia-container-devices", "/run/nvidia-container-devices"];

/// Vendor and class of GPUs in the Container Device Interface.
const CDI_GPU: &str = "nvidia.com/gpu";

/// What the variable says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visible {
    /// Unset, empty or `void`: nothing is meant.
    Nothing,
    /// `none`: the driver's files, and no GPU.
    None,
    /// `all`.
    All,
    /// These.
    List(Vec<Device>),
}

/// One device as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// The driver's index.
    Index(u32),
    /// A GPU's UUID.
    Uuid(GpuUuid),
    /// A MIG device: `MIG-…`, or `0:1`.
    Mig(String),
    /// A CDI device: `vendor/class=name`.
    Cdi(String),
    /// The device plugin's folder: mounts below it name the devices, see [`Visible::of_mounts`]. Names none by itself.
    PluginMounts,
    /// None of these.
    Unknown(String),
}

impl Visible {
    /// Reads the variable's value; unset is as good as empty.
    pub fn parse(value: &str) -> Self {
        let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
        Self::of_names(&names.collect::<Vec<_>>())
    }

    /// Reads container paths of mounts: those below `/var/run/nvidia-container-devices/` name a device each, `cdi/<vendor>/<class>/<name>` a CDI device.
    pub fn of_mounts<'a>(destinations: impl IntoIterator<Item = &'a str>) -> Self {
        let below = |path: &'a str| {
            MOUNTS.iter().find_map(|folder| path.strip_prefix(folder)?.strip_prefix('/'))
        };
        let name = |rest: &str| match rest.trim_matches('/').split('/').collect::<Vec<_>>()[..] {
            ["cdi", vendor, class, name] => format!("{vendor}/{class}={name}"),
            _ => rest.trim_matches('/').to_owned(),
        };
        let names: Vec<String> = destinations.into_iter().filter_map(below).map(name).collect();
        Self::of_names(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Reads a CDI device's name. `None` where it is no GPU of NVIDIA's own class (a DRA claim, another vendor): the specification says then.
    pub fn of_cdi(name: &str) -> Option<Self> {
        let device = name.strip_prefix(CDI_GPU)?.strip_prefix('=')?;
        match Self::of_names(&[device]) {
            Self::List(names) if !names.iter().all(Device::is_gpu_or_mig) => None,
            Self::Nothing | Self::None => None,
            meant => Some(meant),
        }
    }

    /// The MIG devices that are named.
    pub fn mig(&self) -> impl Iterator<Item = &str> {
        let devices = if let Self::List(devices) = self { &devices[..] } else { &[] };
        devices.iter().filter_map(|device| match device {
            Device::Mig(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// `void` anywhere voids the list; else the first word of `all` and `none` decides, as in NVIDIA's toolkit.
    fn of_names(names: &[&str]) -> Self {
        if names.is_empty() || names.contains(&"void") {
            return Self::Nothing;
        }
        match names.iter().find(|name| ["all", "none"].contains(name)) {
            Some(&"all") => Self::All,
            Some(_) => Self::None,
            None => Self::List(names.iter().map(|name| Device::parse(name)).collect()),
        }
    }

    /// The GPUs and MIG instances that are meant, in the driver's order, without repetition. What the node's policy thinks of them is not asked.
    ///
    /// # Errors
    /// [`Refusal::EnvDevice`] for a device that is neither on this node; `value` is what the message shows.
    pub fn resolve(&self, value: &str, inventory: &Inventory) -> Result<Devices, Refusal> {
        match self {
            Self::Nothing | Self::None => Ok(Devices::default()),
            Self::All => {
                let all = inventory.gpus.iter().map(|gpu| Found::Gpu(gpu.uuid.clone())).collect();
                Ok(in_order(inventory, all))
            }
            Self::List(devices) => resolve(devices, inventory, value),
        }
    }

    /// What the variable asks for, where it may ask: `all` means all that Berth may hand out as whole GPUs. `None` when no GPU is meant.
    ///
    /// # Errors
    /// As [`Visible::resolve`], and when `all` are none.
    pub fn asks(
        &self,
        value: &str,
        inventory: &Inventory,
        policy: &Policy,
    ) -> Result<Option<Want>, Refusal> {
        let Devices { mut gpus, slots } = self.resolve(value, inventory)?;
        if let Some(slot) = slots.first() {
            let device = slot.name.to_string();
            let why = "a MIG instance is asked for with berth.dev/mig, which makes it for its container, or with berth.dev/devices, which takes one that stands";
            return Err(refused(value, &device, why));
        }
        if *self == Self::All {
            gpus.retain(|uuid| {
                inventory.gpu(uuid).is_some_and(|gpu| !gpu.mig && is_allowed(gpu, policy))
            });
            if gpus.is_empty() {
                let why = "this node has no GPU that Berth may hand out as a whole";
                return Err(refused(value, "all", why));
            }
        }
        Ok((!gpus.is_empty()).then_some(Want::Exactly(gpus)))
    }
}

/// What one name means.
enum Found {
    Gpu(GpuUuid),
    Slot(Slot),
}

/// The GPUs and MIG instances that these devices name, in the driver's order, without repetition.
///
/// # Errors
/// [`Refusal::EnvDevice`] for a device that is neither on this node; `value` is what the message shows.
pub fn resolve(devices: &[Device], inventory: &Inventory, value: &str) -> Result<Devices, Refusal> {
    let found = devices.iter().map(|device| device.resolve(value, inventory));
    let found: Vec<Vec<Found>> = found.collect::<Result<_, _>>()?;
    Ok(in_order(inventory, found.into_iter().flatten().collect()))
}

fn in_order(inventory: &Inventory, found: Vec<Found>) -> Devices {
    let mut devices = Devices::default();
    for one in found {
        match one {
            Found::Gpu(gpu) if !devices.gpus.contains(&gpu) => devices.gpus.push(gpu),
            Found::Slot(slot) if !devices.slots.contains(&slot) => devices.slots.push(slot),
            _ => {}
        }
    }
    let index = |uuid: &GpuUuid| inventory.gpu(uuid).map(|gpu| gpu.index);
    devices.gpus.sort_by_key(index);
    devices.slots.sort_by_key(|slot| (index(&slot.gpu), slot.start));
    devices
}

impl Device {
    fn parse(name: &str) -> Self {
        let digits = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| text.parse().ok()).flatten()
        };
        if let Some(index) = digits(name) {
            return Self::Index(index);
        }
        if let Ok(uuid) = name.parse() {
            return Self::Uuid(uuid);
        }
        let pair = name.split_once(':').map(|(gpu, mig)| (digits(gpu), digits(mig)));
        if name.starts_with("MIG-") || matches!(pair, Some((Some(_), Some(_)))) {
            return Self::Mig(name.to_owned());
        }
        if MOUNTS.contains(&name) {
            return Self::PluginMounts;
        }
        match name.split_once('=') {
            Some((kind, device)) if kind.contains('/') && !device.is_empty() => {
                Self::Cdi(name.to_owned())
            }
            _ => Self::Unknown(name.to_owned()),
        }
    }

    fn is_gpu_or_mig(&self) -> bool {
        matches!(self, Self::Index(_) | Self::Uuid(_) | Self::Mig(_))
    }

    fn resolve(&self, value: &str, inventory: &Inventory) -> Result<Vec<Found>, Refusal> {
        let absent = "no such GPU on this node";
        match self {
            Self::Index(index) => match inventory.gpus.iter().find(|gpu| gpu.index == *index) {
                Some(gpu) => Ok(vec![Found::Gpu(gpu.uuid.clone())]),
                None => Err(refused(value, &index.to_string(), absent)),
            },
            Self::Uuid(uuid) => match inventory.gpu(uuid) {
                Some(gpu) => Ok(vec![Found::Gpu(gpu.uuid.clone())]),
                None => Err(refused(value, uuid.as_str(), absent)),
            },
            Self::Cdi(name) => match Visible::of_cdi(name) {
                Some(meant) => {
                    let Devices { gpus, slots } = meant.resolve(value, inventory)?;
                    let gpus = gpus.into_iter().map(Found::Gpu);
                    Ok(gpus.chain(slots.into_iter().map(Found::Slot)).collect())
                }
                None => Err(refused(value, name, "this CDI device is not one of nvidia.com/gpu")),
            },
            Self::PluginMounts => Ok(Vec::new()),
            Self::Mig(name) => match mig(name, inventory) {
                Some(slot) => Ok(vec![Found::Slot(slot)]),
                None => Err(refused(value, name, "no such MIG device on this node")),
            },
            Self::Unknown(name) => Err(refused(value, name, "not an index, UUID or CDI name")),
        }
    }
}

/// The instance that `MIG-…` or `0:1` names. Indices of MIG devices follow the driver's ids, as in `nvidia-smi -L`; an instance without
/// a compute instance is none.
fn mig(name: &str, inventory: &Inventory) -> Option<Slot> {
    if let Ok(uuid) = name.parse() {
        return inventory.mig_device(&uuid);
    }
    let (gpu, device) = name.split_once(':')?;
    let (gpu, device): (u32, usize) = (gpu.parse().ok()?, device.parse().ok()?);
    let gpu: &Gpu = inventory.gpus.iter().find(|one| one.index == gpu)?;
    let mut devices: Vec<_> = gpu
        .instances
        .iter()
        .flat_map(|instance| instance.compute_instances.iter().map(move |one| (instance, one.id)))
        .collect();
    devices.sort_by_key(|(instance, id)| (instance.gpu_instance, *id));
    gpu.slot(devices.get(device)?.0)
}

fn refused(value: &str, device: &str, why: &str) -> Refusal {
    Refusal::EnvDevice { value: value.to_owned(), device: device.to_owned(), why: why.to_owned() }
}

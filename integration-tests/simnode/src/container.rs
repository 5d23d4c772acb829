//! What the driver library can know inside a container, where there is no state file: what `/proc/driver/nvidia` shows, and
//! which device nodes can be opened.
//!
//! As with the real one a GPU is there if its information file is and its node gets past the container's device rule.
//! Nothing drives the node, so an answer of ENXIO means "allowed".

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::code::Code;
use crate::layout::Layout;
use crate::mig::{GpuInstance, record};
use crate::pci::{PciAddress, Route};
use crate::profile::Profile;
use crate::state::{Driver, Gpu, Latency, MigMode, State};

/// The node as the container below `root` (`/`, outside tests) sees it through the driver library at `library`.
///
/// # Errors
/// What `nvmlInit` answers.
pub fn observe(root: &Path, library: &Path) -> Result<State, Code> {
    let folder = root.join("proc/driver/nvidia");
    let version =
        fs::read_to_string(folder.join("version")).map_err(|_| Code::DRIVER_NOT_LOADED)?;
    let driver = driver(&version).ok_or(Code::DRIVER_NOT_LOADED)?;
    match reach(&root.join("dev/nvidiactl")) {
        Reach::Allowed => {}
        Reach::Absent => return Err(Code::DRIVER_NOT_LOADED),
        // What the real one says when the device rule of its cgroup is gone.
        Reach::Denied => return Err(Code::UNKNOWN),
    }
    let listed = fs::read_dir(folder.join("gpus")).into_iter().flatten().flatten();
    let texts =
        listed.filter_map(|entry| fs::read_to_string(entry.path().join("information")).ok());
    let known: Vec<Profile> = Profile::all().collect();
    let mut gpus: Vec<Gpu> = texts.filter_map(|text| gpu(&text, &known)).collect();
    gpus.retain(|gpu| reach(&root.join(format!("dev/nvidia{}", gpu.minor))) == Reach::Allowed);
    gpus.sort_by_key(|gpu| gpu.route.device);
    for (minor, instance) in record::read(library) {
        let own = gpus.iter_mut().find(|gpu| gpu.minor == minor);
        if let Some(gpu) = own.filter(|_| can_use(root, minor, &instance)) {
            hold(gpu, instance);
        }
    }
    // Which machine it is shows by its GPUs; without any it does not matter.
    let has = |profile: &&Profile| {
        profile.gpus().iter().any(|own| Some(&own.uuid) == gpus.first().map(|gpu| &gpu.uuid))
    };
    let profile = known.iter().find(has).unwrap_or(&known[0]);
    Ok(State {
        profile: profile.name.to_owned(),
        layout: Layout::Debian,
        latency: Latency::None,
        driver: Some(driver),
        machine: profile.machine.clone(),
        gpus,
        switches: Vec::new(),
        faults: Vec::new(),
        instances_made: 0,
        capability_nodes: false,
    })
}

/// Whether the container has both capabilities of a MIG device: their files name nodes, and the nodes can be opened.
fn can_use(root: &Path, gpu: u32, instance: &GpuInstance) -> bool {
    let folder = format!("proc/driver/nvidia/capabilities/gpu{gpu}/mig/gi{}", instance.id);
    let files = instance.compute.iter().map(|compute| format!("{folder}/ci{}/access", compute.id));
    files.chain([format!("{folder}/access")]).all(|file| {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        let minor = text.lines().find_map(|line| line.strip_prefix("DeviceFileMinor: "));
        minor.is_some_and(|minor| {
            let node = root.join(format!("dev/nvidia-caps/nvidia-cap{minor}"));
            open(OpenOptions::new().read(true), &node) == Reach::Allowed
        })
    })
}

/// Gives `gpu` an instance with one compute instance, or its compute instance to the one that it has already.
fn hold(gpu: &mut Gpu, instance: GpuInstance) {
    gpu.mig = Some(MigMode { current: true, pending: true });
    match gpu.instances.iter_mut().find(|own| own.id == instance.id) {
        Some(own) => own.compute.extend(instance.compute),
        None => gpu.instances.push(instance),
    }
}

#[derive(PartialEq, Eq)]
enum Reach {
    Allowed,
    Denied,
    Absent,
}

fn reach(node: &Path) -> Reach {
    open(OpenOptions::new().read(true).write(true), node)
}

fn open(options: &mut OpenOptions, node: &Path) -> Reach {
    match options.custom_flags(libc::O_NONBLOCK).open(node) {
        Ok(_) => Reach::Allowed,
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Reach::Allowed,
        Err(error) if error.kind() == ErrorKind::NotFound => Reach::Absent,
        Err(_) => Reach::Denied,
    }
}

/// From the first line of the version file, whose words vary: the first that looks like a version.
fn driver(text: &str) -> Option<Driver> {
    let line = text.lines().next()?;
    let dotted =
        |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    let version = line.split_whitespace().find(dotted)?.to_owned();
    let open = line.contains("Open Kernel Module");
    let driver = Driver { version, cuda: 0, open };
    let cuda = match driver.branch() {
        ..535 => 12_000,
        535..550 => 12_020,
        550..570 => 12_040,
        570..580 => 12_080,
        _ => 13_000,
    };
    Some(Driver { cuda, ..driver })
}

/// A GPU that a profile has is recognised by its UUID; of another one only its model is known.
fn gpu(text: &str, known: &[Profile]) -> Option<Gpu> {
    let field = |key: &str| {
        let value = |line: &str| Some(line.strip_prefix(key)?.trim().to_owned());
        text.lines().find_map(value)
    };
    let uuid = field("GPU UUID:")?;
    let minor: u32 = field("Device Minor:")?.parse().ok()?;
    let device: PciAddress = field("Bus Location:")?.parse().ok()?;
    let mut all = known.iter().flat_map(Profile::gpus);
    if let Some(gpu) = all.find(|gpu| gpu.uuid == uuid) {
        return Some(Gpu { minor, ..gpu });
    }
    let model = field("Model:")?;
    let alike = known.iter().find(|profile| profile.model.name == model)?;
    let route = Route { device, bridges: Vec::new() };
    let pattern = alike.gpus().into_iter().next()?;
    Some(Gpu { uuid, minor, route, node: None, memory_node: None, ..pattern })
}

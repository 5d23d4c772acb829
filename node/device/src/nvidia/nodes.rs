//! Device nodes: which of them a container needs for its GPUs, and the links by which systemd and runc find their rules.
//!
//! Decides numbers, never who gets what. Numbers come from the kernel's list and the GPUs' minors; a node that stands on the host gives its
//! mode and owner, and must be what its name says.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};
use plan::{Capabilities, Gpu};

use super::dri;
use crate::error::{DeviceError, file};
use crate::{Host, keep};

/// A device node as a container gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNode {
    /// `/dev/nvidia0`.
    pub path: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A link that runc before 1.1.7 needs to keep a device rule over systemd's daemon-reload, and that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{link} -> {target} is missing: {why}", link = link.display())]
pub struct LinkProblem {
    /// `/dev/char/195:0` on the host.
    pub link: PathBuf,
    /// Where it should lead.
    pub target: String,
    /// What stood in the way.
    pub why: String,
}

/// `nvidiactl` and `nvidia-modeset` among the driver's minors.
const CONTROL: u32 = 255;
const MODESET: u32 = 254;

/// A MIG device: a compute instance in a GPU instance, as the driver numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MigDevice {
    /// Minor of its GPU.
    pub gpu: u32,
    /// Id of the GPU instance.
    pub gpu_instance: u32,
    /// Id of the compute instance in it.
    pub compute_instance: u32,
}

impl MigDevice {
    /// Where the driver says what lets a process use it, below `/proc/driver/nvidia/capabilities`: a file for each of the two instances.
    pub(crate) fn access(&self) -> [String; 2] {
        let gpu_instance = format!("gpu{}/mig/gi{}", self.gpu, self.gpu_instance);
        let compute_instance = format!("{gpu_instance}/ci{}/access", self.compute_instance);
        [format!("{gpu_instance}/access"), compute_instance]
    }
}

/// Nodes of these GPUs, of these MIG devices on them, and those that every CUDA program opens, in a fixed order. The `nvidia-uvm` ones come where its module
/// is loaded. With capabilities that draw, so do `nvidia-modeset` and what the GPUs have in `/dev/dri`; that would be all of a GPU, so that
/// MIG devices have none of it.
///
/// # Errors
/// When the driver has no major, a MIG device is not there, or a node on the host is not the device that its name says.
pub fn device_nodes(
    host: &Host,
    gpus: &[&Gpu],
    migs: &[MigDevice],
    capabilities: &Capabilities,
) -> Result<Vec<DeviceNode>, DeviceError> {
    let path = host.path("/proc/devices");
    let majors = Majors::parse(&keep::read_text(&path)?);
    // `nvidia-frontend` until R550.
    let driver = majors.of("nvidia").or_else(|| majors.of("nvidia-frontend"));
    let missing = |name| DeviceError::NoMajor { path: path.clone(), name };
    let driver = driver.ok_or_else(|| missing("nvidia"))?;
    let all = |name: String, major, minor| Wanted { name, major, minor, mode: 0o666 };
    let mut wanted = vec![all("nvidiactl".to_owned(), driver, CONTROL)];
    if let Some(uvm) = majors.of("nvidia-uvm") {
        wanted.push(all("nvidia-uvm".into(), uvm, 0));
        wanted.push(all("nvidia-uvm-tools".into(), uvm, 1));
    }
    if capabilities.draws() {
        let modeset = majors.of("nvidia-modeset");
        wanted.extend(modeset.map(|major| all("nvidia-modeset".to_owned(), major, MODESET)));
    }
    let mut minors: Vec<u32> = gpus.iter().map(|gpu| gpu.minor).collect();
    minors.sort_unstable();
    wanted.extend(minors.into_iter().map(|minor| all(format!("nvidia{minor}"), driver, minor)));
    if !migs.is_empty() {
        let major = majors.of("nvidia-caps").ok_or_else(|| missing("nvidia-caps"))?;
        wanted.extend(mig_capabilities(host, major, migs)?);
    } else if capabilities.draws() {
        wanted.extend(dri::wanted(host, gpus)?);
    }
    wanted.into_iter().map(|wanted| node(host, wanted)).collect()
}

/// A node that is wanted, and the mode that it has where the host has none.
pub(super) struct Wanted {
    /// Below `/dev`.
    pub(super) name: String,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) mode: u32,
}

/// The nodes that let a process use these MIG devices. An open of one is all that the driver looks at.
fn mig_capabilities(
    host: &Host,
    major: u32,
    migs: &[MigDevice],
) -> Result<Vec<Wanted>, DeviceError> {
    let mut wanted = Vec::new();
    for access in migs.iter().flat_map(MigDevice::access) {
        let Capability { minor, mode } = capability(host, &access)?;
        let name = format!("nvidia-caps/nvidia-cap{minor}");
        wanted.push(Wanted { name, major, minor, mode });
    }
    wanted.sort_by_key(|wanted| wanted.minor);
    wanted.dedup_by_key(|wanted| wanted.minor);
    Ok(wanted)
}

/// Minors of the two nodes that let a process use a MIG device: its GPU instance's, its compute instance's.
///
/// # Errors
/// When the driver does not list it.
pub fn capability_minors(host: &Host, mig: MigDevice) -> Result<[u32; 2], DeviceError> {
    let [gpu_instance, compute_instance] = mig.access();
    Ok([capability(host, &gpu_instance)?.minor, capability(host, &compute_instance)?.minor])
}

/// What the driver says of the node of one instance.
struct Capability {
    minor: u32,
    mode: u32,
}

fn capability(host: &Host, access: &str) -> Result<Capability, DeviceError> {
    let path = host.path(&format!("/proc/driver/nvidia/capabilities/{access}"));
    let text = keep::read_text(&path)?;
    let field = |name: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| *field == name)?.1.trim().parse::<u32>().ok()
    };
    let minor = field("DeviceFileMinor").ok_or_else(|| DeviceError::Malformed {
        path: path.clone(),
        how: "names no DeviceFileMinor".to_owned(),
    })?;
    Ok(Capability { minor, mode: field("DeviceFileMode").unwrap_or(0o444) & 0o777 })
}

fn node(host: &Host, wanted: Wanted) -> Result<DeviceNode, DeviceError> {
    let Wanted { name, major, minor, mode: usual } = wanted;
    let path = format!("/dev/{name}");
    let on_host = host.path(&path);
    let meta = match fs::symlink_metadata(&on_host) {
        // The driver makes its nodes when it is first used; it needs none of them in place.
        Err(error) if keep::is_absent(&error) => {
            return Ok(DeviceNode { path, major, minor, mode: usual, uid: 0, gid: 0 });
        }
        meta => meta.map_err(file("look at", &on_host))?,
    };
    let found = match standing(path, &meta) {
        Some(node) if (node.major, node.minor) == (major, minor) => return Ok(node),
        Some(node) => format!("character device {}:{}", node.major, node.minor),
        None => "no character device".to_owned(),
    };
    Err(DeviceError::WrongNode { path: on_host, found, major, minor })
}

/// A node as it stands on the host; `None` for what is no character device.
pub(super) fn standing(path: String, meta: &Metadata) -> Option<DeviceNode> {
    let number = |number: u64| u32::try_from(number).ok();
    meta.file_type().is_char_device().then_some(DeviceNode {
        path,
        major: number(major(meta.rdev()))?,
        minor: number(minor(meta.rdev()))?,
        mode: meta.mode() & 0o777,
        uid: meta.uid(),
        gid: meta.gid(),
    })
}

/// Makes sure that these nodes stand on the host, where the OCI runtime binds them from for a container with a user namespace: nobody can make
/// device nodes in there. Those that are missing are made, as nvidia-modprobe would, unless the host's root is a simulated one.
///
/// # Errors
/// The node, and what is the matter with it.
pub fn stand_on_the_host(host: &Host, nodes: &[DeviceNode]) -> Result<(), (String, String)> {
    for node in nodes {
        stand(host, node).map_err(|why| (node.path.clone(), why))?;
    }
    Ok(())
}

fn stand(host: &Host, node: &DeviceNode) -> Result<(), String> {
    match fs::metadata(&node.path) {
        // What it is, `node` has seen to.
        Ok(_) => Ok(()),
        Err(error) if keep::is_absent(&error) && host.root == Path::new("/") => {
            if let Some(folder) = Path::new(&node.path).parent() {
                // Should it fail, so does what follows.
                let _ = fs::create_dir_all(folder);
            }
            let device = makedev(node.major.into(), node.minor.into());
            let mode = Mode::from_bits_truncate(node.mode);
            let made = mknod(node.path.as_str(), SFlag::S_IFCHR, mode, device);
            // Whatever our umask is.
            let shown = made.map_err(io::Error::from).and_then(|()| {
                fs::set_permissions(&node.path, fs::Permissions::from_mode(node.mode))
            });
            shown.map_err(|error| format!("it is not there and cannot be made ({error})"))
        }
        Err(error) if keep::is_absent(&error) => Err("it is not there".to_owned()),
        Err(error) => Err(format!("it cannot be looked at ({error})")),
    }
}

/// Makes the links of these nodes on the host, as far as the nodes stand there. They stay: others need them as well.
pub fn char_links(host: &Host, nodes: &[DeviceNode]) -> Vec<LinkProblem> {
    let there = |node: &&DeviceNode| host.path(&node.path).exists();
    nodes.iter().filter(there).filter_map(|node| char_link(host, node).err()).collect()
}

/// Links that [`char_links`] would have to make. Makes nothing.
pub fn missing_char_links(host: &Host, nodes: &[DeviceNode]) -> Vec<String> {
    let link = |node: &DeviceNode| format!("/dev/char/{}:{}", node.major, node.minor);
    let there = |node: &&DeviceNode| host.path(&node.path).exists();
    let missing = |node: &&DeviceNode| !leads_to(&host.path(&link(node)), node);
    nodes.iter().filter(there).filter(missing).map(link).collect()
}

fn char_link(host: &Host, node: &DeviceNode) -> Result<(), LinkProblem> {
    let link = host.path(&format!("/dev/char/{}:{}", node.major, node.minor));
    let target = format!("..{}", node.path.trim_start_matches("/dev"));
    let problem = |why: String| LinkProblem { link: link.clone(), target: target.clone(), why };
    match symlink(&target, &link) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::read_link(&link) {
            // However it is written: what counts is where it leads.
            Ok(_) if leads_to(&link, node) => Ok(()),
            Ok(other) => Err(problem(format!("it leads to {}", other.display()))),
            Err(_) => Err(problem("something else is in its place".into())),
        },
        Err(error) => Err(problem(error.to_string())),
    }
}

fn leads_to(link: &Path, node: &DeviceNode) -> bool {
    fs::metadata(link).is_ok_and(|meta| {
        let device = meta.rdev();
        meta.file_type().is_char_device()
            && (major(device), minor(device)) == (node.major.into(), node.minor.into())
    })
}

/// The character devices of `/proc/devices`.
pub(super) struct Majors(Vec<(String, u32)>);

impl Majors {
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().skip_while(|line| line.trim() != "Character devices:").skip(1);
        let lines = lines.take_while(|line| !line.trim().is_empty());
        let entry = |line: &str| {
            let (number, name) = line.trim().split_once(' ')?;
            Some((name.trim().to_owned(), number.parse().ok()?))
        };
        Self(lines.filter_map(entry).collect())
    }

    /// Whether a driver of this name has this one. Some have several.
    pub(super) fn has(&self, name: &str, major: u32) -> bool {
        self.0.iter().any(|(known, number)| known == name && *number == major)
    }

    fn of(&self, name: &str) -> Option<u32> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, major)| *major)
    }
}

#[cfg(test)]
mod tests;

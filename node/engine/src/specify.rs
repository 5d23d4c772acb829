//! A CDI specification of this node, for engines without Berth's shim.
//!
//! Decides what each device brings: the nodes that an admission would give, and the driver's files where loaders look by themselves, since no
//! hook is asked for. Must not know how a specification is written down.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use device::{DeviceNode, DriverFile, MigDevice};
use oci_specs::Mount;
use oci_specs::cdi::{self, ContainerEdits, NewSpec};
use plan::{Capabilities, Gpu, Inventory, Refusal};

use crate::{Denied, Fault, Node};

/// By what a device is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceName {
    /// `0`; of a MIG device `0:1`, both as `nvidia-smi -L` numbers them.
    Index,
    /// `GPU-…`, `MIG-…`.
    Uuid,
}

impl Node {
    /// A specification with each GPU, each MIG device that stands, and `all` of them. A GPU in MIG mode is of use by its MIG devices alone.
    ///
    /// # Errors
    /// [`Denied`] where there is no driver, no GPU, or not all of the driver's files.
    pub fn cdi_spec(&self, kind: &str, names: &[DeviceName]) -> Result<NewSpec, Denied> {
        let inventory = self.inventory()?;
        let driver = inventory.driver.as_ref().ok_or(Refusal::NoDriver)?;
        let capabilities = Capabilities::default();
        let common = device::device_nodes(&self.host, &[], &[], &capabilities)?;
        let files = device::driver_files(&self.host, driver, &capabilities)?;
        let mut devices = Vec::new();
        let mut all: Vec<DeviceNode> = Vec::new();
        for (own, nodes) in self.cdi_nodes(&inventory)? {
            let nodes: Vec<_> = nodes.into_iter().filter(|node| !common.contains(node)).collect();
            let edits =
                ContainerEdits { device_nodes: self.as_written(&nodes), ..Default::default() };
            for (by, name) in own {
                if names.contains(&by) {
                    devices.push((name, edits.clone()));
                }
            }
            all.extend(nodes.into_iter().filter(|node| !all.contains(node)).collect::<Vec<_>>());
        }
        if all.is_empty() {
            return Err(Fault::NothingToSpecify.into());
        }
        let edits = ContainerEdits { device_nodes: self.as_written(&all), ..Default::default() };
        devices.push(("all".to_owned(), edits));
        Ok(NewSpec {
            kind: kind.to_owned(),
            edits: ContainerEdits {
                // So NVIDIA's own tools know that all is done.
                env: vec![("NVIDIA_VISIBLE_DEVICES".to_owned(), "void".to_owned())],
                device_nodes: self.as_written(&common),
                mounts: files.into_iter().map(mount).collect(),
                ..ContainerEdits::default()
            },
            devices,
        })
    }

    /// What can be given by itself: its names, and all nodes that a container needs for it.
    fn cdi_nodes(&self, inventory: &Inventory) -> Result<Vec<(Names, Vec<DeviceNode>)>, Fault> {
        let mut found = Vec::new();
        for gpu in &inventory.gpus {
            if gpu.mig {
                found.extend(self.mig_nodes(gpu)?);
                continue;
            }
            let index = (DeviceName::Index, gpu.index.to_string());
            let names = vec![index, (DeviceName::Uuid, gpu.uuid.to_string())];
            found.push((
                names,
                device::device_nodes(&self.host, &[gpu], &[], &Capabilities::default())?,
            ));
        }
        Ok(found)
    }

    fn mig_nodes(&self, gpu: &Gpu) -> Result<Vec<(Names, Vec<DeviceNode>)>, Fault> {
        let devices = gpu.instances.iter().flat_map(|instance| {
            instance.compute_instances.iter().map(move |compute| (instance.gpu_instance, compute))
        });
        let mut devices: Vec<_> = devices.collect();
        devices.sort_by_key(|(gpu_instance, compute)| (*gpu_instance, compute.id));
        let mut found = Vec::new();
        for (nth, (gpu_instance, compute)) in devices.into_iter().enumerate() {
            let mig = MigDevice { gpu: gpu.minor, gpu_instance, compute_instance: compute.id };
            let mut names = vec![(DeviceName::Index, format!("{}:{nth}", gpu.index))];
            names.extend(compute.uuid.iter().map(|uuid| (DeviceName::Uuid, uuid.to_string())));
            found.push((
                names,
                device::device_nodes(&self.host, &[gpu], &[mig], &Capabilities::default())?,
            ));
        }
        Ok(found)
    }

    /// Some of the driver's numbers are others after a boot: of a node that stands, the specification leaves them to the host. One that does not
    /// stand, which the driver does not need, is described whole.
    fn as_written(&self, nodes: &[DeviceNode]) -> Vec<cdi::DeviceNode> {
        let written = |node: &DeviceNode| {
            let on_host = self.host.path(&node.path);
            let is_left = self.host.root == Path::new("/") && on_host.exists();
            let number = |number: u32| (!is_left).then_some(i64::from(number));
            cdi::DeviceNode {
                path: node.path.clone(),
                host_path: on_host.to_string_lossy().into_owned(),
                kind: (!is_left).then(|| "c".to_owned()),
                major: number(node.major),
                minor: number(node.minor),
                file_mode: (!is_left).then_some(node.mode),
                access: "rw".to_owned(),
                uid: None,
                gid: None,
            }
        };
        nodes.iter().map(written).collect()
    }
}

/// By what each name is one.
type Names = Vec<(DeviceName, String)>;

fn mount(file: DriverFile) -> Mount {
    let options: &[&str] = match file.is_socket {
        true => &["nosuid", "nodev", "noexec", "rbind", "rprivate"],
        false => &["ro", "nosuid", "nodev", "rbind", "rprivate"],
    };
    Mount {
        destination: file.place,
        kind: String::new(),
        source: file.source.to_string_lossy().into_owned(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    }
}

/// Puts a specification in its place in one step, readable for everybody. It outlives the boot: a power cut must not leave half of it.
///
/// # Errors
/// [`Fault`] when it cannot be written; what was there is there still.
pub fn write_spec(path: &Path, text: &str) -> Result<(), Fault> {
    let failed = |source| Fault::Specification { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    // No reader of specifications looks at a name with such an end.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        failed(source)
    })
}

//! Extras: the device nodes of what is beside the GPUs, and what programs read of it.
//!
//! Decides which nodes are of which family: by name, and by the kernel's own list, so that whatever else has such a name is passed over. All that
//! the node has of a family is brought. Must not know who may have any.

use std::fs;
use std::path::PathBuf;

use plan::Extra;

use super::nodes::{DeviceNode, Majors, standing};
use crate::error::{DeviceError, file};
use crate::{Host, keep};

/// Nodes of one driver.
struct Family {
    /// Their folder.
    folder: &'static str,
    /// Their name, or what it begins with where numbers follow.
    name: &'static str,
    numbered: bool,
    /// As `/proc/devices` has the driver.
    driver: &'static str,
}

const fn numbered(folder: &'static str, name: &'static str, driver: &'static str) -> Family {
    Family { folder, name, numbered: true, driver }
}

const fn single(folder: &'static str, name: &'static str, driver: &'static str) -> Family {
    Family { folder, name, numbered: false, driver }
}

const GDS: &[Family] = &[numbered("/dev", "nvidia-fs", "nvidia-fs")];
const RDMA: &[Family] = &[
    numbered("/dev/infiniband", "uverbs", "infiniband_verbs"),
    single("/dev/infiniband", "rdma_cm", "misc"),
];
const GDRCOPY: &[Family] = &[single("/dev", "gdrdrv", "gdrdrv")];
const IMEX: &[Family] =
    &[numbered("/dev/nvidia-caps-imex-channels", "channel", "nvidia-caps-imex-channels")];
const NVSWITCH: &[Family] = &[
    numbered("/dev", "nvidia-nvswitch", "nvidia-nvswitch"),
    single("/dev", "nvidia-nvswitchctl", "nvidia-nvswitch"),
];

/// Where programs read how GPUDirect Storage is to be used here.
const CUFILE: &str = "/etc/cufile.json";

/// The first is what an extra is nothing without.
fn families(extra: Extra) -> &'static [Family] {
    match extra {
        Extra::Gds => GDS,
        Extra::Rdma => RDMA,
        Extra::Gdrcopy => GDRCOPY,
        Extra::Imex => IMEX,
        Extra::Nvswitch => NVSWITCH,
    }
}

/// The nodes of an extra as the host has them, by name; empty where the node has not got it.
///
/// # Errors
/// When the kernel's list or a folder cannot be read.
pub fn extra_nodes(host: &Host, extra: Extra) -> Result<Vec<DeviceNode>, DeviceError> {
    let majors = Majors::parse(&keep::read_text(&host.path("/proc/devices"))?);
    let mut all = Vec::new();
    for (nth, family) in families(extra).iter().enumerate() {
        let found = family.nodes(host, &majors)?;
        if nth == 0 && found.is_empty() {
            return Ok(Vec::new());
        }
        all.extend(found);
    }
    Ok(all)
}

/// What an extra is nothing without, in words, for where it is missing.
pub fn extra_words(extra: Extra) -> String {
    let Family { folder, name, numbered, driver } = &families(extra)[0];
    let many = if *numbered { "*" } else { "" };
    format!("there is no {folder}/{name}{many} of the kernel's device \"{driver}\"")
}

/// What of the host's own files goes with an extra, if the host has any: where it is, and its place in the container.
pub fn extra_file(host: &Host, extra: Extra) -> Option<(PathBuf, &'static str)> {
    let path = host.path(CUFILE);
    (extra == Extra::Gds && path.is_file()).then_some((path, CUFILE))
}

impl Family {
    fn has(&self, name: &str) -> bool {
        if self.numbered { keep::is_numbered(name, self.name) } else { name == self.name }
    }

    fn nodes(&self, host: &Host, majors: &Majors) -> Result<Vec<DeviceNode>, DeviceError> {
        let mut nodes = Vec::new();
        for name in keep::names(&host.path(self.folder))?.iter().filter(|name| self.has(name)) {
            let path = format!("{}/{name}", self.folder);
            let on_host = host.path(&path);
            let meta = match fs::symlink_metadata(&on_host) {
                // Gone since.
                Err(error) if keep::is_absent(&error) => continue,
                meta => meta.map_err(file("look at", &on_host))?,
            };
            let node = standing(path, &meta);
            nodes.extend(node.filter(|node| majors.has(self.driver, node.major)));
        }
        nodes.sort_by_key(|node| node.minor);
        Ok(nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvidia::fake::Fake;
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};

    const DEVICES: &str = "Character devices:\n 10 misc\n231 infiniband_verbs\n233 nvidia-nvswitch\n\
                           234 nvidia-caps-imex-channels\n235 nvidia-fs\n236 gdrdrv\n240 infiniband_verbs\n\nBlock devices:\n";

    /// A node with these, or nothing where nobody may make any.
    fn with(nodes: &[(&str, u64, u64)]) -> Option<Fake> {
        let fake = Fake::new();
        fake.write("/proc/devices", DEVICES);
        for (path, major, minor) in nodes {
            let path = fake.host.path(path);
            fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
            let mode = Mode::from_bits_truncate(0o666);
            if let Err(errno) = mknod(&path, SFlag::S_IFCHR, mode, makedev(*major, *minor)) {
                eprintln!("skipped: no device node can be made here: {errno}");
                return None;
            }
        }
        Some(fake)
    }

    fn names(fake: &Fake, extra: Extra) -> Vec<String> {
        let nodes = extra_nodes(&fake.host, extra).expect("read");
        nodes.iter().map(|one| format!("{} {}:{}", one.path, one.major, one.minor)).collect()
    }

    #[test]
    fn each_extra_has_its_family_and_no_other_s() {
        let Some(fake) = with(&[
            ("/dev/nvidia-fs0", 235, 0),
            ("/dev/nvidia-fs10", 235, 10),
            ("/dev/nvidia-fs2", 235, 2),
            ("/dev/gdrdrv", 236, 0),
            ("/dev/infiniband/uverbs0", 231, 192),
            ("/dev/infiniband/uverbs40", 240, 8),
            ("/dev/infiniband/umad0", 231, 0),
            ("/dev/infiniband/rdma_cm", 10, 58),
            ("/dev/nvidia-nvswitch0", 233, 0),
            ("/dev/nvidia-nvswitchctl", 233, 255),
            ("/dev/nvidia-caps-imex-channels/channel0", 234, 0),
        ]) else {
            return;
        };
        let fs = ["/dev/nvidia-fs0 235:0", "/dev/nvidia-fs2 235:2", "/dev/nvidia-fs10 235:10"];
        assert_eq!(names(&fake, Extra::Gds), fs);
        assert_eq!(names(&fake, Extra::Gdrcopy), ["/dev/gdrdrv 236:0"]);
        assert_eq!(
            names(&fake, Extra::Rdma),
            [
                "/dev/infiniband/uverbs40 240:8",
                "/dev/infiniband/uverbs0 231:192",
                "/dev/infiniband/rdma_cm 10:58"
            ]
        );
        assert_eq!(
            names(&fake, Extra::Nvswitch),
            ["/dev/nvidia-nvswitch0 233:0", "/dev/nvidia-nvswitchctl 233:255"]
        );
        let imex = ["/dev/nvidia-caps-imex-channels/channel0 234:0"];
        assert_eq!(names(&fake, Extra::Imex), imex);
    }

    #[test]
    fn what_has_such_a_name_and_is_something_else_is_passed_over() {
        let Some(fake) = with(&[
            ("/dev/gdrdrv", 1, 3),
            ("/dev/infiniband/rdma_cm", 10, 58),
            ("/dev/nvidia-fs", 235, 0),
            ("/dev/nvidia-fsx", 235, 1),
        ]) else {
            return;
        };
        fake.write("/dev/nvidia-fs1", "");
        fake.link("/dev/nvidia-fs2", "/dev/nvidia-fs");
        for extra in Extra::ALL {
            assert_eq!(names(&fake, extra), Vec::<String>::new(), "{}", extra.name());
        }
    }

    #[test]
    fn a_module_that_is_not_loaded_has_no_nodes_whatever_is_left_of_it() {
        let Some(fake) = with(&[("/dev/gdrdrv", 236, 0)]) else { return };
        fake.write("/proc/devices", DEVICES.replace("236 gdrdrv\n", ""));
        assert!(names(&fake, Extra::Gdrcopy).is_empty());
        let words = extra_words(Extra::Gdrcopy);
        assert_eq!(words, "there is no /dev/gdrdrv of the kernel's device \"gdrdrv\"");
    }

    #[test]
    fn only_storage_comes_with_a_file_and_only_where_there_is_one() {
        let fake = Fake::new();
        assert_eq!(extra_file(&fake.host, Extra::Gds), None);
        fake.write("/etc/cufile.json", "{}");
        let found = extra_file(&fake.host, Extra::Gds).expect("there");
        assert_eq!(found, (fake.host.path("/etc/cufile.json"), "/etc/cufile.json"));
        assert_eq!(extra_file(&fake.host, Extra::Rdma), None);
    }
}

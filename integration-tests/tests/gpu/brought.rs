//! What of the driver a container is brought by its capabilities: libraries, programs, firmware, and the sockets of its services.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::Task;
use integration_tests::gpu::world::{ONE_GPU, World};
use integration_tests::images::glibc::Layout;

use crate::layouts::LIBRARIES;

/// Of a node with driver 550 and NVSwitches, up to `.so`.
const OF_UTILITY: [&str; 3] = ["libnvidia-cfg", "libnvidia-ml", "libnvidia-nscq"];
const OF_COMPUTE: [&str; 9] = [
    "libcuda",
    "libcudadebugger",
    "libnvidia-allocator",
    "libnvidia-gpucomp",
    "libnvidia-nvvm",
    "libnvidia-opencl",
    "libnvidia-pkcs11",
    "libnvidia-pkcs11-openssl3",
    "libnvidia-ptxjitcompiler",
];

const TOOLS_OF_UTILITY: [&str; 3] = ["nvidia-debugdump", "nvidia-persistenced", "nvidia-smi"];
const TOOLS_OF_COMPUTE: [&str; 2] = ["nvidia-cuda-mps-control", "nvidia-cuda-mps-server"];

const PERSISTENCED: &str = "/run/nvidia-persistenced/socket";
const FABRICMANAGER: &str = "/run/nvidia-fabricmanager/socket";

/// What a container has of the driver, in the words of its own shell.
#[derive(Debug, PartialEq, Eq)]
struct Brought {
    libraries: BTreeSet<String>,
    programs: BTreeSet<String>,
    sockets: BTreeSet<String>,
}

impl Brought {
    fn by(task: &Task<'_>) -> Result<Self> {
        let script = format!(
            "ls {LIBRARIES}; echo ---; cd /usr/bin; ls | grep ^nvidia; echo ---; find /run -type s"
        );
        let said = task.exec(&["sh", "-c", &script])?;
        let parts: Vec<&str> = said.out.split("---\n").collect();
        let [libraries, programs, sockets] = parts[..] else { anyhow::bail!("{said:?}") };
        let stem = |file: &str| file.split_once(".so").map(|(stem, _)| stem.to_owned());
        let lines = |part: &str| part.lines().map(str::to_owned).collect();
        Ok(Self {
            libraries: libraries.lines().filter_map(stem).collect(),
            programs: lines(programs),
            sockets: lines(sockets),
        })
    }

    fn of(parts: [&[&str]; 3]) -> Self {
        let [libraries, programs, sockets] =
            parts.map(|part| part.iter().map(|name| (*name).to_owned()).collect());
        Self { libraries, programs, sockets }
    }

    fn is(&self, libraries: &[&str], programs: &[&str], sockets: &[&str]) -> Result<()> {
        let wanted = Self::of([libraries, programs, sockets]);
        ensure!(*self == wanted, "{self:#?} is not {wanted:#?}");
        Ok(())
    }
}

/// A container of this world that asks for these capabilities, or says nothing of them.
fn asking<'a>(world: &'a World, image: &str, capabilities: Option<&str>) -> Result<Task<'a>> {
    let annotation = capabilities.map(|some| format!("berth.dev/driver-capabilities={some}"));
    let more = annotation.iter().flat_map(|one| ["--annotation", one.as_str()]);
    world.sleeper_of(image, &ONE_GPU.into_iter().chain(more).collect::<Vec<_>>())
}

pub fn each_capability_brings_its_own_files_and_no_others(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let image = world.has(Layout::Debian)?;
    let both = [&OF_COMPUTE[..], &OF_UTILITY].concat();
    let tools = [&TOOLS_OF_COMPUTE[..], &TOOLS_OF_UTILITY].concat();
    for (capabilities, libraries, programs, sockets) in [
        (None, &both[..], &tools[..], &[FABRICMANAGER, PERSISTENCED][..]),
        (Some("compute,utility"), &both, &tools, &[FABRICMANAGER, PERSISTENCED]),
        (Some("compute"), &OF_COMPUTE, &TOOLS_OF_COMPUTE, &[FABRICMANAGER]),
        (Some("utility"), &OF_UTILITY, &TOOLS_OF_UTILITY, &[PERSISTENCED]),
    ] {
        let task = asking(&world, image, capabilities)?;
        let brought = Brought::by(&task)?;
        brought.is(libraries, programs, sockets).with_context(|| format!("{capabilities:?}"))?;
        task.end()?;
    }
    world.node.is_free()
}

/// Not only their names: the programs run, the firmware is the node's, and so is what listens.
pub fn what_is_brought_is_the_node_s(stage: &Stage) -> Result<()> {
    is_the_node_s(stage, |root| Layout::Debian.build(root))
}

pub fn what_is_brought_by_binds_is_the_node_s(stage: &Stage) -> Result<()> {
    is_the_node_s(stage, |root| {
        Layout::Debian.build(root)?;
        fs::create_dir_all(root.join("opt/local"))?;
        Ok(symlink("/opt/local", root.join("usr/local"))?)
    })
}

fn is_the_node_s(stage: &Stage, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let image = "localhost/berth/brought:test";
    world.built(image, build)?;
    let task = asking(&world, image, None)?;
    let version = world.state()?.driver.context("a driver")?.version;
    for tool in ["nvidia-debugdump", "nvidia-persistenced", "nvidia-cuda-mps-control"] {
        let said = task.exec(&[tool])?;
        ensure!(said.out == format!("{tool}: simulated, driver {version}\n"), "{said:?}");
    }
    for name in ["gsp_ga10x.bin", "gsp_tu10x.bin"] {
        let file = format!("lib/firmware/nvidia/{version}/{name}");
        let own = fs::read_to_string(world.node.root().join("usr").join(&file))?;
        let said = task.exec(&["cat", &format!("/{file}")])?;
        ensure!(said.out == own, "{said:?} is not {own:?}");
    }
    for socket in [PERSISTENCED, FABRICMANAGER] {
        let own = fs::metadata(world.node.root().join(&socket[1..]))?.ino();
        let said = task.exec(&["stat", "-c", "%i %F", socket])?;
        ensure!(said.out == format!("{own} socket\n"), "{said:?}, the node's is {own}");
    }
    task.end()?;
    world.node.is_free()
}

/// Services come and go while the driver's files stay.
pub fn a_service_that_the_node_has_not_is_not_looked_for(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "t4", "")?;
    let image = world.has(Layout::Debian)?;
    let sockets = |wanted: &[&str]| {
        let task = asking(&world, image, None)?;
        let found = Brought::by(&task)?.sockets;
        ensure!(found.iter().eq(wanted.iter()), "{found:?} are not {wanted:?}");
        task.end()
    };
    sockets(&[PERSISTENCED])?;
    let socket = world.node.root().join(&PERSISTENCED[1..]);
    let aside = socket.with_file_name("aside");
    fs::rename(&socket, &aside)?;
    sockets(&[])?;
    fs::rename(&aside, &socket)?;
    sockets(&[PERSISTENCED])
}

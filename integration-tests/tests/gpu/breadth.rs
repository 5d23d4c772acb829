//! What draws, encodes and is for 32-bit programs: each part of the driver brings its own files and nodes, to those who asked for it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result, ensure};
use integration_tests::containerd::stage::Stage;
use integration_tests::containerd::task::{BERTH, Task};
use integration_tests::gpu::world::{ONE_GPU, World, uuids};
use integration_tests::images::glibc;
use simnode::{Layout, Options};

use crate::layouts::LIBRARIES;

const LIBRARIES_OF_32_BITS: &str = "/usr/local/nvidia/lib";

/// Up to `.so`, below the folder of libraries.
const OF_GRAPHICS: [&str; 18] = [
    "gbm/nvidia-drm_gbm",
    "libEGL_nvidia",
    "libGLESv1_CM_nvidia",
    "libGLESv2_nvidia",
    "libGLX_indirect",
    "libGLX_nvidia",
    "libnvidia-allocator",
    "libnvidia-egl-gbm",
    "libnvidia-egl-wayland",
    "libnvidia-eglcore",
    "libnvidia-fbc",
    "libnvidia-glcore",
    "libnvidia-glsi",
    "libnvidia-glvkspirv",
    "libnvidia-gpucomp",
    "libnvidia-rtcore",
    "libnvidia-tls",
    "libnvoptix",
];
const OF_DISPLAY: [&str; 2] =
    ["xorg/modules/drivers/nvidia_drv", "xorg/modules/extensions/libglxserver_nvidia"];
const OF_VIDEO: [&str; 4] =
    ["libnvcuvid", "libnvidia-encode", "libnvidia-opticalflow", "libvdpau_nvidia"];

/// Of a node with driver 550.
const DATA_OF_GRAPHICS: [&str; 9] = [
    "/usr/lib64/gbm/nvidia-drm_gbm.so",
    "/usr/share/egl/egl_external_platform.d/10_nvidia_wayland.json",
    "/usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
    "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
    "/usr/share/nvidia/nvidia-application-profiles-550.163.01-key-documentation",
    "/usr/share/nvidia/nvidia-application-profiles-550.163.01-rc",
    "/usr/share/nvidia/nvoptix.bin",
    "/usr/share/vulkan/icd.d/nvidia_icd.json",
    "/usr/share/vulkan/implicit_layer.d/nvidia_layers.json",
];
const DATA_OF_DISPLAY: [&str; 4] = [
    "/usr/lib/xorg/modules/drivers/nvidia_drv.so",
    "/usr/lib/xorg/modules/extensions/libglxserver_nvidia.so",
    "/usr/lib64/xorg/modules/drivers/nvidia_drv.so",
    "/usr/lib64/xorg/modules/extensions/libglxserver_nvidia.so",
];
const OPENCL: &str = "/etc/OpenCL/vendors/nvidia.icd";

/// The other place where libgbm looks.
fn multiarch_gbm() -> String {
    format!("/usr/lib/{}-linux-gnu/gbm/nvidia-drm_gbm.so", std::env::consts::ARCH)
}

/// What a container has, in the words of its own shell.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    libraries: BTreeSet<String>,
    narrow: BTreeSet<String>,
    data: BTreeSet<String>,
    nodes: BTreeSet<String>,
}

impl Seen {
    fn by(task: &Task<'_>) -> Result<Self> {
        let script = format!(
            "cd {LIBRARIES} && find . ! -type d; echo ---; \
             cd {LIBRARIES_OF_32_BITS} 2>/dev/null && find . ! -type d; echo ---; \
             for dir in /usr/share /etc/OpenCL /etc/vulkan /usr/lib/xorg /usr/lib64/xorg /usr/lib/*-linux-gnu/gbm /usr/lib64/gbm; do \
             [ -d $dir ] && find $dir ! -type d; done; echo ---; \
             ls -d /dev/dri/* /dev/nvidia-modeset 2>/dev/null"
        );
        let said = task.exec(&["sh", "-c", &script])?;
        let parts: Vec<&str> = said.out.split("---\n").collect();
        let [libraries, narrow, data, nodes] = parts[..] else { anyhow::bail!("{said:?}") };
        let stem = |file: &str| {
            let (stem, _) = file.strip_prefix("./")?.split_once(".so")?;
            Some(stem.to_owned())
        };
        let lines = |part: &str| part.lines().map(str::to_owned).collect();
        Ok(Self {
            libraries: libraries.lines().filter_map(stem).collect(),
            narrow: narrow.lines().filter_map(stem).collect(),
            data: lines(data),
            nodes: lines(nodes),
        })
    }
}

fn set(parts: &[&[&str]]) -> BTreeSet<String> {
    parts.iter().flat_map(|part| part.iter()).map(|one| (*one).to_owned()).collect()
}

fn asking<'a>(world: &'a World, image: &str, capabilities: &str) -> Result<Task<'a>> {
    let annotation = format!("berth.dev/driver-capabilities={capabilities}");
    world.sleeper_of(image, &[&ONE_GPU[..], &["--annotation", &annotation]].concat())
}

/// The nodes for drawing of the only grant's only GPU, as the node numbers them.
fn own_nodes(world: &World) -> Result<BTreeSet<String>> {
    let grant = world.grant()?;
    let gpus = world.state()?.gpus;
    let own = gpus.iter().find(|gpu| uuids(&grant) == [gpu.uuid.as_str()]).context("one GPU")?;
    let drm = world.node.root().join(format!("sys/bus/pci/devices/{}/drm", own.route.device));
    let names = fs::read_dir(drm)?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<Result<Vec<_>>>()?;
    ensure!(names.len() == 2, "a card and what renders: {names:?}");
    let modeset = std::iter::once("/dev/nvidia-modeset".to_owned());
    let node = |name: &std::ffi::OsString| format!("/dev/dri/{}", name.to_string_lossy());
    Ok(modeset.chain(names.iter().map(node)).collect())
}

pub fn each_part_of_the_driver_brings_its_own_and_nothing_else(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let image = world.has(glibc::Layout::Debian)?;
    let gbm = multiarch_gbm();
    for (capabilities, libraries, data, draws) in [
        ("graphics", set(&[&OF_GRAPHICS]), set(&[&DATA_OF_GRAPHICS, &[&gbm]]), true),
        (
            "display",
            set(&[&OF_GRAPHICS, &OF_DISPLAY]),
            set(&[&DATA_OF_GRAPHICS, &[&gbm], &DATA_OF_DISPLAY]),
            true,
        ),
        ("video", set(&[&OF_VIDEO]), set(&[]), false),
        ("ngx", set(&[&["libnvidia-ngx"]]), set(&[]), false),
        ("video,ngx", set(&[&OF_VIDEO, &["libnvidia-ngx"]]), set(&[]), false),
    ] {
        let task = asking(&world, image, capabilities)?;
        let nodes = if draws { own_nodes(&world)? } else { BTreeSet::new() };
        let wanted = Seen { libraries, narrow: BTreeSet::new(), data, nodes };
        let seen = Seen::by(&task)?;
        ensure!(seen == wanted, "{capabilities}: {seen:#?} is not {wanted:#?}");
        ensure!(world.grant()?["driver_capabilities"] == capabilities, "{capabilities}");
        task.end()?;
    }
    // Those who compute see nothing of it but what OpenCL needs.
    let task = world.sleeper_of(image, &ONE_GPU)?;
    let seen = Seen::by(&task)?;
    let foreign = |library: &String| {
        [&OF_GRAPHICS[..], &OF_DISPLAY, &OF_VIDEO].concat().contains(&library.as_str())
            && !["libnvidia-allocator", "libnvidia-gpucomp"].contains(&library.as_str())
    };
    ensure!(!seen.libraries.iter().any(foreign), "{seen:#?}");
    ensure!(seen.data == set(&[&[OPENCL]]) && seen.nodes.is_empty(), "{seen:#?}");
    task.end()?;
    world.node.is_free()
}

pub fn nodes_for_drawing_are_of_the_granted_gpu_and_no_other_opens(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let task = asking(&world, world.has(glibc::Layout::Debian)?, "compute,utility,graphics")?;
    let own = own_nodes(&world)?;
    ensure!(Seen::by(&task)?.nodes == own, "{own:?}");
    for node in &own {
        let said = task.exec(&["sh", "-c", &format!("cat {node} 2>&1")])?.out;
        ensure!(said.contains("No such device"), "the rule lets it through: {said}");
    }
    // The board's own, and each other GPU's, made by hand.
    let others = (0..=8).chain(128..=135).filter(|minor| {
        !own.contains(&format!("/dev/dri/card{minor}"))
            && !own.contains(&format!("/dev/dri/renderD{minor}"))
    });
    let mut tried = 0;
    for minor in others {
        let script = format!("mknod /tmp/n{minor} c 226 {minor}; cat /tmp/n{minor} 2>&1");
        let said = task.exec(&["sh", "-c", &script])?.out;
        ensure!(said.contains("Operation not permitted"), "226:{minor}: {said}");
        tried += 1;
    }
    ensure!(tried == 15, "{tried} of 17 are not its own");
    task.end()?;
    world.node.is_free()
}

/// That the image's loader opens a library by its name, and which file that is.
fn loads(task: &Task<'_>, library: &str) -> Result<()> {
    let script =
        format!("export LD_PRELOAD={library}; nvidia-smi -L; LD_TRACE_LOADED_OBJECTS=1 nvidia-smi");
    let said = task.exec(&["sh", "-c", &script])?;
    let path = format!("{LIBRARIES}/{library}");
    let ran = said.code() == 0 && !said.err.contains("cannot be preloaded");
    ensure!(ran && said.out.contains(&path), "{library}: {said:?}");
    Ok(())
}

fn everything_loads(stage: &Stage, image: glibc::Layout) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let task = asking(&world, world.has(image)?, "all")?;
    // The one name that an image's ldconfig does not know, since the library itself says another.
    loads(&task, "libGLX_indirect.so.0")?;
    for _before_and_after_ldconfig in 0..2 {
        for library in [
            "libGLX_nvidia.so.0",
            "libEGL_nvidia.so.0",
            "libnvidia-egl-wayland.so.1",
            "libnvidia-glcore.so.550.163.01",
            "libvdpau_nvidia.so",
            "libnvcuvid.so.1",
            "libnvidia-ngx.so.1",
            "libcuda.so.1",
        ] {
            loads(&task, library)?;
        }
        let ran = task.exec(&["ldconfig"])?;
        ensure!(ran.code() == 0, "{ran:?}");
    }
    task.end()?;
    world.node.is_free()
}

pub fn debian_s_loader_opens_all_of_it(stage: &Stage) -> Result<()> {
    everything_loads(stage, glibc::Layout::Debian)
}

pub fn red_hat_s_loader_opens_all_of_it(stage: &Stage) -> Result<()> {
    everything_loads(stage, glibc::Layout::RedHat)
}

/// What `ldconfig -p` says of a library: for which programs, and where.
fn listed(task: &Task<'_>, library: &str) -> Result<BTreeSet<String>> {
    let said = task.exec(&["ldconfig", "-p"])?;
    let start = format!("\t{library} (");
    Ok(said.out.lines().filter(|line| line.starts_with(&start)).map(str::to_owned).collect())
}

pub fn libraries_of_32_bits_are_apart_and_in_nobody_s_way(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let image = world.has(glibc::Layout::Debian)?;
    let task = asking(&world, image, "compute,utility,compat32")?;
    let seen = Seen::by(&task)?;
    let wanted =
        set(&[&["libcuda", "libnvidia-ml", "libnvidia-opencl", "libnvidia-ptxjitcompiler"]]);
    ensure!(seen.narrow == wanted, "{seen:#?}");
    let both: BTreeSet<String> = [
        format!("\tlibcuda.so.1 (libc6,x86-64) => {LIBRARIES}/libcuda.so.1"),
        format!("\tlibcuda.so.1 (libc6) => {LIBRARIES_OF_32_BITS}/libcuda.so.1"),
    ]
    .into();
    // The image's own ldconfig says of these files what Berth's entries do.
    for _before_and_after_ldconfig in 0..2 {
        let found = listed(&task, "libcuda.so.1")?;
        ensure!(found == both, "{found:#?} is not {both:#?}");
        loads(&task, "libcuda.so.1")?;
        let ran = task.exec(&["ldconfig"])?;
        ensure!(ran.code() == 0, "{ran:?}");
    }
    // As NVIDIA's images have it: the folder of the others comes first.
    let paths = format!("LD_LIBRARY_PATH={LIBRARIES_OF_32_BITS}:{LIBRARIES}");
    let said = task.exec(&["env", &paths, "nvidia-smi", "-L"])?;
    ensure!(said.code() == 0 && said.out.lines().count() == 1, "{said:?}");
    let class = format!("head -c 5 {LIBRARIES_OF_32_BITS}/libcuda.so.1 | tail -c 1 | od -An -tu1");
    let said = task.exec(&["sh", "-c", &class])?;
    ensure!(said.out.trim() == "1", "an ELF file of 32 bits: {said:?}");
    task.end()?;
    let task = world.sleeper_of(image, &ONE_GPU)?;
    ensure!(Seen::by(&task)?.narrow.is_empty(), "nobody asked for them");
    ensure!(listed(&task, "libcuda.so.1")?.len() == 1, "nor are they known");
    task.end()?;
    world.node.is_free()
}

pub fn hosts_of_every_layout_bring_the_same(stage: &Stage) -> Result<()> {
    let gbm = multiarch_gbm();
    let libraries = set(&[&OF_GRAPHICS, &OF_DISPLAY]);
    for (name, layout) in Layout::ALL {
        let options = Options { layout, ..Options::default() };
        let more = if layout == Layout::DriverContainer {
            "driver-root = \"/run/nvidia/driver\""
        } else {
            ""
        };
        let world = World::with(stage, "p5", &options, more)?;
        let image = world.has(glibc::Layout::Debian)?;
        let task = asking(&world, image, "display,compat32")?;
        let mut data = set(&[&DATA_OF_GRAPHICS, &[&gbm], &DATA_OF_DISPLAY]);
        if layout == Layout::Redhat {
            data.remove("/usr/share/vulkan/icd.d/nvidia_icd.json");
            for width in ["i686", "x86_64"] {
                data.insert(format!("/usr/share/vulkan/icd.d/nvidia_icd.{width}.json"));
            }
        }
        let narrow = set(&[&["libGLX_indirect", "libGLX_nvidia", "libnvidia-glcore"]]);
        let wanted = Seen { libraries: libraries.clone(), narrow, data, nodes: own_nodes(&world)? };
        let seen = Seen::by(&task)?;
        ensure!(seen == wanted, "{name}: {seen:#?} is not {wanted:#?}");
        task.end()?;
        world.node.is_free()?;
    }
    Ok(())
}

pub fn where_the_driver_is_no_layer_the_same_is_bound(stage: &Stage) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let image = "localhost/berth/bound:test";
    world.built(image, |root| {
        glibc::Layout::Debian.build(root)?;
        fs::create_dir_all(root.join("opt/local"))?;
        Ok(symlink("/opt/local", root.join("usr/local"))?)
    })?;
    let task = asking(&world, image, "utility,display,compat32")?;
    let seen = Seen::by(&task)?;
    let gbm = multiarch_gbm();
    ensure!(seen.data == set(&[&DATA_OF_GRAPHICS, &[&gbm], &DATA_OF_DISPLAY]), "{seen:#?}");
    let sum = |file: &str| {
        let said = task.exec(&["md5sum", file])?;
        let sum = said.out.split(' ').next().filter(|_| said.code() == 0).map(str::to_owned);
        sum.with_context(|| format!("{said:?}"))
    };
    let same = |one: &str, other: &str| {
        ensure!(sum(one)? == sum(&format!("{LIBRARIES}/{other}"))?, "{one} is not {other}");
        Ok::<_, anyhow::Error>(())
    };
    same(&gbm, "libnvidia-allocator.so.1")?;
    same(DATA_OF_DISPLAY[0], "xorg/modules/drivers/nvidia_drv.so")?;
    loads(&task, "libGLX_nvidia.so.0")?;
    ensure!(listed(&task, "libGLX_nvidia.so.0")?.len() == 2, "for either kind of program");
    task.end()?;
    world.node.is_free()
}

/// As nodes for computing alone are installed.
pub fn a_part_that_the_node_has_not_is_refused_and_all_means_what_it_has(
    stage: &Stage,
) -> Result<()> {
    let world = World::up(stage, "p5", "")?;
    let libraries = world.node.sim.nvml_path()?;
    let libraries = libraries.parent().context("in a folder")?;
    for entry in fs::read_dir(libraries)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if ["libGLX", "libEGL", "libnvidia-ngx"].iter().any(|start| name.starts_with(start)) {
            fs::remove_file(path)?;
        }
    }
    fs::remove_dir_all(world.node.root().join("usr/lib/i386-linux-gnu"))?;
    let image = world.has(glibc::Layout::Debian)?;
    for (capabilities, words) in [
        ("graphics", "libGLX_nvidia of driver 550.163.01, for graphics, is not below "),
        ("compute,ngx", "libnvidia-ngx of driver 550.163.01, for ngx, is not below "),
        ("compute,compat32", "no 32-bit library of driver 550.163.01, for compat32, is below "),
    ] {
        let annotation = format!("berth.dev/driver-capabilities={capabilities}");
        let task = Task::named(&world.containerd, "refused").of(image);
        let flags = [&ONE_GPU[..], &["--annotation", &annotation]].concat();
        let said = task.foreground(BERTH, &flags, &["true"])?;
        ensure!(said.code() == 1 && said.err.contains(words), "{capabilities}: {said:?}");
        task.removed()?;
        world.node.is_free()?;
    }
    let task = asking(&world, image, "all")?;
    let seen = Seen::by(&task)?;
    ensure!(seen.libraries.contains("libnvcuvid") && seen.narrow.is_empty(), "{seen:#?}");
    task.end()?;
    world.node.is_free()
}

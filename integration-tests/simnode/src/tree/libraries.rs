//! The driver's libraries: tiny shared objects with the right SONAMEs, the simulated NVML among them, and the links that an
//! installation has.

use std::path::{Path, PathBuf};

use crate::elf::{self, Machine};
use crate::error::NodeError;
use crate::state::{Driver, State};

use super::write::Tree;
use crate::layout::Layout;

/// How the SONAME ends: in a number of its own, or in the driver's version.
enum Soname {
    Number(u32),
    Version,
}

use Soname::{Number, Version};

/// One library: its name up to `.so`, its SONAME, and whether the installer makes a link for linking against.
type Library = (&'static str, Soname, bool);

const LIBRARIES: &[Library] = &[
    // compute
    ("libcuda", Number(1), true),
    ("libcudadebugger", Number(1), false),
    ("libnvidia-opencl", Number(1), false),
    ("libnvidia-gpucomp", Version, false),
    ("libnvidia-ptxjitcompiler", Number(1), true),
    ("libnvidia-allocator", Number(1), true),
    ("libnvidia-pkcs11", Version, false),
    ("libnvidia-pkcs11-openssl3", Version, false),
    ("libnvidia-nvvm", Number(4), true),
    // utility
    ("libnvidia-cfg", Number(1), true),
    // video
    ("libnvcuvid", Number(1), true),
    ("libnvidia-encode", Number(1), true),
    ("libnvidia-opticalflow", Number(1), true),
    ("vdpau/libvdpau_nvidia", Number(1), false),
    // graphics
    ("libnvidia-eglcore", Version, false),
    ("libnvidia-glcore", Version, false),
    ("libnvidia-tls", Version, false),
    ("libnvidia-glsi", Version, false),
    ("libnvidia-fbc", Number(1), true),
    ("libnvidia-rtcore", Version, false),
    ("libnvidia-glvkspirv", Version, false),
    ("libnvoptix", Number(1), false),
    ("libGLX_nvidia", Number(0), false),
    ("libEGL_nvidia", Number(0), false),
    ("libGLESv2_nvidia", Number(2), false),
    ("libGLESv1_CM_nvidia", Number(1), false),
    // ngx
    ("libnvidia-ngx", Number(1), false),
];

const LIBRARIES_32: &[Library] = &[
    ("libcuda", Number(1), true),
    ("libnvidia-ml", Number(1), true),
    ("libnvidia-ptxjitcompiler", Number(1), true),
    ("libnvidia-opencl", Number(1), false),
    ("libnvcuvid", Number(1), true),
    ("libnvidia-glcore", Version, false),
    ("libGLX_nvidia", Number(0), false),
];

/// Libraries of the EGL platforms, which count their versions apart.
const PLATFORMS: [(&str, &str); 2] =
    [("libnvidia-egl-gbm", "1.1.1"), ("libnvidia-egl-wayland", "1.1.13")];

/// The folder that the loader finds libraries in, below the root of the driver's files.
pub(super) fn folder(layout: Layout) -> PathBuf {
    let multiarch = Path::new("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    match layout {
        Layout::Debian | Layout::DriverContainer => multiarch,
        Layout::DebianAlternatives => multiarch.join("nvidia/current"),
        Layout::Redhat => "usr/lib64".into(),
    }
}

pub(super) fn write(
    tree: &Tree,
    state: &State,
    driver: &Driver,
    nvml: &Path,
) -> Result<(), NodeError> {
    let shelf = Shelf { tree, version: &driver.version, folder: folder(state.layout) };
    let wanted = |library: &&Library| match library.0 {
        "libnvidia-gpucomp" => driver.branch() >= 545,
        _ => true,
    };
    for library in LIBRARIES.iter().filter(wanted) {
        shelf.stub(Machine::host(), library)?;
    }
    if driver.branch() >= 570 {
        shelf.stub(Machine::host(), &("libnvidia-sandboxutils", Number(1), true))?;
    }
    if !state.switches.is_empty() {
        shelf.stub(Machine::host(), &("libnvidia-nscq", Number(2), true))?;
    }
    let file = shelf.folder.join(format!("libnvidia-ml.so.{}", driver.version));
    tree.copy(file, nvml, 0o755)?;
    shelf.links(&("libnvidia-ml", Number(1), true))?;
    if state.layout == Layout::DebianAlternatives {
        alternatives(&shelf)?;
    }
    drawing(&shelf, state.layout)?;
    if Machine::host() == Machine::X86_64 {
        let folder = match state.layout {
            Layout::Debian | Layout::DriverContainer => "usr/lib/i386-linux-gnu".into(),
            Layout::DebianAlternatives => "usr/lib/i386-linux-gnu/nvidia/current".into(),
            Layout::Redhat => "usr/lib".into(),
        };
        let shelf = Shelf { tree, version: &driver.version, folder };
        LIBRARIES_32.iter().try_for_each(|library| shelf.stub(Machine::I386, library))?;
    }
    loader_folders(tree, state.layout)
}

/// Where one architecture's libraries stand.
struct Shelf<'a> {
    tree: &'a Tree,
    version: &'a str,
    folder: PathBuf,
}

impl Shelf<'_> {
    fn soname(&self, (stem, soname, _): &Library) -> String {
        let name = stem.rsplit('/').next().unwrap_or(stem);
        match soname {
            Number(number) => format!("{name}.so.{number}"),
            Version => format!("{name}.so.{}", self.version),
        }
    }

    fn stub(&self, machine: Machine, library: &Library) -> Result<(), NodeError> {
        let bytes = elf::shared_object(machine, &self.soname(library));
        let file = format!("{}.so.{}", library.0, self.version);
        self.tree.file(self.folder.join(file), bytes)?;
        self.links(library)
    }

    fn links(&self, library: &Library) -> Result<(), NodeError> {
        let (stem, soname, development) = library;
        let path = self.folder.join(stem);
        let near = |ending: &str| path.with_file_name(format!("{}{ending}", name(&path)));
        let file = format!("{}.so.{}", name(&path), self.version);
        if matches!(soname, Number(_)) {
            self.tree.link(near("").with_file_name(self.soname(library)), file)?;
        }
        if *development {
            self.tree.link(near(".so"), self.soname(library))?;
        }
        Ok(())
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is beside the libraries for those who draw: EGL's platforms, GBM's backend, and the modules of the X server, each where the
/// distribution has it.
fn drawing(shelf: &Shelf<'_>, layout: Layout) -> Result<(), NodeError> {
    let Shelf { tree, version, folder: own } = shelf;
    // Debian packages the platforms apart from the driver.
    let plain =
        if layout == Layout::DebianAlternatives { folder(Layout::Debian) } else { own.clone() };
    for (stem, version) in PLATFORMS {
        let (soname, file) = (format!("{stem}.so.1"), format!("{stem}.so.{version}"));
        tree.file(plain.join(&file), elf::shared_object(Machine::host(), &soname))?;
        tree.link(plain.join(soname), file)?;
    }
    tree.link(
        plain.join("gbm/nvidia-drm_gbm.so"),
        Path::new("/").join(own).join("libnvidia-allocator.so.1"),
    )?;
    let (driver, extensions) = match layout {
        Layout::Debian | Layout::DriverContainer => {
            (own.join("nvidia/xorg"), own.join("nvidia/xorg"))
        }
        Layout::DebianAlternatives => {
            ("usr/lib/nvidia/current".into(), "usr/lib/nvidia/current".into())
        }
        Layout::Redhat => (own.join("xorg/modules/drivers"), own.join("xorg/modules/extensions")),
    };
    let module = |soname: &str| elf::shared_object(Machine::host(), soname);
    tree.file(driver.join("nvidia_drv.so"), module("nvidia_drv.so"))?;
    let glx = format!("libglxserver_nvidia.so.{version}");
    tree.file(extensions.join(&glx), module("libglxserver_nvidia.so"))?;
    tree.link(extensions.join("libglxserver_nvidia.so"), glx)
}

/// What the loader finds is a link to /etc/alternatives, and from there, both absolute, to the folder of the driver.
fn alternatives(shelf: &Shelf<'_>) -> Result<(), NodeError> {
    let multiarch = folder(Layout::Debian);
    for (prefix, soname) in [
        ("nvidia", "libcuda.so.1"),
        ("nvidia", "libcuda.so"),
        ("nvidia", "libnvidia-ml.so.1"),
        ("nvidia", "libnvidia-cfg.so.1"),
        ("nvidia", "libnvidia-ptxjitcompiler.so.1"),
        ("nvidia", "libnvcuvid.so.1"),
        ("nvidia", "libnvidia-encode.so.1"),
        ("glx", "libGLX_nvidia.so.0"),
    ] {
        let alternative = format!("etc/alternatives/{prefix}--{soname}-{}", name(&multiarch));
        shelf.tree.link(&alternative, Path::new("/").join(&shelf.folder).join(soname))?;
        shelf.tree.link(multiarch.join(soname), Path::new("/").join(&alternative))?;
    }
    Ok(())
}

/// `/etc/ld.so.conf` as the distribution has it.
fn loader_folders(tree: &Tree, layout: Layout) -> Result<(), NodeError> {
    tree.line("etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf")?;
    match layout {
        Layout::Debian | Layout::DebianAlternatives | Layout::DriverContainer => {
            let multiarch = folder(Layout::Debian);
            let text = format!("/lib/{0}\n/{1}", name(&multiarch), multiarch.display());
            tree.line(format!("etc/ld.so.conf.d/{}.conf", name(&multiarch)), text)?;
            if Machine::host() == Machine::X86_64 {
                tree.line("etc/ld.so.conf.d/i386-linux-gnu.conf", "/usr/lib/i386-linux-gnu")?;
            }
            Ok(())
        }
        Layout::Redhat => tree.line("etc/ld.so.conf.d/lib64.conf", "/usr/lib64\n/usr/lib"),
    }
}

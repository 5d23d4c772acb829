//! Which library and which program of the driver belongs to which capability.
//!
//! Decides from names alone. Source: libnvidia-container's nvc_info.c and the package lists of drivers 470 to 595.

use plan::{Capabilities, Capability};

use super::data::DRAWING;

const UTILITY: &[&str] =
    &["libnvidia-ml", "libnvidia-cfg", "libnvidia-nscq", "libnvidia-sandboxutils"];

const COMPUTE: &[&str] = &[
    "libcuda",
    "libcudadebugger",
    "libnvidia-opencl",
    "libnvidia-ptxjitcompiler",
    "libnvidia-fatbinaryloader",
    "libnvidia-compiler",
    "libnvidia-compiler-next",
    "libnvidia-pkcs11",
    "libnvidia-pkcs11-openssl3",
    "libnvidia-nvvm",
    "libnvidia-nvvm70",
    "libnvidia-tileiras",
];

const VIDEO: &[&str] =
    &["libvdpau_nvidia", "libnvcuvid", "libnvidia-encode", "libnvidia-opticalflow"];

/// What draws, whether to a screen or not: `display` is nothing without it.
const GRAPHICS: &[&str] = &[
    "libnvidia-eglcore",
    "libnvidia-glcore",
    "libnvidia-tls",
    "libnvidia-glsi",
    "libnvidia-fbc",
    "libnvidia-ifr",
    "libnvidia-rtcore",
    "libnvidia-glvkspirv",
    "libnvidia-cbl",
    "libnvidia-api",
    "libnvidia-present",
    "libnvidia-vksc-core",
    "libnvidia-vulkan-producer",
    "libnvidia-wayland-client",
    "libnvoptix",
    "libGLX_nvidia",
    "libEGL_nvidia",
    "libGLESv2_nvidia",
    "libGLESv1_CM_nvidia",
];

const DISPLAY: &[&str] = &["libnvidia-gtk2", "libnvidia-gtk3", "libnvidia-wayland"];

const NGX: &[&str] = &["libnvidia-ngx"];

/// Of compute, and needed by what draws: the compiler behind OpenGL and Vulkan, and the backend of GBM.
const DRAWN_WITH: &[&str] = &["libnvidia-gpucomp", "libnvidia-allocator"];

/// Libraries that count their versions apart from the driver's.
const OWN_VERSION: &[&str] = &["libnvidia-nvvm70", "libnvidia-api"];

/// What the EGL platforms begin with; they count their versions apart, too.
const EGL_PLATFORM: &str = "libnvidia-egl-";

/// Names that programs and linkers ask for without a version.
pub(super) const LINKER_NAMES: &[&str] = &[
    "libcuda",
    "libnvidia-ml",
    "libnvcuvid",
    "libnvidia-encode",
    "libnvidia-opticalflow",
    // What libvdpau falls back to when there is none in the image's own folder of backends.
    "libvdpau_nvidia",
];

/// Opened by libcuda under its file name, whatever its SONAME is.
pub(super) const BY_FILE_NAME: &str = "libnvidia-pkcs11";

/// The libraries of which a capability needs one to be anything.
pub(super) const ESSENTIAL: [(Capability, &[&str]); 6] = [
    (Capability::Compute, &["libcuda"]),
    (Capability::Utility, &["libnvidia-ml"]),
    (Capability::Video, &["libnvcuvid", "libnvidia-encode", "libvdpau_nvidia"]),
    (Capability::Graphics, &["libGLX_nvidia", "libEGL_nvidia"]),
    (Capability::Display, &["libGLX_nvidia"]),
    (Capability::Ngx, &["libnvidia-ngx"]),
];

/// Programs.
pub(super) const PROGRAMS: [(&str, Capability); 5] = [
    ("nvidia-smi", Capability::Utility),
    ("nvidia-debugdump", Capability::Utility),
    ("nvidia-persistenced", Capability::Utility),
    ("nvidia-cuda-mps-control", Capability::Compute),
    ("nvidia-cuda-mps-server", Capability::Compute),
];

/// `libcuda` and the rest of `libcuda.so.550.163.01`, if this is a library of the driver of that version.
pub(super) fn stem<'a>(name: &'a str, version: &str) -> Option<&'a str> {
    let (stem, suffix) = name.split_once(".so.")?;
    let counts = suffix.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let ours = suffix == version || (has_own_version(stem) && counts && !suffix.is_empty());
    ours.then_some(stem)
}

/// Whether the file is taken for a link to another unless it is one itself.
pub(super) fn has_own_version(stem: &str) -> bool {
    OWN_VERSION.contains(&stem) || stem.starts_with(EGL_PLATFORM)
}

/// Whether a library belongs to one of these capabilities; one that is not the driver's belongs to none. A helper that is newer than this
/// table goes with compute: libcuda opens its helpers by name and fails without them, and one too many harms nobody.
pub(super) fn is_of(stem: &str, capabilities: &Capabilities) -> bool {
    let table: [(&[&str], &[Capability]); 7] = [
        (UTILITY, &[Capability::Utility]),
        (COMPUTE, &[Capability::Compute]),
        (VIDEO, &[Capability::Video]),
        (GRAPHICS, DRAWING),
        (DISPLAY, &[Capability::Display]),
        (NGX, &[Capability::Ngx]),
        (DRAWN_WITH, &[Capability::Compute, Capability::Graphics, Capability::Display]),
    ];
    let known = table.into_iter().find(|(names, _)| names.contains(&stem));
    let newer = stem.starts_with("libnvidia-") || stem.starts_with("libcuda");
    let of = match known {
        Some((_, of)) => of,
        None if stem.starts_with(EGL_PLATFORM) => DRAWING,
        None if newer => &[Capability::Compute],
        None => &[],
    };
    of.iter().any(|one| capabilities.has(*one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_the_loaded_version_are_told_from_others() {
        let of = |name| stem(name, "550.163.01");
        assert_eq!(of("libcuda.so.550.163.01"), Some("libcuda"));
        assert_eq!(
            of("libnvidia-pkcs11-openssl3.so.550.163.01"),
            Some("libnvidia-pkcs11-openssl3")
        );
        assert_eq!(of("libnvidia-nvvm70.so.4"), Some("libnvidia-nvvm70"));
        assert_eq!(of("libnvidia-egl-wayland.so.1.1.13"), Some("libnvidia-egl-wayland"));
        for other in [
            "libcuda.so.1",
            "libcuda.so",
            "libcuda.so.535.183.01",
            "libcuda.so.550.163.010",
            "libnvidia-nvvm70.so.",
            "libnvidia-nvvm70.so.4.bak",
            "libc.so.6",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn each_library_has_its_capabilities_and_strangers_have_none() {
        for (stem, capabilities) in [
            ("libnvidia-ml", "utility"),
            ("libcuda", "compute"),
            ("libnvidia-nvvm70", "compute"),
            ("libnvidia-encode", "video"),
            ("libvdpau_nvidia", "video"),
            ("libGLX_nvidia", "graphics,display"),
            ("libnvidia-egl-gbm", "graphics,display"),
            ("libnvidia-gpucomp", "compute,graphics,display"),
            ("libnvidia-gtk3", "display"),
            ("libnvidia-ngx", "ngx"),
            ("libnvidia-of-tomorrow", "compute"),
            ("libssl", ""),
        ] {
            let alone = |one: &Capability| is_of(stem, &Capabilities([*one].into()));
            let found: Vec<&str> =
                Capability::ALL.iter().filter(|one| alone(one)).map(|one| one.name()).collect();
            let wanted: Vec<&str> = capabilities.split(',').filter(|one| !one.is_empty()).collect();
            assert_eq!(found.len(), wanted.len(), "{stem}: {found:?}");
            assert!(wanted.iter().all(|one| found.contains(one)), "{stem}: {found:?}");
        }
    }
}

//! Which file of the driver belongs to which capability.
//!
//! Decides from names alone. Source: libnvidia-container's nvc_info.c and the package lists of drivers 470 to 595.

use plan::Capability;

const UTILITY: &[&str] =
    &["libnvidia-ml", "libnvidia-cfg", "libnvidia-nscq", "libnvidia-sandboxutils"];

const COMPUTE: &[&str] = &[
    "libcuda",
    "libcudadebugger",
    "libnvidia-opencl",
    "libnvidia-gpucomp",
    "libnvidia-ptxjitcompiler",
    "libnvidia-fatbinaryloader",
    "libnvidia-allocator",
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

const DISPLAY: &[&str] =
    &["libnvidia-gtk2", "libnvidia-gtk3", "libnvidia-wayland", "libglxserver_nvidia"];

const NGX: &[&str] = &["libnvidia-ngx"];

/// Libraries that count their versions apart from the driver's.
const OWN_VERSION: &[&str] = &["libnvidia-nvvm70"];

/// Names that programs and linkers ask for without a version.
pub(super) const LINKER_NAMES: &[&str] =
    &["libcuda", "libnvidia-ml", "libnvcuvid", "libnvidia-encode", "libnvidia-opticalflow"];

/// Opened by libcuda under its file name, whatever its SONAME is.
pub(super) const BY_FILE_NAME: &str = "libnvidia-pkcs11";

/// The one library that a capability is nothing without.
pub(super) const ESSENTIAL: [(Capability, &str); 2] =
    [(Capability::Compute, "libcuda"), (Capability::Utility, "libnvidia-ml")];

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
    let ours = suffix == version || (OWN_VERSION.contains(&stem) && counts && !suffix.is_empty());
    ours.then_some(stem)
}

/// Whether the file is taken for a link to another unless it is one itself.
pub(super) fn has_own_version(stem: &str) -> bool {
    OWN_VERSION.contains(&stem)
}

/// What a library belongs to; `None` for one that is not the driver's. A helper that is newer than this table goes with compute: libcuda
/// opens its helpers by name and fails without them, and one too many harms nobody.
pub(super) fn capability_of(stem: &str) -> Option<Capability> {
    let table = [
        (UTILITY, Capability::Utility),
        (COMPUTE, Capability::Compute),
        (VIDEO, Capability::Video),
        (GRAPHICS, Capability::Graphics),
        (DISPLAY, Capability::Display),
        (NGX, Capability::Ngx),
    ];
    let known = table.into_iter().find(|(names, _)| names.contains(&stem));
    let newer = stem.starts_with("libnvidia-") || stem.starts_with("libcuda");
    let graphics = stem.starts_with("libnvidia-egl-");
    match known {
        Some((_, capability)) => Some(capability),
        None if graphics => Some(Capability::Graphics),
        None => newer.then_some(Capability::Compute),
    }
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
    fn each_library_has_one_capability_and_strangers_have_none() {
        for (stem, capability) in [
            ("libnvidia-ml", Some(Capability::Utility)),
            ("libcuda", Some(Capability::Compute)),
            ("libnvidia-nvvm70", Some(Capability::Compute)),
            ("libnvidia-encode", Some(Capability::Video)),
            ("libGLX_nvidia", Some(Capability::Graphics)),
            ("libnvidia-egl-gbm", Some(Capability::Graphics)),
            ("libnvidia-ngx", Some(Capability::Ngx)),
            ("libnvidia-of-tomorrow", Some(Capability::Compute)),
            ("libssl", None),
        ] {
            assert_eq!(capability_of(stem), capability, "{stem}");
        }
    }
}

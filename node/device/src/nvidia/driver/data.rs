//! Files of the driver that are no libraries and no programs: what tells the loaders of OpenCL, Vulkan and EGL which libraries there are, what
//! libraries read, and the modules of the X server.
//!
//! Decides from names alone where each is looked for and what it belongs to. All of them are best-effort: nodes have few of them or none.

use plan::{Capabilities, Capability};

/// Where they are; in a container each has the place where it was found.
pub(super) const BASES: [&str; 2] = ["/usr/share", "/etc"];

/// A family of them: the folder below one of [`BASES`], and what their names begin with and end in.
pub(super) struct Data {
    pub(super) folder: &'static str,
    starts: &'static str,
    ends: &'static str,
    of: &'static [Capability],
}

pub(super) const DRAWING: &[Capability] = &[Capability::Graphics, Capability::Display];

/// Names are those of NVIDIA's installer, and those of distributions, which put a number before or a machine behind.
pub(super) const DATA: [Data; 9] = [
    Data { folder: "OpenCL/vendors", starts: "nvidia", ends: ".icd", of: &[Capability::Compute] },
    Data { folder: "vulkan/icd.d", starts: "nvidia_icd", ends: ".json", of: DRAWING },
    Data { folder: "vulkan/implicit_layer.d", starts: "nvidia_layers", ends: ".json", of: DRAWING },
    Data { folder: "vulkansc/icd.d", starts: "nvidia_icd", ends: ".json", of: DRAWING },
    Data { folder: "glvnd/egl_vendor.d", starts: "10_nvidia", ends: ".json", of: DRAWING },
    Data { folder: "egl/egl_external_platform.d", starts: "", ends: ".json", of: DRAWING },
    Data { folder: "nvidia", starts: "nvoptix", ends: ".bin", of: DRAWING },
    Data { folder: "nvidia", starts: "nvidia-application-profiles-", ends: "-rc", of: DRAWING },
    Data {
        folder: "nvidia",
        starts: "nvidia-application-profiles-",
        ends: "-key-documentation",
        of: DRAWING,
    },
];

impl Data {
    /// Whether containers with these capabilities get any of it.
    pub(super) fn is_for(&self, capabilities: &Capabilities) -> bool {
        self.of.iter().any(|one| capabilities.has(*one))
    }

    /// Whether a file of this name is one of them, with these capabilities and this version of the driver.
    pub(super) fn has(&self, name: &str, capabilities: &Capabilities, version: &str) -> bool {
        let middle = name.strip_prefix(self.starts).and_then(|rest| rest.strip_suffix(self.ends));
        let Some(middle) = middle else { return false };
        match self.folder {
            "nvidia" => middle.is_empty() || middle == version,
            _ if middle.ends_with(".i686") => capabilities.has(Capability::Compat32),
            // Others have their platforms in the same folder.
            _ => name.contains("nvidia"),
        }
    }
}

/// The folder of the X server's modules below the libraries', and its modules: the driver, and its side of GLX.
pub(super) const X_MODULES: &str = "xorg/modules";
pub(super) const X_DRIVER: &str = "nvidia_drv.so";
pub(super) const X_GLX: &str = "libglxserver_nvidia.so";

/// Where they are below a folder of libraries: as the X server has them, as Ubuntu has them, as Debian has them.
pub(super) const X_FOLDERS: [&str; 4] =
    ["xorg/modules/drivers", "xorg/modules/extensions", "nvidia/xorg", "nvidia/current"];

/// Where images' X servers look for their modules.
pub(super) const X_SERVERS: [&str; 2] = ["/usr/lib/xorg/modules", "/usr/lib64/xorg/modules"];

/// The backend of GBM: what it is called below a directory of libraries, and the library that it is.
pub(super) const GBM: &str = "gbm/nvidia-drm_gbm.so";
pub(super) const GBM_LIBRARY: &str = "libnvidia-allocator.so.1";

/// The directories of the C library's own search, of Debian's kind and of Red Hat's. An image has the one or the other.
pub(super) const LOADER_DIRS: [&str; 2] = if cfg!(target_arch = "aarch64") {
    ["/usr/lib/aarch64-linux-gnu", "/usr/lib64"]
} else {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"]
};

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, capabilities: &str) -> bool {
        let capabilities = capabilities.parse().expect("names");
        let (folder, name) = path.rsplit_once('/').expect("in a folder");
        let mut all = DATA.iter().filter(|data| data.folder == folder);
        all.any(|data| data.is_for(&capabilities) && data.has(name, &capabilities, "550.163.01"))
    }

    #[test]
    fn names_of_installers_and_distributions_are_known() {
        for name in [
            "vulkan/icd.d/nvidia_icd.json",
            "vulkan/icd.d/nvidia_icd.x86_64.json",
            "vulkan/implicit_layer.d/nvidia_layers.json",
            "glvnd/egl_vendor.d/10_nvidia.json",
            "egl/egl_external_platform.d/15_nvidia_gbm.json",
            "nvidia/nvoptix.bin",
            "nvidia/nvidia-application-profiles-550.163.01-rc",
            "nvidia/nvidia-application-profiles-550.163.01-key-documentation",
        ] {
            assert!(of(name, "graphics") && of(name, "display"), "{name}");
            assert!(!of(name, "compute,utility,video,ngx"), "{name}");
        }
        assert!(of("OpenCL/vendors/nvidia.icd", "compute"));
        assert!(!of("OpenCL/vendors/nvidia.icd", "utility,graphics"));
    }

    #[test]
    fn files_of_others_versions_and_widths_are_left() {
        for name in [
            "vulkan/icd.d/intel_icd.json",
            "vulkan/icd.d/nvidia_icd.json.bak",
            "vulkan/icd.d/nvidia_icd.i686.json",
            "glvnd/egl_vendor.d/50_mesa.json",
            "egl/egl_external_platform.d/09_other_wayland.json",
            "nvidia/nvidia-application-profiles-535.183.01-rc",
            "nvidia/monitoring.conf",
        ] {
            assert!(!of(name, "graphics,display"), "{name}");
        }
        assert!(of("vulkan/icd.d/nvidia_icd.i686.json", "graphics,compat32"));
    }
}

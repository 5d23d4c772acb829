//! The driver's files that are neither libraries nor programs: what tells the loaders of OpenCL, Vulkan and EGL of its libraries.

use crate::error::NodeError;
use crate::layout::Layout;
use crate::state::{Driver, State};

use super::write::Tree;

const OPENCL: &str = "etc/OpenCL/vendors/nvidia.icd";
const VULKAN: &str = r#"{"file_format_version": "1.0.1", "ICD": {"library_path": "libGLX_nvidia.so.0", "api_version": "1.3.277"}}"#;
const LAYERS: &str = r#"{"file_format_version": "1.0.0", "layer": {"name": "VK_LAYER_NV_optimus", "type": "INSTANCE", "library_path": "libGLX_nvidia.so.0"}}"#;
const EGL: &str =
    r#"{"file_format_version": "1.0.0", "ICD": {"library_path": "libEGL_nvidia.so.0"}}"#;
const WAYLAND: &str =
    r#"{"file_format_version": "1.0.0", "ICD": {"library_path": "libnvidia-egl-wayland.so.1"}}"#;
const GBM: &str =
    r#"{"file_format_version": "1.0.0", "ICD": {"library_path": "libnvidia-egl-gbm.so.1"}}"#;

pub(super) fn write(tree: &Tree, state: &State, driver: &Driver) -> Result<(), NodeError> {
    tree.line(OPENCL, "libnvidia-opencl.so.1")?;
    // With packages for two widths each has a file of its own.
    let icds: &[&str] = match state.layout {
        Layout::Redhat => &["nvidia_icd.x86_64.json", "nvidia_icd.i686.json"],
        _ => &["nvidia_icd.json"],
    };
    for name in icds {
        tree.line(format!("usr/share/vulkan/icd.d/{name}"), VULKAN)?;
    }
    let profiles = format!("nvidia/nvidia-application-profiles-{}", driver.version);
    for (path, text) in [
        ("vulkan/implicit_layer.d/nvidia_layers.json", LAYERS),
        ("glvnd/egl_vendor.d/10_nvidia.json", EGL),
        ("egl/egl_external_platform.d/10_nvidia_wayland.json", WAYLAND),
        ("egl/egl_external_platform.d/15_nvidia_gbm.json", GBM),
        ("nvidia/nvoptix.bin", "simulated"),
        (&format!("{profiles}-rc"), "{}"),
        (&format!("{profiles}-key-documentation"), "{}"),
        // Another's, which no container of Berth's is to get.
        ("glvnd/egl_vendor.d/50_mesa.json", EGL),
    ] {
        tree.line(format!("usr/share/{path}"), text)?;
    }
    Ok(())
}

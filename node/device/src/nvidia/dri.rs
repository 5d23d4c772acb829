//! What a GPU has in `/dev/dri`: the nodes that programs draw by without CUDA.
//!
//! Decides which are whose, by PCI address, since their numbers follow the order in which drivers were loaded. A GPU has some while
//! `nvidia-drm` is loaded; nobody is refused for want of them.

use plan::Gpu;

use super::nodes::Wanted;
use crate::error::DeviceError;
use crate::{Host, keep};

/// Names of such nodes: one that may show things on screens, one that only renders.
const KINDS: [&str; 2] = ["card", "renderD"];

/// The nodes of these GPUs.
///
/// # Errors
/// When the kernel's list of them cannot be read, or says something else.
pub(super) fn wanted(host: &Host, gpus: &[&Gpu]) -> Result<Vec<Wanted>, DeviceError> {
    let mut wanted = Vec::new();
    // Of a GPU in MIG mode they would be all of it.
    for gpu in gpus.iter().filter(|gpu| !gpu.mig) {
        let folder = host.path(&format!("/sys/bus/pci/devices/{}/drm", gpu.pci));
        // Not the connectors that stand beside them.
        let is_node = |name: &&String| KINDS.iter().any(|kind| keep::is_numbered(name, kind));
        for name in keep::names(&folder)?.iter().filter(is_node) {
            let path = folder.join(name).join("dev");
            let text = keep::read_text(&path)?;
            let number = text.trim().split_once(':');
            let number = number.and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
            let (major, minor) = number.ok_or_else(|| DeviceError::Malformed {
                path,
                how: format!("holds {:?}, which is no device number", text.trim()),
            })?;
            wanted.push(Wanted { name: format!("dri/{name}"), major, minor, mode: 0o660 });
        }
    }
    Ok(wanted)
}

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
        for name in keep::names(&folder)?.iter().filter(|name| is_node(name)) {
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

/// `card1`, `renderD129`; not the connectors that stand beside them.
fn is_node(name: &str) -> bool {
    let number = KINDS.iter().find_map(|kind| name.strip_prefix(kind));
    number.is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

//! What a driver library inside a container can learn of the node's MIG devices.
//!
//! The real one asks the kernel. Here a container has no way to the state file; but the library's own file is the node's (a hard
//! link, a lower layer of the root, a mount), and what stands in an extended attribute of a file can be read through each of them.
//! A *copy* of the library has no attribute, and then knows no MIG devices.

use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;

use super::{ComputeInstance, GpuInstance, Placement, uuid_text};
use crate::error::{At, NodeError};
use crate::state::State;

const NAME: &str = "user.simnode.mig";
/// Nine numbers and a UUID: an attribute holds little.
const ENTRY: usize = 9 + 16;

/// One MIG device: the minor of its GPU, and a GPU instance with a single compute instance.
pub(crate) type Entry = (u32, GpuInstance);

/// Writes down the MIG devices of `state` at the driver library. A file system without attributes keeps none.
pub(crate) fn write(library: &Path, state: &State) -> Result<(), NodeError> {
    let devices = state.gpus.iter().flat_map(|gpu| gpu.mig_devices());
    let bytes: Vec<u8> = devices
        .flat_map(|device| {
            let (instance, compute) = (device.instance, device.compute);
            let numbers = [
                device.gpu.minor,
                instance.id,
                instance.profile,
                instance.placement.start,
                instance.placement.size,
                compute.id,
                compute.profile,
                compute.placement.start,
                compute.placement.size,
            ];
            let numbers = numbers.map(|number| u8::try_from(number).unwrap_or(u8::MAX));
            numbers.into_iter().chain(uuid_bytes(&compute.uuid))
        })
        .collect();
    match setxattr(library, NAME, &bytes, XattrFlags::empty()) {
        Ok(()) | Err(Errno::NOTSUP | Errno::NOENT) => Ok(()),
        Err(errno) => Err(std::io::Error::from(errno)).at("keep the MIG devices at", library),
    }
}

/// The MIG devices that are written down at the driver library.
pub(crate) fn read(library: &Path) -> Vec<Entry> {
    let mut buffer = [0_u8; 4096];
    let length = getxattr(library, NAME, &mut buffer[..]).unwrap_or(0);
    let entry = |(index, bytes): (usize, &[u8])| {
        let number = |place: usize| u32::from(bytes[place]);
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[9..]);
        // Handles tell instances apart by these: any will do that are not the same.
        let serial = index as u64 + 1;
        let compute = ComputeInstance {
            serial,
            id: number(5),
            profile: number(6),
            placement: Placement { start: number(7), size: number(8) },
            uuid: uuid_text(uuid),
        };
        let instance = GpuInstance {
            serial,
            id: number(1),
            profile: number(2),
            placement: Placement { start: number(3), size: number(4) },
            compute: vec![compute],
        };
        (number(0), instance)
    };
    buffer[..length].chunks_exact(ENTRY).enumerate().map(entry).collect()
}

fn uuid_bytes(text: &str) -> [u8; 16] {
    let hex: Vec<u8> = text.bytes().skip(4).filter(u8::is_ascii_hexdigit).collect();
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or("00");
        *byte = u8::from_str_radix(pair, 16).unwrap_or(0);
    }
    bytes
}

//! Handles: `nvmlDevice_t`, `nvmlGpuInstance_t` and `nvmlComputeInstance_t`.
//!
//! Each is a pointer that nobody follows: what it is of stands in its bits. So it needs no table, means the same as long as the
//! process lives, and what was never a handle, or is the handle of something else, is known for it.

use std::ffi::c_void;
use std::ptr;

/// No address of a process on x86-64 or arm64 has such high bits.
const MARK: usize = 0x5e00;

/// What a handle is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gpu = 1,
    MigDevice = 2,
    GpuInstance = 3,
    ComputeInstance = 4,
}

/// The bits: what it is of (16), index of the GPU (8), serial number of the instance (40).
fn handle(kind: Kind, gpu: usize, serial: u64) -> *const c_void {
    let serial = usize::try_from(serial & 0xff_ffff_ffff).unwrap_or(0);
    ptr::without_provenance((MARK | kind as usize) << 48 | (gpu & 0xff) << 40 | serial)
}

fn read(handle: *const c_void, kind: Kind) -> Option<(usize, u64)> {
    let bits = handle.addr();
    (bits >> 48 == MARK | kind as usize)
        .then_some((bits >> 40 & 0xff, (bits & 0xff_ffff_ffff) as u64))
}

/// `nvmlDevice_t`: a GPU, or a MIG device.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Device(*const c_void);

impl Device {
    /// That of the GPU at `index`.
    pub fn at(index: usize) -> Self {
        Self(handle(Kind::Gpu, index, 0))
    }

    /// That of a MIG device, by the serial number of its compute instance.
    pub fn mig(gpu: usize, serial: u64) -> Self {
        Self(handle(Kind::MigDevice, gpu, serial))
    }

    /// The index of the GPU, or of the one that the MIG device is on; none for null and for what was never a handle.
    pub fn index(self) -> Option<usize> {
        read(self.0, Kind::Gpu).or_else(|| read(self.0, Kind::MigDevice)).map(|(index, _)| index)
    }

    /// The serial number of the compute instance, of a MIG device.
    pub fn serial(self) -> Option<u64> {
        read(self.0, Kind::MigDevice).map(|(_, serial)| serial)
    }
}

macro_rules! instances {
    ($($(#[$doc:meta])* $name:ident, $kind:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub struct $name(*const c_void);

        impl $name {
            /// That of the instance with this serial number.
            pub fn of(gpu: usize, serial: u64) -> Self {
                Self(handle($kind, gpu, serial))
            }

            /// The index of its GPU, and its serial number.
            pub fn read(self) -> Option<(usize, u64)> {
                read(self.0, $kind)
            }
        }
    )*};
}

instances! {
    /// `nvmlGpuInstance_t`.
    Instance, Kind::GpuInstance;
    /// `nvmlComputeInstance_t`.
    Compute, Kind::ComputeInstance;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_says_what_it_is_of_and_nothing_else_is_one() {
        assert_eq!((Device::at(7).index(), Device::at(7).serial()), (Some(7), None));
        assert_eq!((Device::mig(3, 9).index(), Device::mig(3, 9).serial()), (Some(3), Some(9)));
        assert_eq!(Instance::of(1, 2).read(), Some((1, 2)));
        assert_eq!(Compute(Instance::of(1, 2).0).read(), None);
        let place = 0_u8;
        for other in [ptr::null(), ptr::from_ref(&place).cast(), Instance::of(1, 2).0] {
            assert_eq!(Device(other).index(), None);
        }
    }
}

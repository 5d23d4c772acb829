//! Which C library an image is built on, by the names of its loaders.
//!
//! Decides that alone; what follows from it (musl reads no loader cache) is the caller's.

#![forbid(unsafe_code)]

use super::Arch;
use crate::rootfs::{Kind, Root};

/// The C library of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    /// GNU's: its loader reads `/etc/ld.so.cache`.
    Glibc,
    /// musl (Alpine): its loader knows neither that cache nor the driver's libraries, which are built for glibc.
    Musl,
    /// Neither loader stands where it should: static programs only, or an unusual layout.
    Unknown,
}

/// Where musl's loader is on this machine's images.
pub const MUSL_LOADER: &str = match Arch::NATIVE {
    Arch::X86_64 => "/lib/ld-musl-x86_64.so.1",
    Arch::Aarch64 => "/lib/ld-musl-aarch64.so.1",
};

/// The C library of the image with this root. A name that cannot be looked at counts as not there.
///
/// With both loaders there (musl's development package on Debian, gcompat on Alpine) the one counts that the
/// distribution is built on: Alpine alone has its C library under the name `libc.musl-*.so.1`.
pub fn libc_of(root: &Root) -> Libc {
    let machine = Arch::NATIVE.name();
    let glibc = match Arch::NATIVE {
        Arch::X86_64 => "ld-linux-x86-64.so.2",
        Arch::Aarch64 => "ld-linux-aarch64.so.1",
    };
    if stands(root, &["/lib", "/usr/lib"], &format!("libc.musl-{machine}.so.1")) {
        return Libc::Musl;
    }
    if stands(root, &["/lib64", "/lib", "/usr/lib64", "/usr/lib"], glibc) {
        return Libc::Glibc;
    }
    if stands(root, &["/lib", "/usr/lib"], &format!("ld-musl-{machine}.so.1")) {
        return Libc::Musl;
    }
    Libc::Unknown
}

/// Whether one of these directories has the name, whatever it is a link to.
fn stands(root: &Root, directories: &[&str], name: &str) -> bool {
    directories.iter().any(|directory| {
        root.kind(&format!("{directory}/{name}")).is_ok_and(|kind| kind != Kind::Absent)
    })
}

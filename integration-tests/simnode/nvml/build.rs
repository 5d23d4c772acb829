//! How the simulated driver library and `nvidia-smi` are linked: the library with the real one's SONAME, and both needing no
//! more than the C library, as the real ones.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");
    // A node holds a copy of each; nobody debugs them there.
    println!("cargo:rustc-link-arg=-Wl,--strip-debug");
    // Rust links libgcc_s, which an image that has no more than the C library does not hold. The linker finds this
    // script first and takes the static one.
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(folder.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n").expect("a linker script");
    println!("cargo:rustc-cdylib-link-arg=-L{}", folder.display());
    println!("cargo:rustc-link-arg-bin=nvidia-smi=-L{}", folder.display());
    println!("cargo:rerun-if-changed=build.rs");
}

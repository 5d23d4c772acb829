//! A node made of files, for tests: what the driver of eight GPUs shows, as captured from real machines.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plan::{CudaVersion, Driver, Gpu, Mib};
use tempfile::TempDir;

use crate::{Host, Tool};

pub(crate) const VERSION: &str = "550.163.01";

const VERSION_FILE: &str = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.163.01  Release Build  (dvs-builder@U16)  Tue Apr  8 12:41:17 UTC 2025\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";

/// Captured from a p5; numbers of dynamic majors differ from boot to boot.
pub(crate) const DEVICES: &str = "Character devices:\n  1 mem\n  5 /dev/tty\n 10 misc\n195 nvidia\n195 nvidiactl\n234 nvidia-nvswitch\n235 nvidia-caps-imex-channels\n236 nvidia-caps\n509 nvidia-uvm\n\nBlock devices:\n  7 loop\n259 blkext\n510 nvidia-uvm\n";

pub(crate) struct Fake {
    pub(crate) dir: TempDir,
    pub(crate) host: Host,
}

impl Fake {
    /// A node without the driver.
    pub(crate) fn bare() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let host = Host {
            root: dir.path().join("root"),
            driver_root: "/".into(),
            nvml: "libnvidia-ml.so.1".into(),
            run: dir.path().join("run"),
            state: dir.path().join("state"),
        };
        let fake = Self { dir, host };
        fake.write("/proc/sys/kernel/random/boot_id", "6f0c1c3e-93c5-4b3a-8a52-0a3b1f3c5d7e\n");
        fake.write("/proc/devices", DEVICES);
        fake
    }

    /// A node with the driver and two GPUs.
    pub(crate) fn new() -> Self {
        let fake = Self::bare();
        fake.write("/proc/driver/nvidia/version", VERSION_FILE);
        fake.write("/proc/driver/nvidia/registry", "Binary: \"\"\n");
        fake.write(
            "/proc/driver/nvidia/params",
            "ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileMode: 438\n",
        );
        for gpu in [gpu(0), gpu(1)] {
            let folder = format!("/proc/driver/nvidia/gpus/{}", gpu.pci);
            let text = format!("Model: \t\t {}\nGPU UUID: \t {}\n", gpu.model, gpu.uuid);
            fake.write(&format!("{folder}/information"), &text);
            fake.write(&format!("{folder}/registry"), "Binary: \"\"\n");
        }
        fs::create_dir_all(fake.host.path("/sys/module/nvidia")).expect("made");
        fake
    }

    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.host.path(path);
        fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.host.path(path);
        fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
        symlink(target, path).expect("linked");
    }

    /// A library of the driver.
    pub(crate) fn library(&self, path: &str, soname: &str) {
        self.write(path, elf(Some(soname)));
    }

    /// A library of the driver for 32-bit programs.
    pub(crate) fn library_of_32_bits(&self, path: &str, soname: &str) {
        self.write(path, elf_of_32_bits(soname));
    }

    /// A stand-in for `berth`.
    pub(crate) fn tool(&self, script: &str) -> Tool {
        Tool {
            program: program(self.dir.path(), script),
            config: None,
            deadline: Duration::from_secs(60),
        }
    }
}

/// A shell script as a program.
pub(crate) fn program(dir: &Path, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("tool");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("allowed");
    path
}

pub(crate) fn driver() -> Driver {
    Driver { version: VERSION.to_owned(), cuda: CudaVersion { major: 12, minor: 4 } }
}

pub(crate) fn gpu(index: u8) -> Gpu {
    Gpu {
        index: index.into(),
        uuid: format!("GPU-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c{index:02x}").parse().expect("a UUID"),
        pci: format!("0000:{:02x}:00.0", 0x53 + index).parse().expect("an address"),
        minor: index.into(),
        model: "NVIDIA H100 80GB HBM3".into(),
        brand: "nvidia".into(),
        compute_capability: CudaVersion { major: 9, minor: 0 },
        memory: Mib(81_559),
        numa_node: Some(0),
        mig: false,
        mig_capable: false,
        profiles: Vec::new(),
        instances: Vec::new(),
        peers: BTreeMap::new(),
    }
}

/// The smallest shared library: a header, two segments, a dynamic section, its strings.
pub(crate) fn elf(soname: Option<&str>) -> Vec<u8> {
    const SEGMENTS: u64 = 64;
    const DYNAMIC: u64 = SEGMENTS + 2 * 56;
    const STRINGS: u64 = DYNAMIC + 3 * 16;
    const ADDRESS: u64 = 0x1000;
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let strings = format!("\0{}\0", soname.unwrap_or_default());
    let length = STRINGS + strings.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |bytes: &mut Vec<u8>, values: &[u16]| {
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    };
    let word = |bytes: &mut Vec<u8>, values: &[u64]| {
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    };
    half(&mut bytes, &[3, machine, 1, 0]);
    word(&mut bytes, &[0, SEGMENTS, 0]);
    half(&mut bytes, &[0, 0, 64, 56, 2, 0, 0, 0]);
    // Kind and flags share a word: PT_LOAD and PT_DYNAMIC, readable.
    word(&mut bytes, &[1 | 4 << 32, 0, ADDRESS, ADDRESS, length, length, 0x1000]);
    word(&mut bytes, &[2 | 4 << 32, DYNAMIC, ADDRESS + DYNAMIC, ADDRESS + DYNAMIC, 48, 48, 8]);
    let name = if soname.is_some() { 14 } else { 21 };
    word(&mut bytes, &[name, 1, 5, ADDRESS + STRINGS, 0, 0]);
    bytes.extend(strings.as_bytes());
    bytes
}

/// The same for 32-bit programs.
pub(crate) fn elf_of_32_bits(soname: &str) -> Vec<u8> {
    const SEGMENTS: u32 = 52;
    const DYNAMIC: u32 = SEGMENTS + 2 * 32;
    const STRINGS: u32 = DYNAMIC + 3 * 8;
    const ADDRESS: u32 = 0x1000;
    let machine: u32 = if cfg!(target_arch = "aarch64") { 40 } else { 3 };
    let strings = format!("\0{soname}\0");
    let length = STRINGS + u32::try_from(strings.len()).expect("a short name");
    let mut bytes = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // Kind and machine share a word, as do the sizes and numbers at the end of the header.
    let header = [3 | machine << 16, 1, 0, SEGMENTS, 0, 0, 52 | 32 << 16, 2, 0];
    let load = [1, 0, ADDRESS, ADDRESS, length, length, 4, 0x1000];
    let dynamic = [2, DYNAMIC, ADDRESS + DYNAMIC, ADDRESS + DYNAMIC, 24, 24, 4, 4];
    let entries = [14, 1, 5, ADDRESS + STRINGS, 0, 0];
    let words = header.iter().chain(&load).chain(&dynamic).chain(&entries);
    words.for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes.extend(strings.as_bytes());
    bytes
}

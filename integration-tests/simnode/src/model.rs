//! The GPUs that a node can have: what is the same for every card of a kind.
//!
//! Figures as nvidia-smi, lspci and the MIG user guide give them; memory is what `nvidia-smi` shows as the total.

use crate::mig::profile::GpuProfile;
use crate::mig::tables;

/// One kind of GPU.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// The product name.
    pub name: &'static str,
    /// PCI device id (the vendor is 10de).
    pub device_id: u16,
    /// PCI subsystem device id (the vendor is 10de).
    pub subsystem_id: u16,
    /// Total memory, MiB.
    pub memory: u64,
    /// What the driver keeps of it, MiB.
    pub reserved: u64,
    /// CUDA compute capability.
    pub compute: (i32, i32),
    /// `NVML_DEVICE_ARCH_…`.
    pub architecture: u32,
    /// CUDA cores.
    pub cores: u32,
    /// What MIG instances it can be cut into; none where it has no MIG.
    pub profiles: &'static [GpuProfile],
    /// Number and version of its NVLinks; 0 links: it has none.
    pub nvlinks: (u32, u32),
    /// Power limit, watts.
    pub watts: u32,
    /// Memory bus width, bits.
    pub bus_width: u32,
    /// PCIe generation and width.
    pub pcie: (u32, u32),
    /// BAR1, MiB.
    pub bar1: u64,
    /// Highest SM and memory clocks, MHz.
    pub clocks: (u32, u32),
    /// VBIOS version.
    pub vbios: &'static str,
    /// Board part number.
    pub part: &'static str,
    /// Fans of its own.
    pub fans: u32,
}

/// All of them.
pub static MODELS: &[Model] = &[
    A100_SXM4_40,
    A100_SXM4_80,
    H100_SXM,
    H200,
    B200,
    GB200,
    H100_PCIE,
    A30,
    RTX_PRO_6000,
    L40S,
    T4,
];

/// The one with this product name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.name == name)
}

/// p4d's.
pub const A100_SXM4_40: Model = Model {
    name: "NVIDIA A100-SXM4-40GB",
    device_id: 0x20b0,
    subsystem_id: 0x134f,
    memory: 40960,
    reserved: 446,
    compute: (8, 0),
    architecture: 7,
    cores: 6912,
    profiles: &tables::A100_40,
    nvlinks: (12, 3),
    watts: 400,
    bus_width: 5120,
    pcie: (4, 16),
    bar1: 65536,
    clocks: (1410, 1215),
    vbios: "92.00.45.00.03",
    part: "692-2G506-0200-003",
    fans: 0,
};

/// p4de's.
pub const A100_SXM4_80: Model = Model {
    name: "NVIDIA A100-SXM4-80GB",
    device_id: 0x20b2,
    subsystem_id: 0x1463,
    memory: 81920,
    reserved: 654,
    profiles: &tables::A100_80,
    bar1: 131_072,
    clocks: (1410, 1593),
    vbios: "92.00.9E.00.05",
    part: "692-2G506-0210-003",
    ..A100_SXM4_40
};

/// p5's.
pub const H100_SXM: Model = Model {
    name: "NVIDIA H100 80GB HBM3",
    device_id: 0x2330,
    subsystem_id: 0x16c1,
    memory: 81559,
    reserved: 551,
    compute: (9, 0),
    architecture: 9,
    cores: 16896,
    profiles: &tables::H100_80,
    nvlinks: (18, 4),
    watts: 700,
    bus_width: 5120,
    pcie: (5, 16),
    bar1: 131_072,
    clocks: (1980, 2619),
    vbios: "96.00.89.00.01",
    part: "692-2G520-0200-000",
    fans: 0,
};

/// As H100, with more memory.
pub const H200: Model = Model {
    name: "NVIDIA H200",
    device_id: 0x2335,
    subsystem_id: 0x18be,
    memory: 143_771,
    reserved: 612,
    bus_width: 6144,
    bar1: 262_144,
    clocks: (1980, 3201),
    vbios: "96.00.BC.00.01",
    part: "692-2G520-0280-000",
    profiles: &tables::H200,
    ..H100_SXM
};

/// p6's.
pub const B200: Model = Model {
    name: "NVIDIA B200",
    device_id: 0x2901,
    subsystem_id: 0x1999,
    memory: 183_359,
    reserved: 577,
    compute: (10, 0),
    architecture: 10,
    cores: 18944,
    profiles: &tables::B200,
    nvlinks: (18, 5),
    watts: 1000,
    bus_width: 8192,
    pcie: (5, 16),
    bar1: 262_144,
    clocks: (1965, 3996),
    vbios: "97.00.88.00.0F",
    part: "692-2G525-0225-000",
    fans: 0,
};

/// Grace Blackwell's.
pub const GB200: Model = Model {
    name: "NVIDIA GB200",
    device_id: 0x2941,
    subsystem_id: 0x2046,
    memory: 189_471,
    reserved: 602,
    watts: 1200,
    clocks: (2062, 3996),
    vbios: "97.00.B9.00.69",
    part: "692-2G548-0200-000",
    profiles: &tables::GB200,
    ..B200
};

/// A card of its own, without a partner on its NVLink bridges.
pub const H100_PCIE: Model = Model {
    name: "NVIDIA H100 PCIe",
    device_id: 0x2331,
    subsystem_id: 0x1626,
    cores: 14592,
    watts: 350,
    nvlinks: (12, 4),
    clocks: (1755, 1593),
    vbios: "96.00.74.00.01",
    part: "900-21010-0000-000",
    profiles: &tables::H100_PCIE,
    ..H100_SXM
};

/// A card with an NVLink bridge to one partner.
pub const A30: Model = Model {
    name: "NVIDIA A30",
    device_id: 0x20b7,
    subsystem_id: 0x1532,
    memory: 24576,
    reserved: 416,
    cores: 3584,
    nvlinks: (4, 3),
    watts: 165,
    bus_width: 3072,
    bar1: 32768,
    clocks: (1440, 1215),
    vbios: "92.00.66.00.0A",
    part: "900-21001-0040-000",
    profiles: &tables::A30,
    ..A100_SXM4_40
};

/// MIG without NVLink, and with twelve memory slices.
pub const RTX_PRO_6000: Model = Model {
    name: "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    device_id: 0x2bb5,
    subsystem_id: 0x204e,
    memory: 97887,
    reserved: 636,
    compute: (12, 0),
    architecture: 10,
    cores: 24064,
    profiles: &tables::RTX_PRO_6000,
    nvlinks: (0, 0),
    watts: 600,
    bus_width: 512,
    pcie: (5, 16),
    bar1: 131_072,
    clocks: (2430, 12481),
    vbios: "98.02.81.00.07",
    part: "900-2G153-0000-000",
    fans: 0,
};

/// Neither MIG nor NVLink.
pub const L40S: Model = Model {
    name: "NVIDIA L40S",
    device_id: 0x26b9,
    subsystem_id: 0x1851,
    memory: 46068,
    reserved: 606,
    compute: (8, 9),
    architecture: 8,
    cores: 18176,
    profiles: &[],
    nvlinks: (0, 0),
    watts: 350,
    bus_width: 384,
    pcie: (4, 16),
    bar1: 65536,
    clocks: (2520, 9001),
    vbios: "95.02.66.00.02",
    part: "900-2G133-0080-000",
    fans: 0,
};

/// Neither MIG nor NVLink, and old.
pub const T4: Model = Model {
    name: "Tesla T4",
    device_id: 0x1eb8,
    subsystem_id: 0x12a2,
    memory: 15360,
    reserved: 247,
    compute: (7, 5),
    architecture: 6,
    cores: 2560,
    profiles: &[],
    nvlinks: (0, 0),
    watts: 70,
    bus_width: 256,
    pcie: (3, 16),
    bar1: 256,
    clocks: (1590, 5001),
    vbios: "90.04.96.00.02",
    part: "900-2G183-0000-001",
    fans: 0,
};

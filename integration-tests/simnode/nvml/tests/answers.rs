//! What nvml-wrapper, which Berth's observer uses, gets from the library on each machine.
//!
//! The figures stand here a second time on purpose, as nvidia-smi shows them on real machines.

mod lab;

use std::collections::BTreeSet;

use lab::Lab;
use nvml_wrapper::enum_wrappers::device::{
    Brand, Clock, ComputeMode, TemperatureSensor, TopologyLevel,
};
use nvml_wrapper::enums::device::{BusType, DeviceArchitecture};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

/// Profile, driver, GPUs, name, MiB, compute capability, architecture, MIG, links that are up.
type Machine = (
    &'static str,
    &'static str,
    u32,
    &'static str,
    u64,
    (i32, i32),
    DeviceArchitecture,
    bool,
    usize,
);

use DeviceArchitecture::{Ada, Ampere, Blackwell, Hopper, Turing};

const MACHINES: [Machine; 9] = [
    ("p4d", "550.163.01", 8, "NVIDIA A100-SXM4-40GB", 40960, (8, 0), Ampere, true, 12),
    ("p5", "550.163.01", 8, "NVIDIA H100 80GB HBM3", 81559, (9, 0), Hopper, true, 18),
    ("h200", "550.163.01", 8, "NVIDIA H200", 143_771, (9, 0), Hopper, true, 18),
    ("b200", "570.172.08", 8, "NVIDIA B200", 183_359, (10, 0), Blackwell, true, 18),
    ("a30", "535.261.03", 4, "NVIDIA A30", 24576, (8, 0), Ampere, true, 4),
    ("l40s", "550.163.01", 4, "NVIDIA L40S", 46068, (8, 9), Ada, false, 0),
    ("t4", "535.261.03", 4, "Tesla T4", 15360, (7, 5), Turing, false, 0),
    ("gb200", "570.172.08", 4, "NVIDIA GB200", 189_471, (10, 0), Blackwell, true, 18),
    ("one", "550.163.01", 1, "NVIDIA H100 PCIe", 81559, (9, 0), Hopper, true, 0),
];

fn devices(nvml: &Nvml) -> Vec<Device<'_>> {
    let count = nvml.device_count().expect("a count");
    (0..count).map(|index| nvml.device_by_index(index).expect("a handle")).collect()
}

#[test]
fn identity_of_every_gpu_on_every_machine() {
    for (profile, driver, count, name, mib, (major, minor), architecture, mig, _) in MACHINES {
        let lab = Lab::up(profile);
        let nvml = lab.nvml();
        assert_eq!(nvml.sys_driver_version().expect("driver"), driver, "{profile}");
        assert!(nvml.sys_nvml_version().expect("nvml").ends_with(driver), "{profile}");
        assert!(nvml.sys_cuda_driver_version().expect("cuda") >= 12_000, "{profile}");
        assert_eq!(nvml.device_count().expect("count"), count, "{profile}");
        let mut uuids = BTreeSet::new();
        for (index, device) in (0..).zip(devices(&nvml)) {
            assert_eq!(device.name().expect("name"), name);
            assert_eq!(device.index().expect("index"), index);
            assert_eq!(device.minor_number().expect("minor"), index);
            assert_eq!(device.brand().expect("brand"), Brand::Nvidia);
            assert_eq!(device.architecture().expect("architecture"), architecture);
            assert_eq!(device.bus_type().expect("bus"), BusType::Pcie);
            let compute = device.cuda_compute_capability().expect("compute");
            assert_eq!((compute.major, compute.minor), (major, minor));
            let memory = device.memory_info().expect("memory");
            assert_eq!(memory.total, mib << 20);
            assert_eq!(memory.total, memory.free + memory.used + memory.reserved);
            assert_eq!(device.mig_mode().is_ok(), mig, "{profile}");
            uuids.insert(device.uuid().expect("uuid"));
        }
        assert_eq!(uuids.len(), count as usize);
    }
}

#[test]
#[expect(deprecated, reason = "by serial number: the driver has it, so it is simulated")]
fn a_gpu_is_found_by_each_of_its_names() {
    let lab = Lab::up("gb200");
    let nvml = lab.nvml();
    for device in devices(&nvml) {
        let index = device.index().expect("index");
        let uuid = device.uuid().expect("uuid");
        let serial = device.serial().expect("serial");
        let bus = device.pci_info().expect("pci").bus_id;
        let found = [
            nvml.device_by_uuid(uuid.as_str()),
            nvml.device_by_serial(serial.as_str()),
            nvml.device_by_pci_bus_id(bus.as_str()),
        ];
        for found in found {
            assert_eq!(found.expect("found").index().expect("index"), index);
        }
    }
    assert!(matches!(nvml.device_by_uuid("GPU-0"), Err(NvmlError::NotFound)));
    assert!(matches!(nvml.device_by_serial("0"), Err(NvmlError::NotFound)));
    assert!(matches!(nvml.device_by_pci_bus_id("0000:ee:00.0"), Err(NvmlError::NotFound)));
    assert!(matches!(nvml.device_by_pci_bus_id("nonsense"), Err(NvmlError::InvalidArg)));
    assert!(matches!(nvml.device_by_index(4), Err(NvmlError::InvalidArg)));
}

#[test]
fn pci_and_numa_are_those_of_the_machine() {
    let lab = Lab::up("p5");
    let nvml = lab.nvml();
    let buses = [0x53, 0x64, 0x75, 0x86, 0x97, 0xa8, 0xb9, 0xca];
    for (device, bus) in devices(&nvml).into_iter().zip(buses) {
        let pci = device.pci_info().expect("pci");
        assert_eq!((pci.domain, pci.bus, pci.device), (0, bus, 0));
        assert_eq!(pci.bus_id, format!("00000000:{bus:02X}:00.0"));
        assert_eq!(pci.pci_device_id, 0x2330_10de);
        assert_eq!(pci.pci_sub_system_id, Some(0x16c1_10de));
        assert!(matches!(device.numa_node_id(), Err(NvmlError::NotSupported)));
        let near = device.cpu_affinity(3).expect("cpus");
        // CPUs 0-47 and 96-143, or 48-95 and 144-191.
        let low = [0x0000_ffff_ffff_ffff, 0xffff_ffff_0000_0000, 0x0000_ffff];
        let high: Vec<u64> = low.iter().map(|word| !word).collect();
        assert_eq!(near, if bus < 0x90 { low.to_vec() } else { high });
    }
    let lab = Lab::up("gb200");
    let nvml = lab.nvml();
    let nodes =
        devices(&nvml).iter().map(|device| device.numa_node_id().expect("HBM")).collect::<Vec<_>>();
    assert_eq!(nodes, [2, 10, 18, 26]);
}

#[test]
fn closeness_on_the_bus() {
    let level = |profile: &str, one: u32, other: u32| {
        let lab = Lab::up(profile);
        let nvml = lab.nvml();
        let [one, other] = [one, other].map(|index| nvml.device_by_index(index).expect("a handle"));
        one.topology_common_ancestor(other).expect("an ancestor")
    };
    assert_eq!(level("b200", 0, 1), TopologyLevel::Single);
    assert_eq!(level("b200", 1, 2), TopologyLevel::Node);
    assert_eq!(level("p4d", 0, 1), TopologyLevel::HostBridge);
    assert_eq!(level("p4d", 0, 4), TopologyLevel::System);
    assert_eq!(level("t4", 0, 3), TopologyLevel::HostBridge);
    assert_eq!(level("l40s", 0, 1), TopologyLevel::Node);
    assert_eq!(level("l40s", 0, 2), TopologyLevel::System);
}

#[test]
fn nearest_gpus_and_boards() {
    let lab = Lab::up("a30");
    let nvml = lab.nvml();
    let all = devices(&nvml);
    let near = |level| {
        let found = all[2].topology_nearest_gpus(level).expect("a list");
        found.iter().map(|device| device.index().expect("index")).collect::<Vec<_>>()
    };
    assert_eq!(near(TopologyLevel::Single), [3]);
    assert_eq!(near(TopologyLevel::System), [0, 1]);
    assert!(near(TopologyLevel::HostBridge).is_empty());
    assert!(!all[0].is_on_same_board_as(&all[1]).expect("boards"));
    assert!(all[0].is_on_same_board_as(&all[0]).expect("boards"));
    let boards: BTreeSet<u32> =
        all.iter().map(|device| device.board_id().expect("board")).collect();
    assert_eq!(boards.len(), 4);
    assert!(!all[0].is_multi_gpu_board().expect("boards"));
}

#[test]
fn nvlinks_of_every_machine() {
    for (profile, _, _, _, _, _, _, _, up) in MACHINES {
        let lab = Lab::up(profile);
        let nvml = lab.nvml();
        let device = nvml.device_by_index(0).expect("a handle");
        let active = |link: &u32| device.link_wrapper_for(*link).is_active().unwrap_or(false);
        assert_eq!((0..18).filter(active).count(), up, "{profile}");
        let past = device.link_wrapper_for(18).is_active().expect_err("no such link");
        let none = matches!(profile, "l40s" | "t4");
        assert_eq!(matches!(past, NvmlError::NotSupported), none, "{profile}: {past}");
    }
}

#[test]
fn an_nvlink_leads_to_a_partner_or_a_switch() {
    let lab = Lab::up("a30");
    let nvml = lab.nvml();
    let [one, two] = [0, 1].map(|index| nvml.device_by_index(index).expect("a handle"));
    let link = one.link_wrapper_for(0);
    assert_eq!(link.version().expect("version"), 3);
    let remote = link.remote_pci_info().expect("the partner").bus_id;
    assert_eq!(remote, two.pci_info().expect("pci").bus_id);
    let lab = Lab::up("p5");
    let nvml = lab.nvml();
    let gpu = nvml.device_by_index(0).expect("a handle");
    let remote = gpu.link_wrapper_for(17).remote_pci_info().expect("a switch");
    assert_eq!(remote.bus_id, "00000000:DB:01.0");
}

#[test]
fn health_load_and_modes() {
    for (profile, ..) in MACHINES {
        let lab = Lab::up(profile);
        lab.change(simnode::Change::Utilisation { gpu: "0".to_owned(), sm: 87, memory: 12 });
        let nvml = lab.nvml();
        let gpu = nvml.device_by_index(0).expect("a handle");
        let load = gpu.utilization_rates().expect("load");
        assert_eq!((load.gpu, load.memory), (87, 12));
        assert!(gpu.is_in_persistent_mode().expect("persistence"));
        assert_eq!(gpu.compute_mode().expect("mode"), ComputeMode::Default);
        assert!(gpu.power_usage().expect("power") < gpu.enforced_power_limit().expect("limit"));
        assert!(gpu.power_management_limit_constraints().expect("limits").max_limit > 0);
        assert!(gpu.temperature(TemperatureSensor::Gpu).expect("degrees") > 0);
        assert!(gpu.max_clock_info(Clock::SM).expect("clock") > 1000);
        assert!(gpu.num_cores().expect("cores") > 2000);
        assert!(gpu.bar1_memory_info().expect("BAR1").total > 0);
        assert_eq!(gpu.max_pcie_link_width().expect("width"), 16);
        assert!(gpu.is_ecc_enabled().expect("ECC").currently_enabled);
        assert!(!gpu.vbios_version().expect("VBIOS").is_empty());
        assert!(!gpu.board_part_number().expect("part").is_empty());
        assert_eq!(gpu.encoder_utilization().expect("encoder").utilization, 0);
        assert!(matches!(gpu.fan_speed(0), Err(NvmlError::NotSupported)), "{profile}: no fans");
    }
}

#[test]
fn mig_mode_shows_and_can_be_set() {
    let lab = Lab::up("a30");
    let nvml = lab.nvml();
    let gpu = nvml.device_by_index(1).expect("a handle");
    let mode = |gpu: &Device<'_>| {
        let mode = gpu.mig_mode().expect("a mode");
        (mode.current, mode.pending)
    };
    assert_eq!(mode(&gpu), (0, 0));
    let pending = simnode::state::MigMode { current: false, pending: true };
    lab.change(simnode::Change::Mig { gpu: "1".to_owned(), mode: pending });
    assert_eq!(mode(&gpu), (0, 1));
    lab.change(simnode::Change::Load);
    assert_eq!(mode(&gpu), (1, 1));
    assert_eq!(mode(&nvml.device_by_index(0).expect("a handle")), (0, 0));
    assert!(matches!(gpu.utilization_rates(), Err(NvmlError::NotSupported)));
    assert!(matches!(gpu.mig_device_by_index(0), Err(NvmlError::NotFound)));
    assert!(!gpu.mig_is_mig_device_handle().expect("a kind"));
}

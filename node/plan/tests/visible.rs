//! `NVIDIA_VISIBLE_DEVICES`, plugin mounts and CDI names: what each form means, and what cannot be given.

mod nodes;

use nodes::*;
use plan::mig::{ComputeInstance, Instance};
use plan::visible::*;
use plan::*;
use proptest::prelude::*;

fn resolved(value: &str) -> Result<Vec<u32>, String> {
    let gpus = Visible::parse(value).resolve(value, &p5());
    gpus.map(|devices| numbers(&devices.gpus)).map_err(|no| no.to_string())
}

#[test]
fn words_mean_what_nvidias_toolkit_means() {
    for nothing in ["", " ", ",", "void", "0,void"] {
        assert_eq!(Visible::parse(nothing), Visible::Nothing, "{nothing:?}");
    }
    assert_eq!(Visible::parse("none"), Visible::None);
    assert_eq!(Visible::parse("all"), Visible::All);
    assert_eq!(Visible::parse("0,all"), Visible::All);
    let marker = Visible::List(vec![Device::PluginMounts]);
    assert_eq!(Visible::parse("/var/run/nvidia-container-devices"), marker);
    assert_eq!(resolved("/var/run/nvidia-container-devices"), Ok(vec![]), "the mounts say which");
}

#[test]
fn every_form_of_a_device_is_told_apart() {
    let first = uuid(1);
    let text = format!("2,{first},MIG-x,0:1,nvidia.com/gpu=3,k8s.gpu.nvidia.com/claim=c,what");
    assert_eq!(
        Visible::parse(&text),
        Visible::List(vec![
            Device::Index(2),
            Device::Uuid(first),
            Device::Mig("MIG-x".into()),
            Device::Mig("0:1".into()),
            Device::Cdi("nvidia.com/gpu=3".into()),
            Device::Cdi("k8s.gpu.nvidia.com/claim=c".into()),
            Device::Unknown("what".into()),
        ])
    );
}

#[test]
fn devices_resolve_to_the_drivers_order_without_repetition() {
    let text = format!("5,{},nvidia.com/gpu=0,5", uuid(2));
    assert_eq!(resolved(&text), Ok(vec![0, 2, 5]));
    assert_eq!(resolved("all"), Ok((0..8).collect()));
    assert_eq!(resolved("nvidia.com/gpu=all").map(|gpus| gpus.len()), Ok(8));
    assert_eq!(resolved("none"), Ok(vec![]));
}

/// GPU 2 in MIG mode, with instances 5 at slice 0, 3 at slice 4 and one without a compute instance.
fn split() -> Inventory {
    let mut inventory = p5();
    let mut gpu = geometry::H100.split(inventory.gpus[2].clone());
    let instance = |gpu_instance: u32, start: u32, device: bool| Instance {
        gpu_instance,
        profile: 14,
        start,
        size: 2,
        compute_instances: device
            .then(|| ComputeInstance {
                id: 0,
                uuid: format!("MIG-0000000{gpu_instance}-0000-4000-8000-000000000000").parse().ok(),
            })
            .into_iter()
            .collect(),
    };
    gpu.instances = vec![instance(5, 0, true), instance(1, 2, false), instance(3, 4, true)];
    inventory.gpus[2] = gpu;
    inventory
}

#[test]
fn mig_devices_resolve_to_the_instances_that_are_observed() {
    let starts = |value: &str| {
        let devices = Visible::parse(value).resolve(value, &split());
        devices.map(|devices| devices.slots.iter().map(|slot| slot.start).collect::<Vec<_>>())
    };
    assert_eq!(starts("MIG-00000005-0000-4000-8000-000000000000"), Ok(vec![0]));
    assert_eq!(starts(&format!("MIG-{}/3/0", uuid(2))), Ok(vec![4]));
    assert_eq!(starts("2:0"), Ok(vec![4]), "by the driver's ids");
    assert_eq!(starts("2:1,nvidia.com/gpu=2:0,2:1"), Ok(vec![0, 4]));
    for absent in ["2:2", "0:0", "9:0", "MIG-00000001-0000-4000-8000-000000000000"] {
        let words = starts(absent).expect_err(absent).to_string();
        assert!(words.contains("no such MIG device on this node"), "{words}");
    }
    let mixed = Visible::parse("4,2:0").resolve("4,2:0", &split()).expect("both");
    assert_eq!((numbers(&mixed.gpus), mixed.slots.len()), (vec![4], 1));
}

#[test]
fn an_instance_is_not_asked_for_by_the_variable() {
    let no = Visible::parse("2:0").asks("2:0", &split(), &Policy::default()).expect_err("refused");
    assert_eq!(
        no.to_string(),
        "berth: NVIDIA_VISIBLE_DEVICES=\"2:0\": 2g.20gb: a MIG instance is asked for \
         with berth.dev/mig, which makes it for its container, or with berth.dev/devices, which takes one that stands; write indices or UUIDs of nvidia-smi -L, all, or none"
    );
}

#[test]
fn what_cannot_be_given_is_refused_by_name() {
    assert_eq!(
        resolved("0,9").expect_err("there are eight"),
        "berth: NVIDIA_VISIBLE_DEVICES=\"0,9\": 9: no such GPU on this node; \
         write indices or UUIDs of nvidia-smi -L, all, or none"
    );
    for (value, why) in [
        (uuid(77).as_str(), "no such GPU on this node"),
        ("0:1", "no such MIG device on this node"),
        ("MIG-5c1a9e3b-0d4f-4d8a-9b2e-1f6c7a8b9c0d", "no such MIG device on this node"),
        ("vendor.com/nic=1", "this CDI device is not one of nvidia.com/gpu"),
        ("gpu0", "not an index, UUID or CDI name"),
        ("-1", "not an index, UUID or CDI name"),
        ("99999999999", "not an index, UUID or CDI name"),
    ] {
        let words = resolved(value).expect_err(value);
        assert!(words.contains(why), "{words}");
    }
}

#[test]
fn mounts_name_devices_only_below_the_folder_itself() {
    let prefix = "/var/run/nvidia-container-devices";
    let all = [
        format!("{prefix}/{}", uuid(4)),
        "/run/nvidia-container-devices/0".to_owned(),
        format!("{prefix}/cdi/nvidia.com/gpu/6"),
        format!("{prefix}-evil/1"),
        prefix.to_owned(),
        "/data".to_owned(),
    ];
    let visible = Visible::of_mounts(all.iter().map(String::as_str));
    assert_eq!(numbers(&visible.resolve("mounts", &p5()).expect("known").gpus), [0, 4, 6]);
    assert_eq!(Visible::of_mounts(["/data"]), Visible::Nothing);
}

#[test]
fn cdi_names_of_nvidias_gpus_mean_gpus_and_others_are_left_to_their_specification() {
    assert_eq!(Visible::of_cdi("nvidia.com/gpu=0"), Some(Visible::List(vec![Device::Index(0)])));
    assert_eq!(Visible::of_cdi("nvidia.com/gpu=all"), Some(Visible::All));
    for other in [
        "k8s.gpu.nvidia.com/claim=a",
        "nvidia.com/gpu=",
        "nvidia.com/gpu=gpu0",
        "x",
        "nvidia.com/gpux=0",
    ] {
        assert_eq!(Visible::of_cdi(other), None, "{other}");
    }
}

#[test]
fn all_asks_for_what_berth_may_hand_out_as_a_whole() {
    let mut inventory = p5();
    inventory.gpus[0].mig = true;
    let policy =
        Policy { gpus: (0..3).map(|i| uuid(i).to_string()).collect(), ..Policy::default() };
    let asks = |value: &str, policy: &Policy| Visible::parse(value).asks(value, &inventory, policy);
    assert_eq!(asks("all", &policy), Ok(Some(Want::Exactly(vec![uuid(1), uuid(2)]))));
    assert_eq!(asks("none", &policy), Ok(None));
    assert_eq!(asks("7", &policy), Ok(Some(Want::Exactly(vec![uuid(7)]))), "placement refuses it");
    let nothing = Policy { gpus: vec![uuid(50).to_string()], ..Policy::default() };
    assert!(asks("all", &nothing).expect_err("none").to_string().contains("may hand out"));
}

proptest! {
    #[test]
    fn no_value_makes_it_panic_and_what_resolves_is_there(value in "[0-9a-zGPUMI:/=,. -]{0,40}|\\PC*") {
        let words = resolved(&value);
        prop_assert!(words.is_ok_and(|gpus| gpus.len() <= 8) || resolved(&value).is_err());
    }
}

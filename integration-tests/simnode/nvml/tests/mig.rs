//! MIG as the driver has it: profiles and placements of every card, instances and their errors, MIG devices.
//!
//! The figures stand here a second time on purpose, as `nvidia-smi mig -lgip` and `-lgipp` list them.

mod lab;

use std::collections::BTreeSet;

use lab::Lab;
use lab::mig::{
    Device, GPU_IS_LOST, IN_USE, INSUFFICIENT_RESOURCES, INVALID_ARGUMENT, NOT_FOUND,
    NOT_SUPPORTED, RESET_REQUIRED, Raw, VERSION_MISMATCH, zeroed,
};
use nvml_wrapper_sys::bindings as sys;
use simnode::Change;
use simnode::state::{MigMode, Process, Use};

/// Index in nvml.h, id, name, compute slices, starts, memory slices, how many, SMs, MiB.
type Row = (u32, u32, &'static str, u32, &'static [u32], u32, u32, u32, u64);

/// Index, id, compute slices, starts, memory slices, how many.
type Shape = (u32, u32, u32, &'static [u32], u32, u32);

const SEVEN: &[u32] = &[0, 1, 2, 3, 4, 5, 6];

fn eight(names: [&'static str; 7], sms: [u32; 7], mib: [u64; 7]) -> Vec<Row> {
    let shapes: [Shape; 7] = [
        (0, 19, 1, SEVEN, 1, 7),
        (7, 20, 1, SEVEN, 1, 1),
        (9, 15, 1, &[0, 2, 4, 6], 2, 4),
        (1, 14, 2, &[0, 2, 4], 2, 3),
        (2, 9, 3, &[0, 4], 4, 2),
        (3, 5, 4, &[0], 4, 1),
        (4, 0, 7, &[0], 8, 1),
    ];
    let row = |(number, (index, id, slices, starts, size, max)): (usize, _)| {
        (index, id, names[number], slices, starts, size, max, sms[number], mib[number])
    };
    shapes.into_iter().enumerate().map(row).collect()
}

fn cards() -> Vec<(&'static str, Vec<Row>)> {
    let hopper = [16, 16, 26, 32, 60, 64, 132];
    let ampere = [14, 14, 14, 28, 42, 56, 98];
    let eighty = ["1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"];
    vec![
        (
            "p4d",
            eight(
                ["1g.5gb", "1g.5gb+me", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"],
                ampere,
                [4864, 4864, 9984, 9984, 20096, 20096, 40320],
            ),
        ),
        ("p4de", eight(eighty, ampere, [9856, 9856, 19968, 19968, 40192, 40192, 80384])),
        ("p5", eight(eighty, hopper, [9984, 9984, 20096, 20096, 40448, 40448, 81152])),
        (
            "h200",
            eight(
                ["1g.18gb", "1g.18gb+me", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"],
                hopper,
                [16384, 16384, 33024, 33024, 71168, 71168, 144_384],
            ),
        ),
        (
            "b200",
            eight(
                ["1g.23gb", "1g.23gb+me", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"],
                [18, 18, 30, 36, 70, 72, 148],
                [20992, 20992, 45312, 45312, 91136, 91136, 182_784],
            ),
        ),
        (
            "gb200",
            eight(
                ["1g.23gb", "1g.23gb+me", "1g.47gb", "2g.47gb", "3g.93gb", "4g.93gb", "7g.186gb"],
                [18, 18, 32, 38, 74, 76, 152],
                [22528, 22528, 46592, 46592, 93696, 93696, 187_904],
            ),
        ),
        (
            "a30",
            vec![
                (0, 14, "1g.6gb", 1, &[0, 1, 2, 3], 1, 4, 14, 5952),
                (7, 21, "1g.6gb+me", 1, &[0, 1, 2, 3], 1, 1, 14, 5952),
                (1, 5, "2g.12gb", 2, &[0, 2], 2, 2, 28, 11968),
                (3, 0, "4g.24gb", 4, &[0], 4, 1, 56, 24000),
            ],
        ),
        (
            "rtx6000",
            vec![
                (0, 14, "1g.24gb", 1, &[0, 3, 6, 9], 3, 4, 46, 24192),
                (7, 21, "1g.24gb+me", 1, &[0, 3, 6, 9], 3, 1, 46, 24192),
                (1, 5, "2g.48gb", 2, &[0, 6], 6, 2, 94, 48512),
                (3, 0, "4g.96gb", 4, &[0], 12, 1, 188, 97280),
            ],
        ),
    ]
}

/// A node of this profile whose GPU 0 is in MIG mode, and that GPU.
fn cut(profile: &str) -> (Lab, Raw, Device) {
    let lab = Lab::up(profile);
    let mode = MigMode { current: true, pending: true };
    lab.change(Change::Mig { gpu: "0".to_owned(), mode });
    let raw = Raw::new(&lab);
    let gpu = raw.gpu(0);
    (lab, raw, gpu)
}

fn process(pid: u32, gpu_instance: Option<u32>, compute_instance: Option<u32>) -> Process {
    let memory = Some(5 << 20);
    Process { pid, r#use: Use::Compute, memory, gpu_instance, compute_instance }
}

fn begin(lab: &Lab, process: Process) {
    lab.change(Change::Begin { gpu: "0".to_owned(), process });
}

#[test]
fn every_card_has_the_profiles_and_placements_of_the_real_one_and_no_others() {
    for (machine, rows) in cards() {
        let (_lab, raw, gpu) = cut(machine);
        let offered = (0..17).filter(|index| raw.profile(gpu, *index).is_ok());
        let known: BTreeSet<u32> = rows.iter().map(|row| row.0).collect();
        assert_eq!(offered.collect::<BTreeSet<_>>(), known, "{machine}");
        for (index, id, name, slices, starts, size, max, sms, mib) in rows {
            let info = raw.profile(gpu, index).expect("an info");
            let told = (info.id, info.sliceCount, info.instanceCount);
            assert_eq!(told, (id, slices, max), "{machine} {name}");
            let told = (info.multiprocessorCount, info.memorySizeMB);
            assert_eq!(told, (sms, mib), "{machine} {name}");
            assert_eq!(raw.profile_name(gpu, index).expect("a name"), format!("MIG {name}"));
            let places: Vec<(u32, u32)> = starts.iter().map(|start| (*start, size)).collect();
            assert_eq!(raw.placements(gpu, id).expect("a list"), places, "{machine} {name}");
            assert_eq!(raw.remaining(gpu, id).expect("a count"), max, "{machine} {name}");
        }
        assert_eq!(raw.profile(gpu, 17).map(|info| info.id), Err(INVALID_ARGUMENT));
        assert_eq!(raw.profile(gpu, 16).map(|info| info.id), Err(NOT_SUPPORTED));
    }
}

#[test]
fn an_instance_fits_everywhere_that_its_profile_says_and_fills_it() {
    for (machine, rows) in cards() {
        let (lab, raw, gpu) = cut(machine);
        for (_, id, name, _, starts, size, max, ..) in rows {
            let mut made = Vec::new();
            for start in starts.iter().take(max as usize) {
                let gi = raw.create_at(gpu, id, (*start, size));
                made.push(gi.unwrap_or_else(|code| panic!("{machine} {name} at {start}: {code}")));
                assert_eq!(raw.seat(*made.last().expect("one")).1, (*start, size));
            }
            assert_eq!(raw.remaining(gpu, id), Ok(0), "{machine} {name}");
            let again = raw.create(gpu, id);
            assert_eq!(again, Err(INSUFFICIENT_RESOURCES), "{machine} {name}");
            let ids = lab.node.state().expect("a state").gpus[0].instances.clone();
            assert!(ids.iter().all(|instance| instance.id <= 14), "{machine} {name}: {ids:?}");
            assert_eq!(ids.iter().map(|one| one.id).collect::<BTreeSet<_>>().len(), made.len());
            assert_eq!(raw.gis(gpu, id).expect("a list").len(), made.len());
            made.into_iter().for_each(|gi| raw.destroy(gi).expect("it goes"));
        }
    }
}

/// What `nvidia-smi mig -cgi` printed on real cards: id of each instance and its start, in the order in which they were asked for.
#[test]
fn unplaced_instances_go_where_real_drivers_put_them() {
    let asked = |profiles: &[u32]| {
        let (_lab, raw, gpu) = cut("p4d");
        let one = |id: &u32| raw.create(gpu, *id).map(|gi| raw.seat(gi)).map(|(id, at)| (id, at.0));
        profiles.iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(asked(&[19, 14, 5]), [Ok((13, 6)), Ok((5, 4)), Ok((1, 0))]);
    let ones = [(13, 6), (11, 4), (12, 5), (7, 0), (8, 1), (9, 2), (10, 3)];
    assert_eq!(asked(&[19; 7]), ones.map(Ok));
    assert_eq!(asked(&[14, 14, 14, 20]), [Ok((5, 4)), Ok((3, 0)), Ok((4, 2)), Ok((13, 6))]);
    assert_eq!(asked(&[9, 9]), [Ok((1, 4)), Ok((2, 0))]);
    assert_eq!(asked(&[9, 5]), [Ok((1, 4)), Ok((2, 0))]);
    assert_eq!(asked(&[5, 9]), [Ok((1, 0)), Ok((2, 4))]);
    // The user guide's own example of an order that does not work.
    let refused = [Ok((13, 6)), Ok((11, 4)), Ok((3, 0)), Err(INSUFFICIENT_RESOURCES)];
    assert_eq!(asked(&[19, 19, 14, 9]), refused);
}

#[test]
fn two_of_three_slices_strand_the_seventh() {
    let (_lab, raw, gpu) = cut("p5");
    raw.create_at(gpu, 9, (0, 4)).expect("room");
    raw.create_at(gpu, 9, (4, 4)).expect("room");
    for id in [19, 20, 15, 14, 9, 5, 0] {
        assert_eq!(raw.create(gpu, id), Err(INSUFFICIENT_RESOURCES), "{id}");
        assert_eq!(raw.remaining(gpu, id), Ok(0), "{id}");
    }
}

#[test]
fn media_engines_are_given_once() {
    let (_lab, raw, gpu) = cut("h200");
    let first = raw.create_at(gpu, 20, (2, 1)).expect("room");
    assert_eq!(raw.create_at(gpu, 20, (3, 1)), Err(INSUFFICIENT_RESOURCES));
    raw.create_at(gpu, 19, (3, 1)).expect("room");
    raw.destroy(first).expect("it goes");
    raw.create_at(gpu, 20, (0, 1)).expect("room");
}

#[test]
fn what_cannot_be_made_is_refused_as_the_driver_does() {
    let (lab, raw, gpu) = cut("p5");
    assert_eq!(raw.create_at(gpu, 14, (1, 2)), Err(INVALID_ARGUMENT), "a start that is none");
    assert_eq!(raw.create_at(gpu, 19, (7, 1)), Err(INVALID_ARGUMENT), "1g never starts at 7");
    assert_eq!(raw.create_at(gpu, 14, (0, 4)), Err(INVALID_ARGUMENT), "a size that is none");
    assert_eq!(raw.create(gpu, 7), Err(INVALID_ARGUMENT), "an index is no id");
    let gi = raw.create_at(gpu, 14, (2, 2)).expect("room");
    assert_eq!(raw.create_at(gpu, 9, (0, 4)), Err(INSUFFICIENT_RESOURCES), "occupied");
    assert_eq!(raw.create(raw.gpu(1), 19), Err(NOT_SUPPORTED), "not in MIG mode");
    assert_eq!(raw.remaining(raw.gpu(1), 19), Err(NOT_SUPPORTED));
    assert_eq!(raw.placements(raw.gpu(1), 19).expect("whatever the mode is").len(), 7);
    assert_eq!(raw.gi_by_id(gpu, 9), Err(NOT_FOUND));
    raw.destroy(gi).expect("it goes");
    assert_eq!(raw.destroy(gi), Err(INVALID_ARGUMENT), "gone");
    let mut info: sys::nvmlGpuInstanceProfileInfo_v2_t = zeroed();
    // SAFETY: as nvml.h declares it; a wrong version is what this is about.
    let answer = unsafe { raw.0.nvmlDeviceGetGpuInstanceProfileInfoV(gpu, 0, &raw mut info) };
    assert_eq!(answer, VERSION_MISMATCH);
    // SAFETY: as nvml.h declares it; null is what this is about.
    let answer = unsafe { raw.0.nvmlDeviceCreateGpuInstance(gpu, 19, std::ptr::null_mut()) };
    assert_eq!(answer, INVALID_ARGUMENT);
    assert!(lab.node.state().expect("a state").gpus[0].instances.is_empty(), "nothing was made");
    lab.change(Change::Lost { gpu: "0".to_owned(), lost: true });
    assert_eq!(raw.create(gpu, 19), Err(GPU_IS_LOST));
    let (_lab, raw, l40s) = {
        let lab = Lab::up("l40s");
        let raw = Raw::new(&lab);
        let gpu = raw.gpu(0);
        (lab, raw, gpu)
    };
    assert_eq!(raw.profile(l40s, 0).map(|info| info.id), Err(NOT_SUPPORTED));
    assert_eq!(raw.set_mode(l40s, 1), Err(NOT_SUPPORTED));
    assert_eq!(raw.create(l40s, 19), Err(NOT_SUPPORTED));
}

#[test]
fn what_is_in_use_is_not_ended() {
    let (lab, raw, gpu) = cut("p5");
    let gi = raw.create(gpu, 9).expect("room");
    let ci = raw.create_compute(gi, 2).expect("room");
    assert_eq!(raw.destroy(gi), Err(IN_USE));
    assert_eq!(raw.set_mode(gpu, 0), Err(IN_USE));
    begin(&lab, process(100, Some(1), Some(0)));
    assert_eq!(raw.destroy_compute(ci), Err(IN_USE));
    lab.change(Change::End { gpu: "0".to_owned(), pid: 100 });
    raw.destroy_compute(ci).expect("it goes");
    assert_eq!(raw.destroy_compute(ci), Err(INVALID_ARGUMENT));
    raw.destroy(gi).expect("it goes");
    assert_eq!(raw.set_mode(gpu, 0), Ok(0));
}

#[test]
fn ampere_takes_a_reset_to_switch() {
    let lab = Lab::up("p4d");
    let raw = Raw::new(&lab);
    let gpu = raw.gpu(3);
    assert_eq!(raw.set_mode(gpu, 2), Err(INVALID_ARGUMENT));
    assert_eq!(raw.set_mode(gpu, 1), Ok(RESET_REQUIRED));
    assert_eq!(raw.mode(gpu), Ok((0, 1)));
    assert_eq!(raw.create(gpu, 19), Err(NOT_SUPPORTED));
    lab.node.reset_gpu("3").expect("a reset");
    assert_eq!(raw.mode(gpu), Ok((1, 1)));
    raw.create(gpu, 19).expect("room");
    // The mode is kept on the card, the instances are not.
    lab.change(Change::Load);
    assert_eq!(raw.mode(gpu), Ok((1, 1)));
    assert_eq!(raw.gis(gpu, 19), Ok(Vec::new()));
    assert_eq!(raw.set_mode(gpu, 0), Ok(RESET_REQUIRED));
    lab.change(Change::Reboot);
    assert_eq!(raw.mode(gpu), Ok((0, 0)));
}

#[test]
fn later_cards_switch_at_once_when_idle_and_forget_with_the_driver() {
    for profile in ["p5", "h200", "b200", "rtx6000"] {
        let lab = Lab::up(profile);
        let raw = Raw::new(&lab);
        let gpu = raw.gpu(0);
        begin(&lab, process(1, None, None));
        assert_eq!(raw.set_mode(gpu, 1), Ok(IN_USE));
        assert_eq!(raw.mode(gpu), Ok((0, 1)));
        lab.change(Change::End { gpu: "0".to_owned(), pid: 1 });
        assert_eq!(raw.set_mode(gpu, 1), Ok(0));
        assert_eq!(raw.mode(gpu), Ok((1, 1)));
        lab.change(Change::Load);
        assert_eq!(raw.mode(gpu), Ok((0, 0)), "{profile}");
    }
}

#[test]
fn compute_slices_are_shared_out_within_a_gpu_instance() {
    let (_lab, raw, gpu) = cut("p5");
    let gi = raw.create(gpu, 9).expect("room");
    let told = |index| {
        let info = raw.compute_profile(gi, index)?;
        Ok((info.id, info.sliceCount, info.instanceCount, info.multiprocessorCount))
    };
    assert_eq!(told(0), Ok((0, 1, 3, 16)));
    assert_eq!(told(1), Ok((1, 2, 1, 32)));
    assert_eq!(told(2), Ok((2, 3, 1, 60)));
    assert_eq!([told(3), told(7)], [Err(NOT_SUPPORTED); 2]);
    assert_eq!(told(8), Err(INVALID_ARGUMENT));
    let names = [0, 1, 2].map(|index| raw.compute_name(gi, index).expect("a name"));
    assert_eq!(names, ["MIG 1c.3g.40gb", "MIG 2c.3g.40gb", "MIG 3g.40gb"]);
    assert_eq!(raw.compute_placements(gi, 0), Ok(vec![(0, 1), (1, 1), (2, 1)]));
    assert_eq!(raw.compute_placements(gi, 2), Ok(vec![(0, 3)]));
    let two = raw.create_compute(gi, 1).expect("room");
    assert_eq!(raw.create_compute(gi, 2), Err(INSUFFICIENT_RESOURCES));
    assert_eq!([raw.compute_remaining(gi, 0), raw.compute_remaining(gi, 1)], [Ok(1), Ok(0)]);
    assert_eq!(raw.create_compute_at(gi, 0, (1, 1)), Err(INSUFFICIENT_RESOURCES));
    assert_eq!(raw.create_compute_at(gi, 0, (3, 1)), Err(INVALID_ARGUMENT));
    let one = raw.create_compute(gi, 0).expect("room");
    let info = raw.ci_info(one).expect("an info");
    assert_eq!((info.id, info.profileId, info.placement.start), (1, 0, 2));
    assert_eq!(raw.name(info.device).expect("a name"), "NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb");
    assert_eq!(raw.ci_by_id(gi, 0), Ok(two));
    assert_eq!(raw.ci_by_id(gi, 2), Err(NOT_FOUND));
    assert_eq!(raw.cis(gi, 0), Ok(vec![one]));
    assert_eq!(raw.cis(gi, 1), Ok(vec![two]));
}

#[test]
fn a_mig_device_is_a_compute_instance_and_a_gpu_instance_alone_is_none() {
    let (lab, raw, gpu) = cut("p5");
    let gi = raw.create_at(gpu, 19, (3, 1)).expect("room");
    assert_eq!(raw.mig_device(gpu, 0), Err(NOT_FOUND));
    raw.create_compute(gi, 0).expect("room");
    let mig = raw.mig_device(gpu, 0).expect("a device");
    assert_eq!(raw.mig_device(gpu, 7), Err(INVALID_ARGUMENT));
    assert_eq!(raw.name(mig).expect("a name"), "NVIDIA H100 80GB HBM3 MIG 1g.10gb");
    let uuid = raw.uuid(mig).expect("a UUID");
    assert!(uuid.starts_with("MIG-") && uuid.len() == 40, "{uuid}");
    assert_eq!(raw.by_uuid(&uuid), Ok(mig));
    assert_eq!(raw.parent(mig), Ok(gpu));
    assert_eq!(raw.parent(gpu), Err(INVALID_ARGUMENT));
    use sys::NvmlLib as Lib;
    assert_eq!(raw.number(Lib::nvmlDeviceIsMigDeviceHandle, mig), Ok(1));
    assert_eq!(raw.number(Lib::nvmlDeviceIsMigDeviceHandle, gpu), Ok(0));
    assert_eq!(raw.number(Lib::nvmlDeviceGetGpuInstanceId, mig), Ok(10));
    assert_eq!(raw.number(Lib::nvmlDeviceGetComputeInstanceId, mig), Ok(0));
    assert_eq!(raw.number(Lib::nvmlDeviceGetGpuInstanceId, gpu), Err(INVALID_ARGUMENT));
    assert_eq!(raw.number(Lib::nvmlDeviceGetMinorNumber, mig), Err(NOT_SUPPORTED));
    assert_eq!(raw.number(Lib::nvmlDeviceGetMaxMigDeviceCount, gpu), Ok(7));
    let made_of = raw.attributes(mig).expect("attributes");
    assert_eq!((made_of.multiprocessorCount, made_of.memorySizeMB), (16, 9984));
    assert_eq!((made_of.gpuInstanceSliceCount, made_of.computeInstanceSliceCount), (1, 1));
    begin(&lab, process(100, Some(10), Some(0)));
    begin(&lab, process(101, Some(11), Some(0)));
    assert_eq!(raw.memory(mig), Ok((9984 << 20, 5 << 20)));
    assert_eq!(raw.processes(mig), Ok(vec![100]));
    assert_eq!(raw.processes(gpu), Ok(vec![100, 101]));
    let mut load: sys::nvmlUtilization_t = zeroed();
    // SAFETY: as nvml.h declares it.
    let answers = [gpu, mig]
        .map(|device| unsafe { raw.0.nvmlDeviceGetUtilizationRates(device, &raw mut load) });
    assert_eq!(answers, [NOT_SUPPORTED; 2]);
}

#[test]
fn made_again_it_is_another_one() {
    let (lab, raw, gpu) = cut("p5");
    let make = || {
        let gi = raw.create_at(gpu, 19, (0, 1)).expect("room");
        let ci = raw.create_compute(gi, 0).expect("room");
        let mig = raw.mig_device(gpu, 0).expect("a device");
        (gi, ci, mig, raw.uuid(mig).expect("a UUID"))
    };
    let (gi, ci, mig, uuid) = make();
    raw.destroy_compute(ci).expect("it goes");
    raw.destroy(gi).expect("it goes");
    let (again, _, _, other) = make();
    assert_ne!(uuid, other);
    assert_eq!(raw.seat(again).0, 7, "the id comes back");
    assert_eq!(raw.gi_info(gi).map(|info| info.id), Err(INVALID_ARGUMENT), "the handle does not");
    assert_eq!(raw.uuid(mig), Err(INVALID_ARGUMENT));
    assert_eq!(raw.by_uuid(&uuid), Err(NOT_FOUND));
    let listed = String::from_utf8(lab.smi(&["-L"]).stdout).expect("text");
    let line = format!("  MIG 1g.10gb     Device  0: (UUID: {other})");
    assert_eq!(listed.lines().nth(1), Some(line.as_str()), "{listed}");
    assert_eq!(listed.lines().count(), 9);
}

//! Errors as the driver gives them, and faults on demand, counted over all processes.

mod lab;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::ptr;

use lab::{Lab, text};
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings as sys;
use simnode::Change;
use simnode::code::Code;
use simnode::fault::{Action, Fault};
use simnode::state::{Process, Use};

fn fault(function: &str, nth: u64, action: Action) -> Change {
    let function = function.to_owned();
    Change::Inject(Fault { function, gpu: None, nth, onwards: false, action, seen: 0 })
}

/// The library itself, not initialised.
fn raw(lab: &Lab) -> sys::NvmlLib {
    let path = lab.node.nvml_path().expect("a path");
    // SAFETY: loading it runs no code of its own.
    unsafe { sys::NvmlLib::new(path) }.expect("it loads")
}

#[test]
fn without_init_and_after_shutdown_nothing_is_answered() {
    let lab = Lab::up("one");
    let lib = raw(&lab);
    let mut count = 7;
    // SAFETY: as nvml.h declares them; `count` is a place for one number.
    let answers = unsafe {
        [
            lib.nvmlShutdown(),
            lib.nvmlDeviceGetCount_v2(&raw mut count),
            lib.nvmlInit_v2(),
            lib.nvmlInit_v2(),
            lib.nvmlShutdown(),
            lib.nvmlDeviceGetCount_v2(&raw mut count),
            lib.nvmlShutdown(),
            lib.nvmlDeviceGetCount_v2(&raw mut count),
        ]
    };
    assert_eq!(answers, [1, 1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(count, 1);
}

#[test]
fn null_and_too_little_room_are_refused() {
    let lab = Lab::up("one");
    let lib = raw(&lab);
    let mut device = ptr::null_mut();
    let mut text = [0; 8];
    // SAFETY: as nvml.h declares them; null is what this is about, and lengths are true.
    let answers = unsafe {
        [
            lib.nvmlInit_v2(),
            lib.nvmlDeviceGetCount_v2(ptr::null_mut()),
            lib.nvmlDeviceGetHandleByIndex_v2(0, ptr::null_mut()),
            lib.nvmlDeviceGetHandleByUUID(ptr::null(), &raw mut device),
            lib.nvmlDeviceGetHandleByIndex_v2(0, &raw mut device),
            lib.nvmlDeviceGetUUID(device, text.as_mut_ptr(), 8),
            lib.nvmlDeviceGetUUID(device, ptr::null_mut(), 96),
            lib.nvmlDeviceGetUUID(ptr::null_mut(), text.as_mut_ptr(), 8),
        ]
    };
    assert_eq!(answers, [0, 2, 2, 2, 0, 7, 2, 2]);
}

#[test]
fn a_structure_of_another_version_is_refused() {
    let lab = Lab::up("one");
    let lib = raw(&lab);
    let mut device = ptr::null_mut();
    // SAFETY: plain numbers.
    let mut memory: sys::nvmlMemory_v2_t = unsafe { std::mem::zeroed() };
    memory.version = 1;
    // SAFETY: as nvml.h declares them.
    unsafe {
        assert_eq!(lib.nvmlInit_v2(), 0);
        assert_eq!(lib.nvmlDeviceGetHandleByIndex_v2(0, &raw mut device), 0);
        assert_eq!(lib.nvmlDeviceGetMemoryInfo_v2(device, &raw mut memory), 25);
    }
}

#[test]
fn functions_of_other_drivers_are_missing() {
    let lab = Lab::up("p5");
    let gpu = lab.nvml();
    let gpu = gpu.device_by_index(0).expect("a handle");
    assert!(matches!(
        gpu.total_ecc_errors(MemoryError::Corrected, EccCounter::Volatile),
        Err(NvmlError::FailedToLoadSymbol(_))
    ));
}

#[test]
fn process_lists_say_how_much_room_they_need() {
    let lab = Lab::up("p5");
    let begin = |pid, r#use, memory| {
        let process = Process { pid, r#use, memory, gpu_instance: None, compute_instance: None };
        lab.change(Change::Begin { gpu: "2".to_owned(), process });
    };
    begin(100, Use::Compute, Some(1 << 30));
    begin(101, Use::Compute, None);
    begin(102, Use::Graphics, Some(5));
    begin(103, Use::Mps, Some(6));
    let nvml = lab.nvml();
    let gpu = nvml.device_by_index(2).expect("a handle");
    let found = gpu.running_compute_processes().expect("a list");
    assert_eq!(found.iter().map(|one| one.pid).collect::<Vec<_>>(), [100, 101]);
    assert_eq!(found[0].used_gpu_memory, UsedGpuMemory::Used(1 << 30));
    assert_eq!(found[1].used_gpu_memory, UsedGpuMemory::Unavailable);
    assert_eq!(found[0].gpu_instance_id, None);
    assert_eq!(gpu.running_compute_processes_v2().expect("a list").len(), 2);
    assert_eq!(gpu.running_graphics_processes().expect("a list")[0].pid, 102);
    assert_eq!(gpu.mps_running_compute_processes().expect("a list")[0].pid, 103);
    assert_eq!(gpu.memory_info().expect("memory").used, (1 << 30) + 5);
    let lib = nvml.lib();
    let mut room = 1;
    // SAFETY: plain numbers.
    let mut one: sys::nvmlProcessInfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: as nvml.h declares it, with room for one entry as said.
    let answer = unsafe {
        lib.nvmlDeviceGetComputeRunningProcesses_v3(gpu.handle(), &raw mut room, &raw mut one)
    };
    assert_eq!((answer, room, one.pid), (7, 2, 0));
    lab.change(Change::End { gpu: "2".to_owned(), pid: 100 });
    assert_eq!(gpu.running_compute_processes().expect("a list").len(), 1);
}

#[test]
fn an_unloaded_driver_is_told_and_comes_back_as_another_module() {
    use std::os::unix::fs::MetadataExt;
    let lab = Lab::up("t4");
    let module = lab.node.root().join("sys/module/nvidia");
    let inode = || module.metadata().map(|found| found.ino());
    let before = inode().expect("a module");
    lab.change(Change::Unload);
    assert!(inode().is_err() && !lab.node.root().join("proc/driver/nvidia").exists());
    assert!(matches!(lab.load(), Err(NvmlError::DriverNotLoaded)));
    let smi = lab.smi(&["-L"]);
    assert_eq!(smi.status.code(), Some(9), "{}", text(&smi.stdout));
    lab.change(Change::Load);
    assert_ne!(inode().expect("a module"), before);
    assert_eq!(lab.nvml().device_count().expect("a count"), 4);
    // Loaded while it was loaded: a reload.
    let before = inode().expect("a module");
    lab.change(Change::Load);
    assert_ne!(inode().expect("a module"), before);
}

#[test]
fn a_lost_gpu_stays_counted_and_answers_nothing() {
    let lab = Lab::up("p4d");
    let nvml = lab.nvml();
    let gpu = nvml.device_by_index(3).expect("a handle");
    lab.change(Change::Lost { gpu: gpu.uuid().expect("uuid"), lost: true });
    assert!(matches!(gpu.memory_info(), Err(NvmlError::GpuLost)));
    assert!(matches!(nvml.device_by_index(3), Err(NvmlError::GpuLost)));
    assert_eq!(nvml.device_count().expect("a count"), 8);
    assert!(nvml.device_by_index(4).is_ok());
}

#[test]
fn another_driver_than_the_librarys_is_a_mismatch() {
    let lab = Lab::up("one");
    let other = lab.node.root().join("usr/lib/libnvidia-ml.so.999.1");
    std::fs::copy(lab.node.nvml_path().expect("a path"), &other).expect("a copy");
    let answer = Nvml::builder().lib_path(other.as_os_str()).init();
    assert!(matches!(answer, Err(NvmlError::LibRmVersionMismatch)), "{answer:?}");
}

#[test]
fn the_nth_call_over_all_processes_fails_and_only_that_one() {
    let lab = Lab::up("p5");
    lab.change(fault("nvmlDeviceGetUUID", 12, Action::Error(Code::GPU_IS_LOST)));
    // Eight calls here, and the twelfth is the fourth of the second process.
    let first = lab.smi(&["-L"]);
    assert!(first.status.success(), "{}", text(&first.stdout));
    let second = lab.smi(&["-L"]);
    assert_eq!(second.status.code(), Some(15));
    assert!(text(&second.stdout).contains("GPU is lost"), "{}", text(&second.stdout));
    assert!(lab.smi(&["-L"]).status.success());
    lab.change(Change::ClearFaults);
    assert!(lab.node.state().expect("a state").faults.is_empty());
}

#[test]
fn processes_at_once_lose_no_count() {
    let lab = Lab::up("p5");
    let action = Action::Error(Code::UNKNOWN);
    lab.change(fault("nvmlDeviceGetName", u64::MAX, action));
    let smi = lab.node.root().join("usr/bin/nvidia-smi");
    let run = |_| Command::new(&smi).arg("-L").stdout(Stdio::null()).spawn().expect("it runs");
    for mut child in (0..10).map(run).collect::<Vec<_>>() {
        assert!(child.wait().expect("an end").success());
    }
    assert_eq!(lab.node.state().expect("a state").faults[0].seen, 80);
}

#[test]
fn a_process_can_be_killed_at_a_call() {
    let lab = Lab::up("one");
    lab.change(fault("nvmlInit_v2", 1, Action::Die));
    assert_eq!(lab.smi(&["-L"]).status.signal(), Some(9));
    assert!(lab.smi(&["-L"]).status.success());
}

#[test]
fn a_delayed_call_takes_its_time() {
    let lab = Lab::up("one");
    lab.change(fault("nvmlSystemGetDriverVersion", 1, Action::Delay(50)));
    let before = std::time::Instant::now();
    drop(lab.nvml());
    // A lower bound, which no load on the machine can break.
    assert!(before.elapsed().as_millis() >= 50);
}

#[test]
fn a_fault_can_be_for_one_gpu() {
    let lab = Lab::up("p5");
    let nvml = lab.nvml();
    let function = "nvmlDeviceGetMemoryInfo_v2".to_owned();
    let action = Action::Error(Code::RESET_REQUIRED);
    let fault = Fault { function, gpu: Some(5), nth: 1, onwards: true, action, seen: 0 };
    lab.change(Change::Inject(fault));
    let memory = |index| nvml.device_by_index(index).expect("a handle").memory_info();
    assert!(memory(4).is_ok());
    assert!(matches!(memory(5), Err(NvmlError::ResetRequired)));
    assert!(matches!(memory(5), Err(NvmlError::ResetRequired)));
}

#[test]
fn modes_set_by_one_process_are_seen_by_another() {
    let lab = Lab::up("one");
    let nvml = lab.nvml();
    let gpu = nvml.device_by_index(0).expect("a handle");
    // SAFETY: as nvml.h declares it.
    assert_eq!(unsafe { nvml.lib().nvmlDeviceSetPersistenceMode(gpu.handle(), 0) }, 0);
    assert!(!gpu.is_in_persistent_mode().expect("a mode"));
    assert!(!lab.node.state().expect("a state").gpus[0].persistence);
}

#[test]
fn a_state_that_is_none_is_an_unknown_error() {
    let lab = Lab::up("one");
    let nvml = lab.nvml();
    std::fs::write(lab.node.dir().join(".simnode/state.json"), "{").expect("a file");
    assert!(matches!(nvml.device_count(), Err(NvmlError::Unknown)));
}

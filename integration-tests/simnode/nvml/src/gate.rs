//! What every call passes: faults, the time that it takes, whether the library is initialised, and the state to answer from.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::{mem, thread};

use simnode::State;
use simnode::code::Code;
use simnode::fault::{self, Action};
use simnode::mig::{GpuInstance, MigDevice, admin};
use simnode::state::{Driver, Gpu};
use simnode::store::Store;
use simnode::{container, latency};

use crate::opaque::{Compute, Device, Instance};
use crate::pointer::Answer;

/// Where this library was loaded from, and what follows from that.
struct Home {
    /// The node's state; none in a container.
    store: Option<Store>,
    /// The file itself.
    file: PathBuf,
    /// The version in the file's name.
    version: Option<String>,
}

/// This process's use of the library.
struct Session {
    /// Calls of init that no shutdown has met yet.
    users: u32,
    /// In a container: what init found there.
    found: Option<Arc<State>>,
    /// On a node: the state file as last read, and what it says.
    read: Option<(Vec<u8>, Arc<State>)>,
}

static SESSION: Mutex<Session> = Mutex::new(Session { users: 0, found: None, read: None });

fn session() -> MutexGuard<'static, Session> {
    SESSION.lock().unwrap_or_else(PoisonError::into_inner)
}

fn home() -> &'static Home {
    static HOME: OnceLock<Home> = OnceLock::new();
    HOME.get_or_init(|| {
        let file = own_file().and_then(|file| file.canonicalize().ok()).unwrap_or_default();
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let version = name.strip_prefix("libnvidia-ml.so.").filter(|rest| rest.contains('.'));
        let version = version.map(str::to_owned);
        Home { version, store: Store::around(&file), file }
    })
}

/// The file that the loader took this library from.
fn own_file() -> Option<PathBuf> {
    // SAFETY: needed as nothing safe knows it. `dladdr` only reads the address, which is one of this library, and fills in
    // the plain structure.
    let info = unsafe {
        let mut info: libc::Dl_info = mem::zeroed();
        let found = libc::dladdr((&raw const SESSION).cast(), &raw mut info);
        (found != 0 && !info.dli_fname.is_null()).then_some(info)?
    };
    // SAFETY: needed to read the answer; the loader keeps this name for as long as the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// One call of `function` that needs no initialised library.
pub fn plain(function: &str, gpu: Option<usize>, call: impl FnOnce() -> Answer) -> u32 {
    let answer = disturb(function, gpu).and_then(|after| {
        let answer = call();
        match after {
            Some(Action::ErrorAfter(code)) => answer.and(Err(code)),
            Some(Action::DieAfter) => {
                die();
                answer
            }
            _ => answer,
        }
    });
    answer.map_or_else(Code::number, |()| 0)
}

/// One call of `function`, answered from the state.
pub fn on_node(function: &str, call: impl FnOnce(&State, &Driver) -> Answer) -> u32 {
    plain(function, None, || with_driver(call))
}

/// One call of `function` for a GPU.
pub fn on_gpu(function: &str, device: Device, call: impl FnOnce(&Gpu, &State) -> Answer) -> u32 {
    plain(function, device.index(), || with_driver(|state, _| call(gpu(state, device)?, state)))
}

/// One call of `function` for a GPU or a MIG device.
pub fn on_device(
    function: &str,
    device: Device,
    call: impl FnOnce(&Gpu, Option<MigDevice<'_>>, &State) -> Answer,
) -> u32 {
    plain(function, device.index(), || {
        with_driver(|state, _| {
            let gpu = found(state, device.index())?;
            let own = |serial| gpu.mig_devices().find(|mig| mig.compute.serial == serial);
            let mig = device.serial().map(|serial| own(serial).ok_or(Code::INVALID_ARGUMENT));
            call(gpu, mig.transpose()?, state)
        })
    })
}

/// One call of `function` for a GPU instance.
pub fn on_instance(
    function: &str,
    instance: Instance,
    call: impl FnOnce(&Gpu, &GpuInstance) -> Answer,
) -> u32 {
    let (index, serial) = instance.read().unzip();
    plain(function, index, || {
        with_driver(|state, _| {
            let gpu = found(state, index)?;
            let own = gpu.instances.iter().find(|own| Some(own.serial) == serial);
            call(gpu, own.ok_or(Code::INVALID_ARGUMENT)?)
        })
    })
}

/// One call of `function` for a compute instance.
pub fn on_compute(
    function: &str,
    compute: Compute,
    call: impl FnOnce(MigDevice<'_>) -> Answer,
) -> u32 {
    let (index, serial) = compute.read().unzip();
    plain(function, index, || {
        with_driver(|state, _| {
            let mut all = found(state, index)?.mig_devices();
            let own = all.find(|mig| Some(mig.compute.serial) == serial);
            call(own.ok_or(Code::INVALID_ARGUMENT)?)
        })
    })
}

/// Changes instances or the mode of a GPU, under way in a call for it.
pub fn cut<T>(
    gpu: Option<usize>,
    change: impl FnOnce(&mut Gpu, &mut u64) -> Result<T, Code>,
) -> Result<T, Code> {
    let gpu = gpu.ok_or(Code::INVALID_ARGUMENT)?;
    admin::carry_out(privileged()?, gpu, change).map_err(|_| Code::UNKNOWN)?
}

/// The node's state to change. Nobody sets anything from inside a container.
pub fn privileged() -> Result<&'static Store, Code> {
    home().store.as_ref().ok_or(Code::NO_PERMISSION)
}

/// One call of `function` for a pair of GPUs.
pub fn on_pair(
    function: &str,
    devices: (Device, Device),
    call: impl FnOnce(&Gpu, &Gpu) -> Answer,
) -> u32 {
    plain(function, devices.0.index(), || {
        with_driver(|state, _| call(gpu(state, devices.0)?, gpu(state, devices.1)?))
    })
}

/// One call of `function` that changes a GPU.
pub fn change_gpu(function: &str, device: Device, change: impl FnOnce(&mut Gpu) -> Answer) -> u32 {
    on_gpu(function, device, |_, _| {
        let store = privileged()?;
        let index = device.index().ok_or(Code::INVALID_ARGUMENT)?;
        let changed = store.change(|state| Ok(state.gpus.get_mut(index).map(change)));
        changed.map_err(|_| Code::UNKNOWN)?.unwrap_or(Err(Code::INVALID_ARGUMENT))
    })
}

/// Init: from now on calls are answered, until as many shutdowns.
pub fn enter() -> Answer {
    let home = home();
    let found = match &home.store {
        Some(_) => None,
        None => Some(Arc::new(container::observe(Path::new("/"), &home.file)?)),
    };
    let state = match &found {
        Some(found) => found.clone(),
        None => read(&mut session())?,
    };
    let driver = state.driver.as_ref().ok_or(Code::DRIVER_NOT_LOADED)?;
    if home.version.as_ref().is_some_and(|version| *version != driver.version) {
        return Err(Code::LIB_RM_VERSION_MISMATCH);
    }
    let mut session = session();
    session.users += 1;
    if found.is_some() {
        session.found = found;
    }
    Ok(())
}

/// Shutdown.
pub fn leave() -> Answer {
    let mut session = session();
    session.users = session.users.checked_sub(1).ok_or(Code::UNINITIALIZED)?;
    Ok(())
}

fn gpu(state: &State, device: Device) -> Result<&Gpu, Code> {
    // What is a whole GPU's is no MIG device's.
    if device.serial().is_some() { Err(Code::NOT_SUPPORTED) } else { found(state, device.index()) }
}

fn found(state: &State, index: Option<usize>) -> Result<&Gpu, Code> {
    match index.and_then(|index| state.gpus.get(index)) {
        Some(gpu) if gpu.lost => Err(Code::GPU_IS_LOST),
        Some(gpu) => Ok(gpu),
        None => Err(Code::INVALID_ARGUMENT),
    }
}

fn with_driver(call: impl FnOnce(&State, &Driver) -> Answer) -> Answer {
    let state = {
        let mut session = session();
        if session.users == 0 {
            return Err(Code::UNINITIALIZED);
        }
        match &session.found {
            Some(found) => found.clone(),
            None => read(&mut session)?,
        }
    };
    call(&state, state.driver.as_ref().ok_or(Code::DRIVER_NOT_LOADED)?)
}

/// The node's state; parsed again only when other bytes stand there. (Times are too coarse to tell, and inodes come back.)
fn read(session: &mut Session) -> Result<Arc<State>, Code> {
    let store = home().store.as_ref().ok_or(Code::UNKNOWN)?;
    let bytes = store.bytes().map_err(|_| Code::UNKNOWN)?;
    if let Some((_, state)) = session.read.as_ref().filter(|(read, _)| *read == bytes) {
        return Ok(state.clone());
    }
    let state = Arc::new(store.parse(&bytes).map_err(|_| Code::UNKNOWN)?);
    session.read = Some((bytes, state.clone()));
    Ok(state)
}

/// What was injected for this call, and the time that it takes on a real machine. The answer is what is to happen afterwards.
fn disturb(function: &str, gpu: Option<usize>) -> Result<Option<Action>, Code> {
    let Some(store) = &home().store else { return Ok(None) };
    let state = read(&mut session())?;
    thread::sleep(latency::of(function, &state));
    if state.faults.is_empty() {
        return Ok(None);
    }
    let mut after = None;
    let due = store.change(|state| Ok(fault::next(&mut state.faults, function, gpu)));
    for action in due.map_err(|_| Code::UNKNOWN)? {
        match action {
            Action::Error(code) => return Err(code),
            Action::Delay(milliseconds) => {
                thread::sleep(std::time::Duration::from_millis(milliseconds));
            }
            Action::Die => die(),
            Action::ErrorAfter(_) | Action::DieAfter => after = Some(action),
        }
    }
    Ok(after)
}

fn die() {
    // SAFETY: needed as nothing safe ends a process without letting it clean up; `raise` takes a number and no memory.
    unsafe { libc::raise(libc::SIGKILL) };
}

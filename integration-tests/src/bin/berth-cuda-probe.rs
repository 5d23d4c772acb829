//! A small CUDA program for the tests on real GPUs: finds `libcuda.so.1` as every program does, lists the GPUs that it is shown, and
//! uses memory of each. Answers with one line of JSON; runs on the node and in containers.
//!
//! Decides nothing about what it should have seen. Of C's interface it knows what it calls, as cuda.h declares it.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// How much memory of each GPU is filled: more than any driver serves from a pool of its own.
const BYTES: usize = 64 << 20;
/// What it is filled with.
const BYTE: u8 = 0xa5;
/// How much of its end is read again.
const TAIL: usize = 4096;

/// `CUdevice`.
type Device = c_int;
/// `CUdeviceptr`.
type Address = u64;

fn main() -> ExitCode {
    match probe() {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn probe() -> Result<Value> {
    let cuda = Cuda::load()?;
    if cuda.has(simnode::elf::SYMBOL) {
        return Ok(json!({ "stand_in": true }));
    }
    let init: unsafe extern "C" fn(c_uint) -> c_int = cuda.function("cuInit")?;
    // SAFETY: needed to use the library; it takes no pointer.
    cuda.check("cuInit", unsafe { init(0) })?;
    let gpus = (0..cuda.count()?).map(|index| cuda.gpu(index)).collect::<Result<Vec<_>>>()?;
    Ok(json!({ "library": cuda.origin("cuInit")?, "gpus": gpus }))
}

/// The library, loaded until the process ends.
struct Cuda(*mut c_void);

impl Cuda {
    fn load() -> Result<Self> {
        // SAFETY: needed as the loader's own search is what is tried; the name is a constant and ends in a zero.
        let handle = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            // SAFETY: needed for the loader's words; after a failure they are a string that lives until the next call.
            let words = unsafe { CStr::from_ptr(libc::dlerror()) };
            bail!("libcuda.so.1 does not load: {}", words.to_string_lossy());
        }
        Ok(Self(handle))
    }

    fn symbol(&self, name: &str) -> Option<*mut c_void> {
        let name = CString::new(name).ok()?;
        // SAFETY: needed to find functions; the library stays loaded, and the name ends in a zero.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    }

    fn has(&self, name: &str) -> bool {
        self.symbol(name).is_some()
    }

    /// The function of this name. `F` is as cuda.h declares it.
    fn function<F: Copy>(&self, name: &str) -> Result<F> {
        let address = self.symbol(name).with_context(|| format!("libcuda.so.1 has no {name}"))?;
        const { assert!(size_of::<F>() == size_of::<*mut c_void>(), "a function pointer") };
        // SAFETY: needed as dlsym knows no types; every caller here names the type that cuda.h gives the function, and it has the
        // size of a pointer.
        Ok(unsafe { std::mem::transmute_copy(&address) })
    }

    /// The file that a function came from.
    fn origin(&self, name: &str) -> Result<String> {
        let address = self.symbol(name).context("it was just called")?;
        let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: needed to know which library was loaded; the place is one of the right size, and is filled unless 0 is returned.
        let known = unsafe { libc::dladdr(address, found.as_mut_ptr()) };
        ensure!(known != 0, "the loader does not know where {name} is");
        // SAFETY: needed to read it; dladdr has filled it, and its path lives as long as the library.
        let path = unsafe { CStr::from_ptr(found.assume_init().dli_fname) };
        Ok(path.to_string_lossy().into_owned())
    }

    fn check(&self, call: &str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let words: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int =
            self.function("cuGetErrorString")?;
        let mut said = std::ptr::null();
        // SAFETY: needed for the words; the place is one of the right size, and stays or becomes null for an unknown code.
        unsafe { words(code, &raw mut said) };
        ensure!(!said.is_null(), "{call} failed with {code}");
        // SAFETY: needed to read them; they are a constant of the library's.
        let said = unsafe { CStr::from_ptr(said) };
        bail!("{call} failed with {code}: {}", said.to_string_lossy())
    }

    fn count(&self) -> Result<c_int> {
        let count: unsafe extern "C" fn(*mut c_int) -> c_int = self.function("cuDeviceGetCount")?;
        let mut number = 0;
        // SAFETY: needed to ask; the place is one of the right size.
        self.check("cuDeviceGetCount", unsafe { count(&raw mut number) })?;
        Ok(number)
    }

    fn gpu(&self, index: c_int) -> Result<Value> {
        let get: unsafe extern "C" fn(*mut Device, c_int) -> c_int =
            self.function("cuDeviceGet")?;
        let uuid: unsafe extern "C" fn(*mut [u8; 16], Device) -> c_int =
            self.function("cuDeviceGetUuid")?;
        let name: unsafe extern "C" fn(*mut c_char, c_int, Device) -> c_int =
            self.function("cuDeviceGetName")?;
        let (mut device, mut id, mut text) = (0, [0; 16], [0_u8; 128]);
        // SAFETY: needed to ask; the place is one of the right size.
        self.check("cuDeviceGet", unsafe { get(&raw mut device, index) })?;
        // SAFETY: needed to ask; `CUuuid` is 16 bytes.
        self.check("cuDeviceGetUuid", unsafe { uuid(&raw mut id, device) })?;
        // SAFETY: needed to ask; the buffer is longer than is said, so that it always ends in a zero.
        self.check("cuDeviceGetName", unsafe { name(text.as_mut_ptr().cast(), 127, device) })?;
        let name = CStr::from_bytes_until_nul(&text)?.to_string_lossy().into_owned();
        self.fill(device).with_context(|| format!("using memory of {name}"))?;
        Ok(json!({ "uuid": written(&id), "name": name, "bytes": BYTES }))
    }

    /// Fills memory of a GPU and reads the end of it again.
    fn fill(&self, device: Device) -> Result<()> {
        let retain: unsafe extern "C" fn(*mut *mut c_void, Device) -> c_int =
            self.function("cuDevicePrimaryCtxRetain")?;
        let enter: unsafe extern "C" fn(*mut c_void) -> c_int = self.function("cuCtxSetCurrent")?;
        let take: unsafe extern "C" fn(*mut Address, usize) -> c_int =
            self.function("cuMemAlloc_v2")?;
        let set: unsafe extern "C" fn(Address, u8, usize) -> c_int =
            self.function("cuMemsetD8_v2")?;
        let read: unsafe extern "C" fn(*mut c_void, Address, usize) -> c_int =
            self.function("cuMemcpyDtoH_v2")?;
        let free: unsafe extern "C" fn(Address) -> c_int = self.function("cuMemFree_v2")?;
        let leave: unsafe extern "C" fn(Device) -> c_int =
            self.function("cuDevicePrimaryCtxRelease_v2")?;
        let (mut context, mut address, mut tail) = (std::ptr::null_mut(), 0, [0_u8; TAIL]);
        // SAFETY: needed to use the GPU; the place is one of the right size.
        self.check("cuDevicePrimaryCtxRetain", unsafe { retain(&raw mut context, device) })?;
        // SAFETY: needed to use the GPU; the context is the one just had.
        self.check("cuCtxSetCurrent", unsafe { enter(context) })?;
        // SAFETY: needed to use its memory; the place is one of the right size.
        self.check("cuMemAlloc", unsafe { take(&raw mut address, BYTES) })?;
        // SAFETY: needed to use its memory; all of it was just had.
        self.check("cuMemsetD8", unsafe { set(address, BYTE, BYTES) })?;
        let end = address + (BYTES - TAIL) as u64;
        // SAFETY: needed to see what is in it; the buffer has as many bytes as are read.
        self.check("cuMemcpyDtoH", unsafe { read(tail.as_mut_ptr().cast(), end, TAIL) })?;
        // SAFETY: needed to give it back; it is not used again.
        self.check("cuMemFree", unsafe { free(address) })?;
        // SAFETY: needed to leave the GPU; the context is not used again.
        self.check("cuDevicePrimaryCtxRelease", unsafe { leave(device) })?;
        ensure!(tail == [BYTE; TAIL], "its memory does not hold what was written");
        Ok(())
    }
}

/// `GPU-…`, as everybody else writes it.
fn written(id: &[u8; 16]) -> String {
    let hex: Vec<String> = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&hex[..4], &hex[4..6], &hex[6..8], &hex[8..10], &hex[10..]].map(<[_]>::concat);
    format!("GPU-{}", parts.join("-"))
}

//! The driver library as nvidia-smi uses it: loaded at run time, a function at a time.
//!
//! The only file of this program that calls foreign code.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::mem;
use std::path::PathBuf;

use simnode::Node;
use simnode::code::Code;

/// How it ends when it cannot answer, with the words and the exit status of the real one.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Not among the questions that this stand-in understands.
    #[error(
        "ERROR: this stand-in knows no options but -L, topo -m and --query-gpu with --format=csv,noheader[,nounits]"
    )]
    Usage,
    /// No library.
    #[error(
        "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA Display \
         Driver is properly installed and present in your system.\nPlease also try adding directory that contains \
         libnvidia-ml.so to your system PATH."
    )]
    Library,
    /// No driver.
    #[error(
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest \
         NVIDIA driver is installed and running.\n"
    )]
    Driver,
    /// The library cannot be initialised.
    #[error("Failed to initialize NVML: {}", words(*.0))]
    Init(u32),
    /// No GPU.
    #[error("No devices were found")]
    Devices,
    /// A call failed.
    #[error("Unable to determine the device handle or its properties: {}", words(*.0))]
    Call(u32),
}

fn words(number: u32) -> &'static str {
    simnode::code::text(number).trim_end_matches('\0')
}

impl Failure {
    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Library => 12,
            Self::Driver => 9,
            Self::Devices => 6,
            Self::Init(number) | Self::Call(number) => u8::try_from(*number).unwrap_or(255),
        }
    }
}

/// `nvmlDevice_t`.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Device(*mut c_void);

/// `nvmlMemory_t`.
#[repr(C)]
pub struct Memory {
    pub total: u64,
    pub free: u64,
    pub used: u64,
}

/// `nvmlPciInfo_t`.
#[repr(C)]
struct PciInfo {
    legacy: [u8; 16],
    numbers: [u32; 5],
    bus_id: [u8; 32],
}

/// The library, initialised. It stays so until the process ends.
pub struct Nvml(*mut c_void);

type TextOf = unsafe extern "C" fn(Device, *mut c_char, c_uint) -> c_uint;
type NumberOf = unsafe extern "C" fn(Device, *mut c_uint) -> c_uint;

impl Nvml {
    /// The one of the node that this program lies in, else the one that the loader finds.
    pub fn load() -> Result<Self, Failure> {
        let name = own_node().unwrap_or_else(|| "libnvidia-ml.so.1".into());
        let name = CString::new(name.into_os_string().into_encoded_bytes())
            .map_err(|_| Failure::Library)?;
        // SAFETY: needed as the library is to be found at run time; it is trusted to be what its name says, as by the
        // real program.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            return Err(Failure::Library);
        }
        let nvml = Self(handle);
        let init: unsafe extern "C" fn() -> c_uint = nvml.function("nvmlInit_v2")?;
        // SAFETY: needed to use the library at all; nvml.h declares it like this.
        match unsafe { init() } {
            0 => Ok(nvml),
            number if number == Code::DRIVER_NOT_LOADED.number() => Err(Failure::Driver),
            number => Err(Failure::Init(number)),
        }
    }

    /// The function of this name. `F` is as nvml.h declares it.
    fn function<F: Copy>(&self, name: &str) -> Result<F, Failure> {
        let found = CString::new(name).ok();
        // SAFETY: needed to find the function; the handle is that of a library that stays loaded.
        let address = found.map(|name| unsafe { libc::dlsym(self.0, name.as_ptr()) });
        let address = address.filter(|address| !address.is_null());
        let address = address.ok_or(Failure::Call(Code::FUNCTION_NOT_FOUND.number()))?;
        const { assert!(size_of::<F>() == size_of::<*mut c_void>(), "a function pointer") };
        // SAFETY: needed as dlsym knows no types; every caller in this file names the type that nvml.h gives the function,
        // and it has the size of a pointer.
        Ok(unsafe { mem::transmute_copy(&address) })
    }

    fn text(&self, name: &str, device: Device) -> Result<String, Failure> {
        let call: TextOf = self.function(name)?;
        let mut buffer = [0_u8; 128];
        // SAFETY: needed to ask; the buffer is as long as is said.
        check(unsafe { call(device, buffer.as_mut_ptr().cast(), 128) })?;
        Ok(until_nul(&buffer))
    }

    fn number(&self, name: &str, device: Device) -> Result<u32, Failure> {
        let call: NumberOf = self.function(name)?;
        let mut value = 0;
        // SAFETY: needed to ask; the place is one of the right size.
        check(unsafe { call(device, &raw mut value) })?;
        Ok(value)
    }

    /// All GPUs.
    pub fn devices(&self) -> Result<Vec<Device>, Failure> {
        let count: unsafe extern "C" fn(*mut c_uint) -> c_uint =
            self.function("nvmlDeviceGetCount_v2")?;
        let handle: unsafe extern "C" fn(c_uint, *mut Device) -> c_uint =
            self.function("nvmlDeviceGetHandleByIndex_v2")?;
        let mut number = 0;
        // SAFETY: needed to ask; the place is one of the right size.
        check(unsafe { count(&raw mut number) })?;
        let one = |index| {
            let mut device = Device(std::ptr::null_mut());
            // SAFETY: as above.
            check(unsafe { handle(index, &raw mut device) }).map(|()| device)
        };
        let devices: Vec<Device> = (0..number).map(one).collect::<Result<_, _>>()?;
        if devices.is_empty() { Err(Failure::Devices) } else { Ok(devices) }
    }

    /// MIG devices of a GPU; none where it has no MIG mode, or is not in it.
    pub fn mig_devices(&self, device: Device) -> Result<Vec<Device>, Failure> {
        let handle: unsafe extern "C" fn(Device, c_uint, *mut Device) -> c_uint =
            self.function("nvmlDeviceGetMigDeviceHandleByIndex")?;
        let one = |index| {
            let mut mig = Device(std::ptr::null_mut());
            // SAFETY: needed to ask; the place is one of the right size. A device that is not there is an error, not a fault.
            (unsafe { handle(device, index, &raw mut mig) } == 0).then_some(mig)
        };
        Ok((0..self.number("nvmlDeviceGetMaxMigDeviceCount", device)?).filter_map(one).collect())
    }

    /// The driver's version, and that of CUDA.
    pub fn versions(&self) -> Result<(String, i32), Failure> {
        let driver: unsafe extern "C" fn(*mut c_char, c_uint) -> c_uint =
            self.function("nvmlSystemGetDriverVersion")?;
        let cuda: unsafe extern "C" fn(*mut c_int) -> c_uint =
            self.function("nvmlSystemGetCudaDriverVersion_v2")?;
        let mut buffer = [0_u8; 128];
        let mut version = 0;
        // SAFETY: needed to ask; the buffer is as long as is said.
        check(unsafe { driver(buffer.as_mut_ptr().cast(), 128) })?;
        // SAFETY: needed to ask; the place is one of the right size.
        check(unsafe { cuda(&raw mut version) })?;
        Ok((until_nul(&buffer), version))
    }

    pub fn name(&self, device: Device) -> Result<String, Failure> {
        self.text("nvmlDeviceGetName", device)
    }

    pub fn uuid(&self, device: Device) -> Result<String, Failure> {
        self.text("nvmlDeviceGetUUID", device)
    }

    /// `00000000:53:00.0`.
    pub fn bus_id(&self, device: Device) -> Result<String, Failure> {
        let call: unsafe extern "C" fn(Device, *mut PciInfo) -> c_uint =
            self.function("nvmlDeviceGetPciInfo_v3")?;
        let mut info = PciInfo { legacy: [0; 16], numbers: [0; 5], bus_id: [0; 32] };
        // SAFETY: needed to ask; the place has the layout that nvml.h gives it.
        check(unsafe { call(device, &raw mut info) })?;
        Ok(until_nul(&info.bus_id))
    }

    /// Compute capability: major and minor.
    pub fn compute(&self, device: Device) -> Result<(i32, i32), Failure> {
        let call: unsafe extern "C" fn(Device, *mut c_int, *mut c_int) -> c_uint =
            self.function("nvmlDeviceGetCudaComputeCapability")?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: needed to ask; the places are of the right size.
        check(unsafe { call(device, &raw mut major, &raw mut minor) })?;
        Ok((major, minor))
    }

    /// Per GPU: temperature is not asked for, power draw and limit in milliwatts.
    pub fn power(&self, device: Device) -> Result<(u32, u32), Failure> {
        let usage = self.number("nvmlDeviceGetPowerUsage", device)?;
        Ok((usage, self.number("nvmlDeviceGetEnforcedPowerLimit", device)?))
    }

    pub fn memory(&self, device: Device) -> Result<Memory, Failure> {
        let call: unsafe extern "C" fn(Device, *mut Memory) -> c_uint =
            self.function("nvmlDeviceGetMemoryInfo")?;
        let mut memory = Memory { total: 0, free: 0, used: 0 };
        // SAFETY: needed to ask; the place has the layout that nvml.h gives it.
        check(unsafe { call(device, &raw mut memory) })?;
        Ok(memory)
    }

    /// `nvmlGpuTopologyLevel_t` between two GPUs.
    pub fn ancestor(&self, one: Device, other: Device) -> Result<u32, Failure> {
        let call: unsafe extern "C" fn(Device, Device, *mut c_uint) -> c_uint =
            self.function("nvmlDeviceGetTopologyCommonAncestor")?;
        let mut level = 0;
        // SAFETY: needed to ask; the place is one of the right size.
        check(unsafe { call(one, other, &raw mut level) })?;
        Ok(level)
    }

    /// NVLinks that are up, and whether two GPUs can talk over theirs.
    pub fn links(&self, one: Device, other: Device) -> Result<u32, Failure> {
        let state: unsafe extern "C" fn(Device, c_uint, *mut c_uint) -> c_uint =
            self.function("nvmlDeviceGetNvLinkState")?;
        let peers: unsafe extern "C" fn(Device, Device, c_uint, *mut c_uint) -> c_uint =
            self.function("nvmlDeviceGetP2PStatus")?;
        let mut status = 1;
        // SAFETY: needed to ask; the place is one of the right size. 2 is NVLink.
        check(unsafe { peers(one, other, 2, &raw mut status) })?;
        let up = |number: &u32| {
            let mut active = 0;
            // SAFETY: as above; a link that is not there is an error, not a fault.
            unsafe { state(one, *number, &raw mut active) == 0 && active == 1 }
        };
        let count = (0..18).filter(up).count();
        Ok(if status == 0 { u32::try_from(count).unwrap_or(0) } else { 0 })
    }

    /// CPUs next to a GPU, as words of a mask.
    pub fn cpus(&self, device: Device) -> Result<Vec<u32>, Failure> {
        let call: unsafe extern "C" fn(Device, c_uint, *mut u64) -> c_uint =
            self.function("nvmlDeviceGetCpuAffinity")?;
        let mut words = [0_u64; 16];
        // SAFETY: needed to ask; there are as many words as is said.
        check(unsafe { call(device, 16, words.as_mut_ptr()) })?;
        let set = |cpu: &u32| words[(cpu / 64) as usize] >> (cpu % 64) & 1 == 1;
        Ok((0..1024).filter(set).collect())
    }
}

fn check(number: c_uint) -> Result<(), Failure> {
    if number == 0 { Ok(()) } else { Err(Failure::Call(number)) }
}

fn until_nul(buffer: &[u8]) -> String {
    let text = buffer.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn own_node() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().find_map(|dir| Node::open(dir).ok()?.nvml_path().ok())
}

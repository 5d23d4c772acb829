//! Who uses a GPU: a list each for CUDA, graphics and MPS clients, in three versions.

use simnode::code::Code;
use simnode::state::{Process, Use};

use crate::gate::{on_device, on_gpu};
use crate::opaque::Device;
use crate::pointer::{Array, Out};
use crate::structs::{Process1, Process2};

fn list<T>(name: &str, device: Device, count: Out<u32>, infos: Array<T>, kind: Use) -> u32
where
    T: for<'a> From<&'a Process>,
{
    on_device(name, device, |gpu, mig, _| {
        let all: Vec<&Process> = match mig {
            Some(mig) => mig.processes().collect(),
            None => gpu.processes.iter().collect(),
        };
        let found = all.into_iter().filter(|process| process.r#use == kind);
        infos.put(found.map(T::from).collect(), count)
    })
}

macro_rules! lists {
    ($($name:ident: $type:ty, $kind:ident;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name(device: Device, count: Out<u32>, infos: Array<$type>) -> u32 {
            list(stringify!($name), device, count, infos, Use::$kind)
        }
    )*};
}

lists! {
    nvmlDeviceGetComputeRunningProcesses: Process1, Compute;
    nvmlDeviceGetComputeRunningProcesses_v2: Process2, Compute;
    nvmlDeviceGetComputeRunningProcesses_v3: Process2, Compute;
    nvmlDeviceGetGraphicsRunningProcesses: Process1, Graphics;
    nvmlDeviceGetGraphicsRunningProcesses_v2: Process2, Graphics;
    nvmlDeviceGetGraphicsRunningProcesses_v3: Process2, Graphics;
    nvmlDeviceGetMPSComputeRunningProcesses: Process1, Mps;
    nvmlDeviceGetMPSComputeRunningProcesses_v2: Process2, Mps;
    nvmlDeviceGetMPSComputeRunningProcesses_v3: Process2, Mps;
}

/// No samples: nothing runs here.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetProcessUtilization(
    device: Device,
    samples: Array<u8>,
    count: Out<u32>,
    since: u64,
) -> u32 {
    let _ = (samples, since);
    on_gpu("nvmlDeviceGetProcessUtilization", device, |gpu, _| {
        if gpu.mig.is_some_and(|mode| mode.current) {
            return Err(Code::NOT_SUPPORTED);
        }
        count.put(0)?;
        Err(Code::NOT_FOUND)
    })
}

//! How busy a GPU is.

use simnode::code::Code;

use crate::gate::on_gpu;
use crate::opaque::Device;
use crate::pointer::{Array, Out};
use crate::structs::{FieldValue, Utilization};

values! {
    nvmlDeviceGetUtilizationRates: Utilization = |gpu, _| {
        // Nobody can say for a GPU that is cut into instances.
        if gpu.mig.is_some_and(|mode| mode.current) {
            return Err(Code::NOT_SUPPORTED);
        }
        Utilization { gpu: gpu.utilisation.0, memory: gpu.utilisation.1 }
    };
}

const SAMPLING: u32 = 167_000;

fn codec(name: &str, device: Device, utilization: Out<u32>, period: Out<u32>) -> u32 {
    on_gpu(name, device, |_, _| {
        utilization.put(0)?;
        period.put(SAMPLING)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetEncoderUtilization(
    device: Device,
    utilization: Out<u32>,
    period: Out<u32>,
) -> u32 {
    codec("nvmlDeviceGetEncoderUtilization", device, utilization, period)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetDecoderUtilization(
    device: Device,
    utilization: Out<u32>,
    period: Out<u32>,
) -> u32 {
    codec("nvmlDeviceGetDecoderUtilization", device, utilization, period)
}

/// `NVML_FI_DEV_NVLINK_LINK_COUNT`.
const LINK_COUNT: u32 = 91;
/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const UNSIGNED: u32 = 1;

/// Each value has an answer of its own; those that are not simulated say so there.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetFieldValues(
    device: Device,
    count: i32,
    values: Array<FieldValue>,
) -> u32 {
    on_gpu("nvmlDeviceGetFieldValues", device, |gpu, _| {
        let count = usize::try_from(count).ok().filter(|count| *count > 0);
        for index in 0..count.ok_or(Code::INVALID_ARGUMENT)? {
            let place = values.at(index);
            let mut value = place.get()?;
            value.kind = UNSIGNED;
            (value.answer, value.value) = match value.field {
                LINK_COUNT => (0, gpu.links.len() as u64),
                _ => (Code::NOT_SUPPORTED.number(), 0),
            };
            place.put(value)?;
        }
        Ok(())
    })
}

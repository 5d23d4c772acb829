//! Where a GPU hangs on the PCI bus, and how fast that is.

use simnode::code::Code;
use simnode::state::Gpu;

use crate::structs::{PciInfo, PciInfo2};

values! {
    nvmlDeviceGetPciInfo_v3: PciInfo = |gpu, _| PciInfo::of(gpu);
    nvmlDeviceGetPciInfo_v2: PciInfo2 = |gpu, _| PciInfo::of(gpu).into();
    nvmlDeviceGetPciInfo: PciInfo2 = |gpu, _| PciInfo::of(gpu).into();
    // NVML_BUS_TYPE_PCIE
    nvmlDeviceGetBusType: u32 = |_, _| 2;
    nvmlDeviceGetCurrPcieLinkGeneration: u32 = |gpu, _| gpu.model().pcie.0;
    nvmlDeviceGetMaxPcieLinkGeneration: u32 = |gpu, _| gpu.model().pcie.0;
    nvmlDeviceGetCurrPcieLinkWidth: u32 = |gpu, _| gpu.model().pcie.1;
    nvmlDeviceGetMaxPcieLinkWidth: u32 = |gpu, _| gpu.model().pcie.1;
    nvmlDeviceGetPcieLinkMaxSpeed: u32 = |gpu, _| speed(gpu)?;
    nvmlDeviceGetPcieSpeed: u32 = |gpu, _| speed(gpu)?;
    nvmlDeviceGetPcieReplayCounter: u32 = |_, _| 0;
    nvmlDeviceGetIrqNum: u32 = |gpu, _| 160 + gpu.minor;
}

/// Mega transfers a second.
fn speed(gpu: &Gpu) -> Result<u32, Code> {
    match gpu.model().pcie.0 {
        3 => Ok(8_000),
        4 => Ok(16_000),
        5 => Ok(32_000),
        _ => Err(Code::NOT_SUPPORTED),
    }
}

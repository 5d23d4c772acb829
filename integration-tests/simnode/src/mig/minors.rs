//! Minors of the capability nodes: the driver's fixed table (`/proc/driver/nvidia-caps/mig-minors`).

/// Of `mig/config`: who may open it may cut GPUs.
pub const CONFIG: u32 = 1;
/// Of `mig/monitor`: who may open it sees all instances.
pub const MONITOR: u32 = 2;

const GPUS: u32 = 32;
const INSTANCES: u32 = 15;
const COMPUTE: u32 = 8;

/// Of `gpuG/giI/access`; `gpu` is the GPU's minor.
#[must_use]
pub const fn gpu_instance(gpu: u32, instance: u32) -> u32 {
    MONITOR + 1 + (gpu * INSTANCES + instance) * (COMPUTE + 1)
}

/// Of `gpuG/giI/ciC/access`.
#[must_use]
pub const fn compute_instance(gpu: u32, instance: u32, compute: u32) -> u32 {
    gpu_instance(gpu, instance) + 1 + compute
}

/// The whole table, as the driver prints it.
#[must_use]
pub fn table() -> String {
    let mut text = format!("config {CONFIG}\nmonitor {MONITOR}\n");
    for gpu in 0..GPUS {
        for instance in 0..INSTANCES {
            let minor = gpu_instance(gpu, instance);
            text.push_str(&format!("gpu{gpu}/gi{instance}/access {minor}\n"));
            for compute in 0..COMPUTE {
                let minor = compute_instance(gpu, instance, compute);
                text.push_str(&format!("gpu{gpu}/gi{instance}/ci{compute}/access {minor}\n"));
            }
        }
    }
    text
}

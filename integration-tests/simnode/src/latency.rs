//! How long a call of the driver library takes on a real machine.
//!
//! Round figures for data-centre cards: enough to see who calls what on the launch path, not to benchmark NVML.

use std::time::Duration;

use crate::state::{Latency, State};

/// How long one call of `function` takes on this node.
#[must_use]
pub fn of(function: &str, state: &State) -> Duration {
    match state.latency {
        Latency::None => Duration::ZERO,
        Latency::Real => Duration::from_micros(micros(function, state)),
    }
}

fn micros(function: &str, state: &State) -> u64 {
    // Init opens every GPU; without persistence mode the driver first has to start each of them.
    let attach = |persistence: bool| if persistence { 6_000 } else { 250_000 };
    match function {
        "nvmlInit" | "nvmlInit_v2" | "nvmlInitWithFlags" => {
            10_000 + state.gpus.iter().map(|gpu| attach(gpu.persistence)).sum::<u64>()
        }
        "nvmlShutdown" => 2_000 + 500 * state.gpus.len() as u64,
        "nvmlDeviceCreateGpuInstance" | "nvmlDeviceCreateGpuInstanceWithPlacement" => 150_000,
        "nvmlGpuInstanceDestroy" => 1_000_000,
        "nvmlGpuInstanceCreateComputeInstance"
        | "nvmlGpuInstanceCreateComputeInstanceWithPlacement" => 60_000,
        "nvmlComputeInstanceDestroy" => 40_000,
        "nvmlDeviceSetMigMode" => 1_500_000,
        name if name.contains("RunningProcesses") => 2_000,
        name if name.contains("Utilization") || name.contains("Power") => 1_000,
        name if name.contains("MigMode") || name.contains("MemoryInfo") => 300,
        name if name.contains("NvLink") => 60,
        name if name.contains("Topology") || name.contains("P2P") => 120,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::profile::Profile;

    #[test]
    fn init_is_dear_and_dearer_without_persistence_and_all_is_free_by_default() {
        let profile = Profile::named("p5").expect("known");
        let mut state = State {
            profile: profile.name.to_owned(),
            layout: Layout::Debian,
            latency: Latency::Real,
            driver: profile.driver.clone(),
            machine: profile.machine.clone(),
            gpus: profile.gpus(),
            switches: Vec::new(),
            faults: Vec::new(),
            instances_made: 0,
            capability_nodes: false,
        };
        let millis = |state: &State| of("nvmlInit_v2", state).as_millis();
        assert_eq!(millis(&state), 58);
        assert!(of("nvmlDeviceGetUUID", &state) < Duration::from_micros(10));
        state.gpus.iter_mut().for_each(|gpu| gpu.persistence = false);
        assert_eq!(millis(&state), 2010);
        state.latency = Latency::None;
        assert_eq!(millis(&state), 0);
    }
}

//! Berth on this machine's own GPUs: what it says of them against what the driver's own programs say, the driver's files as it prepares
//! them, an admission, and, where containers can run, CUDA in them.
//!
//! Decides what is tried and in which order it is shown. On a machine without a GPU everything is skipped, with the reason.
//! `BERTH_GPU_TEST_CONFIG` names a configuration of another node than this machine, such as a simulated one.

mod admission;
mod containers;
mod cuda;
mod doctor;
mod driver;
mod ground;
mod inventory;
mod smi;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use ground::Ground;
use integration_tests::suite::Suite;
use integration_tests::trial;

/// A trial: its name and what it does.
type Trial = (&'static str, fn(&Ground) -> Result<()>);

const TRIALS: &[Trial] = &[
    trial!(inventory::every_gpu_is_as_nvidia_smi_says),
    trial!(inventory::closeness_is_as_nvidia_smi_says),
    trial!(inventory::a_second_look_answers_from_the_first),
    trial!(doctor::it_finds_driver_gpus_and_files),
    trial!(driver::every_name_of_a_library_resolves),
    trial!(driver::nvidia_smi_runs_from_the_prepared_tree),
    trial!(driver::cuda_runs_from_the_prepared_tree),
    trial!(admission::nodes_are_those_of_the_machine),
    trial!(admission::proc_shows_the_granted_gpu_alone),
    trial!(containers::cuda_has_the_granted_gpu_and_its_memory),
    trial!(containers::cuda_has_all_gpus_where_all_are_granted),
    trial!(containers::nvidia_smi_lists_the_granted_gpu_alone),
    trial!(containers::an_exec_has_the_gpu_too),
    trial!(containers::without_a_request_there_is_none),
    trial!(containers::no_room_is_said_and_what_is_given_back_can_be_had),
];

fn main() -> ExitCode {
    let ground = Arc::new(Ground::look());
    if let Some(reason) = &ground.skip {
        eprintln!("skipped: {reason}");
    }
    let mut suite = Suite::new("real_gpu");
    for (name, body) in TRIALS {
        let held = Arc::clone(&ground);
        suite.plain(name, ground.skip.clone(), move || body(&held));
    }
    suite.run_as_it_is()
}

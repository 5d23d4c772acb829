//! The shim under a real containerd, driven with ctr. Everything on one version, a smoke set on
//! each other one found.

mod checkpoints;
mod failing;
mod faults;
mod lifecycle;
mod streams;

use std::process::ExitCode;

use integration_tests::containerd::stage;
use integration_tests::scene;

fn main() -> ExitCode {
    stage::play(
        "containerd",
        &[
            scene!(smoke lifecycle::run_shows_what_the_container_writes),
            scene!(smoke lifecycle::the_runtime_can_be_given_as_a_path),
            scene!(smoke lifecycle::a_container_is_run_entered_killed_and_deleted)
                .reference_unsteady_since((2, 0), "the reference lost the output of a short exec"),
            scene!(smoke lifecycle::the_runtime_under_test_is_the_one_that_is_called),
            scene!(lifecycle::exit_codes_reach_the_caller),
            scene!(lifecycle::deleting_a_running_task_is_refused),
            scene!(smoke lifecycle::a_paused_container_stands_still),
            scene!(smoke lifecycle::metrics_show_what_the_container_uses),
            scene!(lifecycle::ps_lists_the_processes_of_container_and_exec),
            scene!(smoke lifecycle::root_of_a_user_namespace_is_not_the_machines_root),
            scene!(smoke lifecycle::events_come_in_the_order_of_what_happened)
                .reference_unsteady_since((2, 0), "the reference ended before its last event left"),
            scene!(smoke streams::a_terminal_has_its_size_and_carries_input),
            scene!(smoke streams::output_of_a_detached_container_waits_for_the_one_who_attaches),
            scene!(streams::input_ends_when_the_caller_closes_it),
            scene!(streams::much_output_arrives_whole),
            scene!(smoke streams::a_log_file_gets_the_output).reference_unsteady_since(
                (2, 0),
                "the reference lost the output of a short container",
            ),
            scene!(smoke failing::a_missing_program_is_named_and_leaves_nothing),
            scene!(failing::a_missing_program_of_an_exec_is_named),
            scene!(smoke checkpoints::a_container_goes_on_from_its_checkpoint),
            scene!(checkpoints::a_checkpoint_harms_nothing_whether_it_succeeds_or_not),
            scene!(failing::a_duplicate_container_is_refused),
            scene!(smoke faults::a_killed_shim_leaves_nothing),
            scene!(smoke faults::a_cleanup_that_failed_is_repeated_by_the_next_containerd)
                .reference_unsteady_since(
                    (1, 0),
                    "the reference says that it has cleaned up whatever has come of it",
                ),
            scene!(smoke faults::containers_outlive_a_restart_of_containerd),
            scene!(smoke faults::containers_outlive_a_killed_containerd),
        ],
    )
}

//! The shim under a real containerd, driven as the kubelet does. Everything on one version, a smoke
//! set on each other one found.

mod containers;
mod failing;
mod pods;
mod restarts;
mod streams;

use std::process::ExitCode;

use integration_tests::containerd::stage;
use integration_tests::scene;

fn main() -> ExitCode {
    stage::play(
        "cri",
        &[
            scene!(smoke pods::two_containers_share_one_shim),
            scene!(smoke pods::the_handler_by_runtime_type_runs_the_shim),
            scene!(smoke pods::the_handler_by_path_runs_the_shim)
                .since((1, 7), "containerd 1.6 does not pass runtime_path on (its issue 8207)"),
            scene!(smoke pods::the_options_of_a_handler_by_runtime_type_reach_the_shim)
                .reference_unsteady_since(
                    (1, 0),
                    "options of this form are for runtimes with a name of their own",
                ),
            scene!(smoke pods::the_options_of_a_handler_by_path_reach_the_shim)
                .since((1, 7), "containerd 1.6 does not pass runtime_path on (its issue 8207)"),
            scene!(smoke pods::annotations_reach_the_shim),
            scene!(pods::a_container_is_restarted_within_its_pod),
            scene!(smoke pods::a_removed_pod_leaves_nothing_of_running_containers),
            scene!(smoke containers::commands_run_to_their_end_in_a_container),
            scene!(containers::a_command_that_takes_too_long_is_ended),
            scene!(smoke streams::an_execs_streams_and_exit_code_come_over_websocket),
            scene!(smoke streams::an_exec_reads_what_is_streamed_to_it),
            scene!(smoke streams::a_terminal_is_attached_to_again_after_a_detach),
            scene!(streams::pipes_are_attached_to_again_after_a_detach),
            scene!(smoke containers::logs_are_complete_and_in_order),
            scene!(smoke containers::what_a_container_writes_before_it_ends_is_logged).since(
                (1, 7),
                "containerd 1.6 closes an ended container's streams before it has read them",
            ),
            scene!(smoke containers::statistics_show_use),
            scene!(smoke containers::changed_resources_reach_the_cgroup),
            scene!(containers::a_container_that_ignores_its_stop_signal_is_killed),
            scene!(smoke containers::one_killed_for_memory_says_so),
            scene!(failing::a_missing_program_fails_the_start_and_leaves_nothing),
            scene!(failing::a_killed_shim_takes_its_pod_with_it),
            scene!(smoke restarts::pods_outlive_a_restart_of_containerd),
            scene!(smoke restarts::pods_outlive_a_killed_containerd),
        ],
    )
}

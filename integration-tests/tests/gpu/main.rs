//! Containers with GPUs, on simulated nodes: real containerd, real runc, real device rules; only the hardware is not there.

mod allocated;
mod breadth;
mod brought;
mod calls;
mod cdi;
mod chosen;
mod command;
mod descriptors;
mod doctor;
mod drawn;
mod execs;
mod extras;
mod families;
mod faults;
mod first;
mod geometries;
mod half_made;
mod hostile;
mod hosts;
mod inside;
mod instances;
mod killed;
mod lasting;
mod layouts;
mod machines;
mod node_keys;
mod packaged;
mod pinned;
mod planned;
mod pod_refusals;
mod pods;
mod policy;
mod prior;
mod prior_instances;
mod refused;
mod repaired;
mod restarts;
mod roots;
mod specified;

use std::process::ExitCode;

use integration_tests::containerd::stage;
use integration_tests::scene;
use integration_tests::suite::Suite;
use integration_tests::under_test::reference;

use hostile::{cache, compat, console, keeps, outside, preload, requests, runtime, swaps};

fn main() -> ExitCode {
    if reference() {
        let mut nothing = Suite::new("gpu");
        let reason = "containerd's own shim knows no GPUs: there is nothing to compare with";
        nothing.plain("gpu", Some(reason.to_owned()), || Ok(()));
        return nothing.run();
    }
    stage::play(
        "gpu",
        &[
            scene!(smoke first::a_container_gets_the_gpu_that_it_asked_for),
            scene!(smoke instances::an_instance_is_there_as_long_as_its_container),
            scene!(instances::several_instances_are_one_grant),
            scene!(instances::an_instance_stays_until_its_container_is_deleted),
            scene!(instances::what_others_made_is_neither_given_nor_touched),
            scene!(instances::what_others_made_is_given_by_its_name_and_left),
            scene!(instances::whole_gpus_and_instances_live_side_by_side),
            scene!(instances::a_freed_instance_is_taken_over_while_it_lingers),
            scene!(instances::an_unknown_profile_is_refused_with_those_that_there_are),
            scene!(instances::a_reload_of_the_driver_takes_the_instances_and_is_noticed),
            scene!(half_made::what_the_driver_refuses_leaves_nothing),
            scene!(half_made::what_cannot_be_undone_at_once_is_undone_later),
            scene!(half_made::a_child_that_is_killed_leaves_nothing),
            scene!(half_made::a_driver_that_hangs_is_not_waited_for),
            scene!(half_made::processes_that_linger_keep_an_instance_a_while),
            scene!(half_made::what_a_killed_child_left_is_given_back_by_whoever_comes),
            scene!(geometries::every_profile_of_an_a100),
            scene!(geometries::every_profile_of_an_h100),
            scene!(geometries::every_profile_of_an_h200),
            scene!(geometries::every_profile_of_a_b200),
            scene!(geometries::every_profile_of_an_a30),
            scene!(geometries::thirty_two_launches_at_once_get_thirty_two_instances),
            scene!(geometries::a_gpu_is_switched_into_mig_mode_where_policy_allows),
            scene!(geometries::a_mode_that_takes_a_reset_is_left_as_it_is),
            scene!(geometries::without_leave_the_mode_stays_and_the_refusal_says_so),
            scene!(prior_instances::an_instance_whose_nodes_others_injected_is_taken_as_it_is),
            scene!(prior_instances::an_instance_of_a_cdi_device_is_taken_as_it_is),
            scene!(smoke prior_instances::an_instance_that_containerd_resolved_is_taken_as_it_is)
                .since((2, 0), "containerd 1.x resolves CDI names only where it is told to"),
            scene!(prior_instances::an_instance_of_a_generated_specification_is_taken_as_it_is),
            scene!(prior_instances::an_instance_of_the_kubelets_checkpoint_is_taken_as_it_is),
            scene!(prior_instances::an_instance_of_the_plugins_mounts_is_taken_as_it_is),
            scene!(prior_instances::forged_marks_of_instances_give_nothing),
            scene!(prior_instances::whoever_gives_a_whole_gpu_in_mig_mode_is_told),
            scene!(smoke pods::containers_of_a_pod_share_its_claim),
            scene!(smoke pods::the_handler_by_path_gives_a_gpu)
                .since((1, 7), "containerd 1.6 does not pass runtime_path on (its issue 8207)"),
            scene!(pods::a_container_may_have_its_own_claim_or_none),
            scene!(smoke pods::a_pods_claim_is_held_until_its_sandbox_is_gone),
            scene!(pods::a_restarted_container_keeps_what_it_had),
            scene!(pods::init_sidecar_app_and_ephemeral_containers_share_the_claim),
            scene!(pods::pods_do_not_share_gpus),
            scene!(smoke lasting::changed_resources_leave_the_gpu_open),
            scene!(smoke lasting::a_restart_of_containerd_keeps_grants),
            scene!(lasting::a_killed_containerd_keeps_grants),
            scene!(smoke lasting::a_killed_shim_gives_back_what_its_pod_held),
            scene!(lasting::a_pod_removed_with_containers_running_frees_all_its_claims),
            scene!(descriptors::a_shim_holds_after_thirty_rounds_what_it_held_before),
            scene!(smoke pod_refusals::no_room_names_holders_and_the_nearest_fit),
            scene!(
                pod_refusals::what_cannot_be_understood_is_said_of_the_container_that_it_addresses
            ),
            scene!(pod_refusals::a_refused_container_starts_when_there_is_room),
            scene!(smoke prior::injected_nodes_are_a_grant_that_another_decided),
            scene!(smoke prior::the_variable_counts_with_the_checkpoint_in_both_of_its_forms),
            scene!(smoke prior::the_mounts_count_with_the_checkpoint),
            scene!(prior::the_void_marker_of_an_injected_container_stays),
            scene!(prior::what_is_injected_already_is_not_injected_again),
            scene!(prior::forged_marks_give_nothing),
            scene!(prior::external_grants_may_overlap_each_other_but_never_berths_own),
            scene!(prior::annotations_must_agree_with_what_was_allocated),
            scene!(prior::a_damaged_checkpoint_refuses_whom_it_may_be_about),
            scene!(cache::cve_2025_23267_a_cache_that_is_a_link),
            scene!(cache::cve_2025_23267_a_cache_of_its_own_kind),
            scene!(cache::a_cache_of_lies_is_refused_or_read_for_what_it_is),
            scene!(compat::cve_2024_0132_a_compat_library_that_is_a_link),
            scene!(compat::cve_2025_23359_a_compat_folder_that_is_a_link),
            scene!(compat::a_compat_library_that_is_no_file),
            scene!(outside::cve_2024_0133_the_driver_s_places_lead_out),
            scene!(outside::cve_2024_0133_the_driver_s_places_are_no_folders),
            scene!(outside::cve_2024_0134_the_loader_s_places_lead_out),
            scene!(preload::cve_2025_23266_the_environment_of_an_image_stays_in_it),
            scene!(preload::a_forged_grant_gives_nothing),
            scene!(swaps::cve_2026_24260_a_loader_cache_that_is_swapped),
            scene!(swaps::cve_2024_0132_a_compat_library_that_is_swapped),
            scene!(swaps::cve_2025_23359_a_compat_folder_that_is_swapped),
            scene!(swaps::cve_2026_24260_the_loader_s_folder_that_is_swapped),
            scene!(runtime::cve_2024_21626_no_descriptor_leads_to_the_node),
            scene!(runtime::cve_2026_41579_dev_is_a_link),
            scene!(runtime::cve_2025_52881_proc_is_something_else),
            scene!(runtime::cve_2025_31133_mounts_over_what_is_masked),
            scene!(console::cve_2025_52565_the_places_of_a_terminal_are_links),
            scene!(console::cve_2025_52565_the_places_of_a_terminal_are_links_in_a_volume),
            scene!(keeps::the_ledger_s_folder_is_another_s),
            scene!(keeps::the_ledger_s_files_are_another_s),
            scene!(keeps::what_is_cached_is_another_s),
            scene!(keeps::a_container_s_end_leaves_nothing_of_it_in_run),
            scene!(requests::annotations_that_flood),
            scene!(requests::values_that_look_like_others),
            scene!(requests::names_that_are_paths),
            scene!(requests::an_injected_node_that_lies),
            scene!(requests::a_forged_sandbox_shares_nothing),
            scene!(requests::cdi_files_that_are_traps),
            scene!(requests::the_node_s_own_root_is_not_dressed),
            scene!(smoke cdi::a_name_is_resolved_with_all_that_it_brings),
            scene!(cdi::unknown_names_are_refused_and_a_pods_own_are_not_heard),
            scene!(cdi::policy_cdi_hooks_decides_about_hooks_of_others),
            scene!(cdi::node_cdi_dirs_beat_each_other_in_their_order),
            scene!(smoke cdi::what_containerd_resolved_itself_is_found_injected)
                .since((2, 0), "containerd 1.x resolves CDI names only where it is told to"),
            scene!(specified::a_specification_of_one_gpu),
            scene!(specified::a_specification_has_every_gpu_by_each_of_its_names),
            scene!(specified::a_specification_has_mig_devices_in_place_of_their_gpu),
            scene!(specified::what_cannot_be_specified_is_said),
            scene!(specified::files_are_listed_and_judged),
            scene!(smoke specified::another_shim_gives_what_a_specification_says)
                .since((2, 0), "containerd 1.x resolves CDI names only where it is told to"),
            scene!(smoke specified::berth_records_what_its_own_specification_gave),
            scene!(smoke policy::namespaces_say_whose_pods_may_ask),
            scene!(policy::annotation_requests_may_be_allowed_or_denied_outright),
            scene!(policy::other_allocators_bar_requests_of_pods_under_auto),
            scene!(policy::env_requests_are_off_or_for_containers_outside_pods),
            scene!(policy::devices_may_be_named_by_pods_under_all_alone),
            scene!(policy::privileged_containers_with_a_request_are_refused_or_recorded),
            scene!(policy::ceilings_limit_what_a_namespace_holds),
            scene!(node_keys::gpus_are_handed_out_by_uuid_and_by_pci_address),
            scene!(node_keys::run_and_state_hold_what_berth_keeps),
            scene!(node_keys::driver_root_is_where_the_drivers_files_are_looked_for),
            scene!(node_keys::root_and_nvml_are_where_the_driver_is_looked_for),
            scene!(node_keys::tool_looks_at_the_node_for_the_shim),
            scene!(node_keys::observe_deadline_ends_a_look_that_hangs),
            scene!(node_keys::a_release_that_nobody_carries_out_is_not_waited_for),
            scene!(packaged::the_packaged_configuration_is_the_defaults),
            scene!(packaged::the_example_pods_get_what_their_comments_say),
            scene!(smoke inside::only_granted_nodes_are_there_and_open),
            scene!(inside::an_ungranted_gpu_made_by_hand_does_not_open),
            scene!(inside::proc_driver_shows_the_granted_gpus_alone),
            scene!(inside::the_environment_names_grant_and_gpus),
            scene!(inside::nvidia_smi_lists_the_granted_gpu_alone),
            scene!(inside::without_a_request_nothing_of_it_is_there),
            scene!(smoke inside::without_a_request_config_json_is_what_containerd_wrote),
            scene!(smoke execs::an_exec_has_the_first_process_s_environment),
            scene!(execs::an_exec_uses_the_gpu_as_the_first_process_does),
            scene!(execs::an_exec_after_a_restart_of_containerd_has_it_too),
            scene!(execs::an_exec_in_a_container_without_a_gpu_is_left_alone),
            scene!(smoke layouts::debian_s_loader_finds_the_driver),
            scene!(layouts::red_hat_s_loader_finds_the_driver),
            scene!(layouts::an_image_without_a_cache_finds_the_driver),
            scene!(layouts::a_musl_image_starts_and_the_log_warns),
            scene!(layouts::utility_alone_brings_no_cuda),
            scene!(layouts::a_newer_driver_of_the_image_comes_first),
            scene!(layouts::the_driver_s_files_are_those_of_the_node_and_cannot_be_changed),
            scene!(brought::each_capability_brings_its_own_files_and_no_others),
            scene!(brought::what_is_brought_is_the_node_s),
            scene!(brought::what_is_brought_by_binds_is_the_node_s),
            scene!(brought::a_service_that_the_node_has_not_is_not_looked_for),
            scene!(smoke breadth::each_part_of_the_driver_brings_its_own_and_nothing_else),
            scene!(breadth::nodes_for_drawing_are_of_the_granted_gpu_and_no_other_opens),
            scene!(breadth::debian_s_loader_opens_all_of_it),
            scene!(breadth::red_hat_s_loader_opens_all_of_it),
            scene!(breadth::libraries_of_32_bits_are_apart_and_in_nobody_s_way),
            scene!(breadth::hosts_of_every_layout_bring_the_same),
            scene!(breadth::where_the_driver_is_no_layer_the_same_is_bound),
            scene!(breadth::a_part_that_the_node_has_not_is_refused_and_all_means_what_it_has),
            scene!(smoke extras::each_extra_reaches_those_who_ask_and_nobody_else),
            scene!(extras::several_extras_come_together_and_storage_with_its_file),
            scene!(extras::extras_that_policy_bars_that_are_not_there_or_unknown_are_refused),
            scene!(extras::containers_of_a_pod_have_extras_of_their_own),
            scene!(hosts::a_red_hat_host_s_driver_is_found),
            scene!(hosts::the_driver_behind_debian_s_alternatives_is_found),
            scene!(roots::an_overlay_has_the_driver_as_a_layer),
            scene!(roots::a_read_only_root_has_the_driver),
            scene!(roots::usr_local_as_a_symlink_has_the_driver_by_binds),
            scene!(roots::etc_as_a_symlink_has_the_driver_by_binds),
            scene!(roots::a_cache_that_leads_out_of_the_root_is_replaced_inside),
            scene!(roots::a_root_mounted_by_others_has_the_driver),
            scene!(roots::a_root_that_cannot_be_written_has_the_driver),
            scene!(smoke pinned::near_cpus_are_given_before_the_first_instruction),
            scene!(pinned::without_a_request_cpus_and_memory_are_left_alone),
            scene!(pinned::a_launcher_s_cpus_are_narrowed_to_those_near),
            scene!(smoke pinned::exclusive_cpus_are_of_one_container_and_never_shared),
            scene!(pinned::exclusive_cpus_are_refused_without_a_pool_or_leave),
            scene!(pinned::strict_memory_holds_a_container_to_its_nodes_or_is_refused),
            scene!(pinned::a_gpu_near_no_cpu_of_this_machine_leaves_them_alone),
            scene!(pinned::gpus_of_two_nodes_come_with_a_map),
            scene!(smoke pinned::updates_are_merged_with_what_is_near),
            scene!(chosen::two_gpus_of_a_p5_are_a_close_pair),
            scene!(chosen::two_gpus_of_a_p4d_are_a_close_pair),
            scene!(chosen::devices_are_given_exactly),
            scene!(chosen::visible_devices_ask_where_the_operator_lets_them),
            scene!(chosen::visible_devices_ask_nothing_by_themselves),
            scene!(machines::two_gpus_of_an_h200_machine),
            scene!(machines::two_gpus_of_a_b200_machine),
            scene!(machines::two_gpus_of_a_gb200_machine),
            scene!(machines::a_gb200_is_at_its_cpus_and_not_at_its_memory),
            scene!(refused::annotations_that_cannot_be_understood),
            scene!(smoke families::the_same_words_reach_ctr_and_the_kubelet),
            scene!(families::what_another_gave_and_berth_cannot_complete_is_named_to_both),
            scene!(families::a_claim_whose_gpu_is_gone_is_told_to_the_pods_next_container),
            scene!(refused::what_is_not_in_this_version),
            scene!(smoke refused::no_room_names_every_candidate),
            scene!(refused::a_checkpoint_of_a_container_with_a_gpu),
            scene!(refused::a_node_without_a_driver),
            scene!(refused::what_the_operator_bars),
            scene!(refused::privileged_containers_with_a_request),
            scene!(refused::images_that_need_another_driver),
            scene!(allocated::a_cdi_annotation_is_resolved_and_completed),
            scene!(allocated::a_request_must_agree_with_a_cdi_annotation),
            scene!(allocated::a_cdi_device_that_cannot_be_had_is_named),
            scene!(allocated::a_device_plugin_s_mounts_are_believed_outside_pods),
            scene!(allocated::a_node_that_is_there_already_is_recorded_and_completed),
            scene!(restarts::a_container_that_ends_holds_its_gpu_until_it_is_deleted),
            scene!(restarts::a_foreground_container_gives_back_what_it_held),
            scene!(restarts::a_create_that_fails_after_the_grant_gives_it_back),
            scene!(smoke restarts::a_killed_shim_s_gpus_come_back),
            scene!(restarts::a_shim_killed_between_create_and_start_holds_nothing),
            scene!(restarts::reconcile_gives_back_what_the_dead_hold),
            scene!(restarts::reconcile_leaves_the_living_alone),
            scene!(restarts::the_next_admission_takes_back_what_the_dead_hold),
            scene!(restarts::eight_take_eight_and_the_ninth_waits_its_turn),
            scene!(restarts::of_two_at_once_for_the_last_gpu_one_wins),
            scene!(calls::a_launch_on_a_node_that_is_known_calls_no_driver),
            scene!(faults::a_driver_that_hangs_is_left_after_the_deadline),
            scene!(faults::a_driver_that_kills_the_observer_is_told_of),
            scene!(killed::a_preparation_that_was_killed_is_done_anew),
            scene!(killed::a_copying_preparation_that_was_killed_is_done_anew),
            scene!(killed::a_look_that_was_killed_is_taken_anew),
            scene!(faults::a_gpu_that_was_lost_is_not_given),
            scene!(faults::a_damaged_ledger_refuses_until_it_is_repaired),
            scene!(smoke planned::what_is_planned_is_what_is_admitted),
            scene!(planned::what_is_refused_is_refused_in_the_same_words),
            scene!(planned::a_plan_changes_nothing_on_the_node),
            scene!(planned::instances_are_planned_with_the_steps_that_make_them),
            scene!(planned::what_no_driver_says_yet_is_foretold_as_such),
            scene!(planned::a_pods_containers_are_planned_as_they_are_admitted),
            scene!(planned::a_plan_reads_as_it_should),
            scene!(planned::a_plan_has_its_documented_fields),
            scene!(smoke repaired::running_containers_keep_what_they_have),
            scene!(repaired::a_pods_claims_are_made_anew),
            scene!(repaired::an_instance_whose_record_was_lost_is_anothers),
            scene!(repaired::what_would_be_lost_takes_force),
            scene!(repaired::a_later_versions_ledger_is_not_repaired),
            scene!(command::ps_lists_grants),
            scene!(command::explain_finds_a_container_by_each_of_its_names),
            scene!(command::topo_shows_who_holds_what_and_how_close_they_are),
            scene!(drawn::cores_and_slices_are_shown_with_who_holds_them),
            scene!(drawn::a_gb200_is_drawn_on_one_screen),
            scene!(command::config_show_prints_what_is_in_force),
            scene!(command::ledger_show_and_verify_read_the_record),
            scene!(doctor::doctor_exits_with_what_it_found),
            scene!(doctor::a_broken_configuration_is_its_first_finding),
        ],
    )
}

//! What `child-process` promises: spawning, waiting, collecting, ending.

mod common;

common::cases![
    dropped_children_are_reaped_when_they_end,
    waiting_and_listening_see_the_same_end,
    two_hundred_children_from_eight_threads_leave_nothing,
    a_child_sees_its_own_descriptors_only,
    a_pipeline_moves_a_gibibyte_without_us,
    a_pipeline_ends_when_its_reader_does,
    exit_is_told_although_a_grandchild_holds_the_pipe,
    a_missing_directory_is_told_apart_from_a_missing_program,
    a_timeout_is_reported_although_the_child_then_exits_well,
    a_timeout_does_not_wait_for_grandchildren,
    too_much_output_is_cut_exactly,
    a_hundred_loud_children_are_collected_within_bounds,
    input_is_fed_while_output_is_read,
    bad_options_are_refused_before_anything_starts,
    every_option_reaches_the_child,
    a_control_group_of_its_own_ends_with_the_tree,
    a_child_with_a_parent_death_signal_outlives_the_thread_that_asked,
    users_change_as_root_and_only_then,
    a_thrown_switch_ends_children_and_says_why,
    a_child_is_killed_on_drop_only_by_request,
    callbacks_are_called_in_order_beside_events,
    a_result_reaches_its_callback,
    idle_children_cost_no_wake_ups,
    a_full_table_of_descriptors_is_a_clear_error,
    ends_are_told_although_sigchld_is_ignored,
    standard_input_is_written_and_ended,
    what_was_sent_arrives_although_the_child_is_dropped,
];

//! Node children that break the rules, and what must not break them. The bodies are in
//! `node_hostile.rs` and `node_any.rs` of `src/bin/fixture/cases`.

mod common;

common::cases![
    lines_that_are_no_json_are_messages_that_cannot_be_decoded,
    what_rust_cannot_hold_is_an_error_or_replaced,
    frames_over_the_ceiling_are_errors_and_the_next_ones_come,
    frames_that_v8_never_wrote_are_errors,
    commands_of_node_are_no_messages,
    a_handle_that_was_announced_and_not_sent_is_refused,
    a_connection_that_node_sends_again_is_taken_once,
    a_connection_that_node_cannot_take_is_sent_again,
    a_connection_that_node_never_takes_is_an_error,
    a_frozen_script_costs_a_bounded_queue,
    a_script_that_dies_leaves_no_handle_behind,
    no_json_that_we_send_ends_a_script,
    no_value_that_we_send_ends_a_script,
];

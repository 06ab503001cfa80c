//! A Rust parent and its Node children. The bodies are in `node_child.rs` and `node_handles.rs`
//! of `src/bin/fixture/cases`; the children run `tests/node/peer.cjs`.

mod common;

common::cases![
    every_json_type_goes_both_ways,
    every_value_of_v8s_format_goes_both_ways,
    big_messages_go_both_ways,
    bursts_keep_their_order_both_ways,
    the_script_may_disconnect_and_exit_as_it_likes,
    what_was_sent_before_disconnecting_arrives,
    what_is_answered_before_the_script_hears_that_we_left_arrives,
    messages_wait_until_somebody_listens,
    the_output_of_a_silent_script_is_ours,
    arguments_of_node_and_of_the_script_arrive,
    more_pipes_and_a_channel_at_another_number,
    a_plain_command_named_node_has_a_channel_too,
    the_script_leaks_no_channel_to_its_children,
    sockets_go_to_node,
    servers_go_to_node,
    datagram_sockets_go_to_node,
    sockets_come_from_node,
    servers_come_from_node,
    datagram_sockets_come_from_node,
    many_handles_keep_their_messages_and_are_answered_once_each,
    messages_stay_behind_the_handles_before_them,
    what_would_end_node_is_refused_before_it_is_sent,
    a_server_in_node_knows_how_many_of_its_connections_we_have,
    a_connection_may_stay_open_in_node,
    a_handle_that_nobody_takes_is_closed,
    a_handle_that_finds_no_descriptor_is_told_and_the_channel_lives,
];

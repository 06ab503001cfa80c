//! A Rust primary whose Node workers are in trouble.
//! The bodies are in `src/bin/fixture/cases/node_cluster_trouble.rs`.

mod common;

common::cases![
    a_kill_storm_costs_only_what_node_workers_had_begun,
    a_frozen_node_worker_delays_only_what_it_was_given,
    a_node_worker_whose_messages_lie_unread_is_spared,
    connections_over_one_workers_limit_go_to_another,
    with_every_node_worker_at_its_limit_there_is_no_ping_pong,
    a_node_worker_without_descriptors_is_not_punished_for_life,
    what_a_closed_server_was_given_goes_to_another,
    the_port_of_node_workers_outlives_them_all,
    a_hostile_node_worker_harms_nobody,
    node_workers_that_die_while_being_answered_harm_nobody,
];

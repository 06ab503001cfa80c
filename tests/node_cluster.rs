//! A Rust primary with Node workers. The bodies are in `src/bin/fixture/cases/node_cluster.rs`.

mod common;

common::cases![
    node_workers_are_dealt_to_in_strict_rotation,
    node_workers_share_the_socket_without_a_policy,
    a_kill_storm_costs_only_what_node_workers_had_begun,
    a_frozen_node_worker_delays_only_what_it_was_given,
    node_workers_leave_in_every_way_node_knows,
    a_disconnected_node_worker_finishes_what_it_has,
    node_workers_get_messages_and_know_what_they_are,
];

//! A Rust primary with Node workers.
//! The bodies are in `src/bin/fixture/cases/node_cluster.rs`.

mod common;

common::cases![
    node_workers_are_dealt_to_in_strict_rotation,
    node_workers_share_the_socket_without_a_policy,
    node_workers_leave_in_every_way_node_knows,
    a_disconnected_node_worker_finishes_what_it_has,
    node_workers_get_messages_and_know_what_they_are,
    a_node_worker_is_told_why_it_cannot_listen,
    node_workers_speak_the_advanced_serialization,
    rust_and_node_workers_behind_one_node_channel_share_a_port,
    tls_sessions_hold_across_node_workers,
    https_clients_keep_their_node_worker_and_new_ones_are_dealt,
    a_kept_alive_client_is_answered_before_its_node_worker_leaves,
    big_bodies_pass_through_node_workers,
    node_workers_do_not_outlive_their_primary,
];

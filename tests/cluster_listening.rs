//! Where workers of a cluster listen, and how they accept. The bodies are in
//! `src/bin/fixture/cases/cluster_listening.rs`, `cluster_accepting.rs`, `cluster_limits.rs` and
//! `cluster_sockets.rs`; Node's rows are in `node_suite_cluster`.

mod common;

common::cases![
    unix_paths_that_cannot_be_had_are_named_and_stale_ones_replaced,
    every_kind_of_stream_is_accepted_by_blocking,
    every_kind_of_stream_is_accepted_by_polling,
    every_kind_of_stream_is_accepted_in_a_mio_loop,
    every_kind_of_stream_is_accepted_in_a_tokio_runtime,
    several_listeners_in_one_worker_are_each_shared,
    ipv6_only_leaves_the_ipv4_port_to_others,
    the_backlog_is_what_the_worker_asked_for,
    unix_datagrams_are_shared_by_all_workers,
    sockets_of_a_service_manager_outlive_two_primaries,
    while_all_workers_are_full_clients_wait_and_nobody_is_refused,
    clients_that_wait_for_room_are_served_after_a_death_and_at_the_end,
    a_full_cluster_is_idle,
    a_limit_that_makes_no_sense_is_refused_by_name,
];

//! `cluster` with real processes. The bodies are in `src/bin/fixture/cases/cluster.rs`.

mod common;

common::cases![
    connections_are_dealt_in_strict_rotation,
    a_kill_storm_costs_only_what_the_dead_had_accepted,
    a_kill_storm_over_the_least_loaded_costs_no_more,
    a_kill_storm_over_sticky_clients_costs_no_more,
    a_frozen_worker_delays_nobody_and_comes_back,
    two_frozen_workers_play_no_ping_pong,
    connections_wait_while_every_worker_is_frozen,
    nobody_is_refused_while_the_last_worker_is_replaced,
    a_dead_primary_leaves_nobody_and_nothing_behind,
    a_worker_that_cannot_start_fails_the_start,
    an_address_in_use_fails_the_start_by_name,
];

//! Reloads, more and fewer workers. The bodies are in `src/bin/fixture/cases/cluster_reload.rs`.

mod common;

common::cases![
    a_reload_replaces_every_worker_and_refuses_nobody,
    a_reload_that_does_not_come_up_keeps_the_old_workers,
    overlapping_reloads_are_refused,
    a_worker_that_dies_in_a_reload_is_replaced_by_its_successor,
    more_and_fewer_workers_at_run_time,
    a_reload_before_the_start_or_after_the_end_is_refused,
    a_broadcast_reaches_every_worker,
    a_reload_takes_up_a_new_build,
];

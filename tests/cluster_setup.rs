//! What workers are started with, and one by one. The bodies are in
//! `src/bin/fixture/cases/cluster_setup.rs`, `cluster_lives.rs` and `cluster_disconnect.rs`.

mod common;

common::cases![
    setup_master_sets_for_good,
    a_worker_may_run_as_another_user,
    a_descriptor_may_be_shared_by_all_workers,
    a_program_may_replace_its_workers_itself,
    a_fork_that_fails_leaves_nothing,
    a_start_counts_those_that_are_there,
    a_dead_worker_with_pipes_is_let_go,
    an_address_may_be_had_again_at_once,
    nobody_waits_for_workers_that_are_not_there,
    callbacks_may_do_as_they_like,
];

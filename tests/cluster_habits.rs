//! What holds of workers whoever they are, and what they are told that cannot be had. The bodies
//! are in `src/bin/fixture/cases/cluster_habits.rs` and `cluster_errors.rs`.

mod common;

common::cases![
    who_is_started_again_is_the_primarys_choice,
    what_each_worker_had_adds_up,
    a_worker_that_never_accepts_is_killed_and_replaced,
    who_is_served_by_nobody_is_closed_with_the_cluster_and_counted,
    either_spelling_of_a_workers_number_makes_one,
    the_policy_is_read_from_nodes_variable,
    to_listen_alone_is_to_bind,
    a_bad_address_is_an_error_in_the_worker_that_asked,
    what_fails_is_told_to_callbacks_and_ends_nobody,
];

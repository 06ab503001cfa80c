//! Storms over a cluster: deaths, ends and shortages under load. The bodies are in
//! `src/bin/fixture/cases/cluster_storms.rs`, and in `cluster_shortage.rs`, `cluster_many.rs` and
//! `cluster_late.rs` beside it.

mod common;

common::cases![
    clients_of_the_last_worker_wait_for_its_successor,
    a_last_worker_that_disconnects_answers_those_in_its_queue,
    clients_of_a_listener_that_the_last_worker_closes_are_closed_and_counted,
    a_busy_cluster_that_ends_answers_whoever_is_connected,
    a_busy_worker_with_a_port_of_its_own_answers_whoever_is_connected,
    a_worker_that_dies_in_the_end_of_a_busy_cluster_costs_one_connection,
    a_cluster_has_ended_when_its_last_worker_has,
    a_program_that_is_missing_for_a_while_is_started_when_it_is_back,
    workers_are_started_when_the_primary_has_descriptors_again,
    workers_are_started_when_the_user_may_have_processes_again,
    a_worker_out_of_descriptors_loses_nobody_and_comes_back,
    clients_wait_while_every_worker_has_its_maximum,
    a_deaf_worker_costs_the_primary_no_descriptors_and_delays_no_message,
    two_hundred_restarts_in_a_row_leave_nothing_behind,
    two_hundred_workers_start_and_stop,
    workers_that_die_while_they_are_answered_harm_nobody,
    a_worker_with_handles_on_their_way_sees_its_primary_die,
    to_listen_after_the_end_has_begun_is_an_error_in_the_worker,
    an_address_that_is_being_closed_can_be_had_again,
    a_worker_that_forks_gets_an_error,
];

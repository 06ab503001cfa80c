//! Storms over a cluster: deaths, ends and shortages under load. The bodies are in
//! `src/bin/fixture/cases/cluster_storms.rs`.

mod common;

common::cases![
    clients_of_the_last_worker_wait_for_its_successor,
    a_last_worker_that_disconnects_answers_those_in_its_queue,
    a_busy_cluster_that_ends_answers_whoever_is_connected,
    a_worker_that_dies_in_the_end_of_a_busy_cluster_costs_one_connection,
    a_cluster_has_ended_when_its_last_worker_has,
];

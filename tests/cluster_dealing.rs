//! Who gets the connections of a cluster. The bodies are in
//! `src/bin/fixture/cases/cluster_dealing.rs`; Node's rows are in `node_suite_cluster`.

mod common;

common::cases![
    a_thousand_connections_over_eight_workers_are_125_each,
    a_client_stays_with_its_worker_and_goes_to_its_successor,
    a_sticky_client_stays_with_a_busy_worker,
    clients_of_many_addresses_are_spread_and_move_together,
    clients_of_a_frozen_worker_are_elsewhere_until_it_runs_again,
    new_clients_go_where_fewest_are_open,
];

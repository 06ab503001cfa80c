//! The policy `ReusePort`. The bodies are in `src/bin/fixture/cases/cluster_reuse_port.rs`.

mod common;

common::cases![
    each_worker_accepts_its_share_by_itself,
    clients_of_a_dead_worker_go_to_the_others,
    clients_of_a_frozen_worker_go_to_the_others_until_it_is_back,
    clients_of_the_only_worker_wait_in_its_socket,
    sockets_of_places_that_are_given_up_are_served_on,
    reloads_and_ends_under_load_drop_nobody,
    kills_under_load_cost_what_the_dead_had_accepted,
    clients_of_a_dead_primary_are_served,
    a_port_that_another_has_is_in_use,
];

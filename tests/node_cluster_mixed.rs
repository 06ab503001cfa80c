//! One Rust primary with Rust and Node workers.
//! The bodies are in `src/bin/fixture/cases/node_cluster_mixed.rs`.

mod common;

common::cases![
    rust_and_node_workers_share_one_primary,
    a_storm_over_rust_and_node_workers_costs_only_what_they_had_begun,
    rust_and_node_workers_share_a_udp_port_of_one_primary,
];

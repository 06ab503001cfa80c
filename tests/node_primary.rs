//! Rust workers of a Node primary. The bodies are in `src/bin/fixture/cases/node_primary.rs`.

mod common;

common::cases![
    rust_workers_serve_under_a_node_primary,
    rust_workers_leave_as_a_node_primary_expects,
    no_client_is_lost_when_rust_workers_leave_one_by_one,
    a_rust_worker_is_told_why_it_cannot_listen,
    rust_and_node_workers_share_the_port_of_a_node_primary,
    rust_and_node_workers_share_the_udp_port_of_a_node_primary,
    a_rust_worker_at_its_limit_leaves_new_clients_to_others,
];

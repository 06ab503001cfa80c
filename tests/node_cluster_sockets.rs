//! A Rust primary with Node workers: UDP, Unix paths and descriptors of the primary.
//! The bodies are in `src/bin/fixture/cases/node_cluster_sockets.rs`.

mod common;

common::cases![
    node_workers_share_a_udp_port,
    a_node_worker_may_bind_a_udp_port_twice,
    exclusive_udp_sockets_of_node_workers_are_their_own,
    a_node_worker_is_told_why_it_cannot_bind,
    node_workers_listen_on_given_descriptors,
    node_workers_listen_on_inherited_descriptors,
    node_workers_listen_on_a_unix_path,
    node_workers_listen_on_a_long_unix_path,
];

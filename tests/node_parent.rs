//! A Node parent and its Rust child. The bodies are in `src/bin/fixture/cases/node_parent.rs`, which
//! runs `tests/node/parent.cjs`.

mod common;

common::cases![
    node_and_its_rust_child_exchange_every_kind_of_value,
    node_and_its_rust_child_exchange_big_messages_and_bursts,
    the_channel_of_a_rust_child_may_be_any_descriptor,
    node_passes_handles_to_its_rust_child,
    a_rust_child_passes_handles_to_node,
    either_side_of_node_and_its_rust_child_may_leave,
    a_rust_child_survives_bad_lines,
    a_rust_child_leaks_no_channel_to_its_children,
    node_counts_the_connections_of_its_rust_child,
    what_is_no_channel_is_none,
];

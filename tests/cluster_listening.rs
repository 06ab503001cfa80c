//! Where workers of a cluster listen. The bodies are in
//! `src/bin/fixture/cases/cluster_listening.rs`; Node's rows are in `node_suite_cluster`.

mod common;

common::cases![unix_paths_that_cannot_be_had_are_named_and_stale_ones_replaced];

//! A Rust parent and its Node children. The bodies are in `src/bin/fixture/cases/node_child.rs`.

mod common;

common::cases![messages_go_both_ways, a_connection_goes_there_and_back,];

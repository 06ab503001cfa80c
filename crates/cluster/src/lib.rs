//! Worker processes that share a server port: Node's cluster for Rust, and no connection lost.

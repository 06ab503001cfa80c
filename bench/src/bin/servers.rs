//! The servers of the topic `cluster` and nothing else: a program of the size that a user's has.
//!
//! `servers role server KIND WORKERS`, as of the benchmarks' own program, whose charts and peers
//! would be counted as memory of a primary.

#[path = "../server.rs"]
mod server;

fn main() {
    server::role();
}

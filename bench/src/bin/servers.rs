//! The servers of topic `cluster` alone, in a program of the size of a user's program.
//!
//! `servers role server KIND WORKERS` serves like the same role of `bench`. The charts and peers in
//! `bench` would count as memory of a primary.

#[path = "../server.rs"]
mod server;

fn main() {
    server::role();
}

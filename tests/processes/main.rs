//! The tests that need processes of their own: harness, cases and roles in one program.
//!
//! ```text
//! processes [FILTER] [OPTION…]    runs the cases, as `cargo test` and nextest ask for it
//! processes case NAME             runs one case in this process, and checks what remains
//! processes role NAME [ARG…]      plays one role
//! ```
//!
//! The program starts itself for every case and every role. The module `harness` describes how a
//! case is written. Each folder beside it holds the cases of one subject, and the name of a case
//! is the path of its function: `cluster::reload::overlapping_reloads_are_refused`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "test code, which reports to its standard streams"
)]

mod children;
mod cluster;
mod examples;
mod harness;
mod ipc;
mod node;
mod sandbox;
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if !children::modules::forgets_run_modules(&args) {
        child_process::run_modules(&harness::modules());
    }
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["case", name] if !is_option(name) => harness::play_case(name),
        ["role", name, ..] if !is_option(name) => harness::play_role(name, &args[2..]),
        _ => harness::run_cases(),
    }
}

/// `cargo test case -- --list` filters by the word `case`.
fn is_option(argument: &str) -> bool {
    argument.starts_with('-')
}

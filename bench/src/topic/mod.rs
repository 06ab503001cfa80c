//! The topics: one file each, one line in [`ALL`].

mod ballast;
mod spawn;

use std::process::ExitCode;

use crate::context::Context;
use crate::report::Topic;

/// A topic's name on the command line, and what measures it.
pub struct Entry {
    pub name: &'static str,
    pub run: fn(&Context) -> Topic,
}

/// In the order of the report.
pub const ALL: &[Entry] = &[Entry { name: "spawn", run: spawn::run }];

/// Plays the role that `bench role NAME …` names, when a topic has started this program again.
pub fn play_role() -> Option<ExitCode> {
    None
}

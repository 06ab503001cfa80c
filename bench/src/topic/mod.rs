//! The topics: one file each, one line in [`ALL`].

mod ballast;
mod cluster;
mod fork;
mod idle;
mod messages;
mod os;
mod spawn;

use std::process::ExitCode;

use crate::context::Context;
use crate::idle as holder;
use crate::report::Topic;
use crate::server;

/// A topic's name on the command line, and what measures it.
pub struct Entry {
    pub name: &'static str,
    pub run: fn(&Context) -> Topic,
}

/// In the order of the report.
pub const ALL: &[Entry] = &[
    Entry { name: "spawn", run: spawn::run },
    Entry { name: "fork", run: fork::run },
    Entry { name: "ipc", run: messages::run },
    Entry { name: "os", run: os::run },
    Entry { name: "idle", run: idle::run },
    Entry { name: "cluster", run: cluster::run },
];

/// Modules that a topic forks, by name.
pub const MODULES: &[(&str, fn())] =
    &[(fork::MODULE, fork::module), (holder::MODULE, holder::module)];

/// Roles that a topic starts this program in, by name.
const ROLES: &[(&str, fn())] = &[
    (fork::ROLE, fork::role),
    (spawn::ROLE, spawn::role),
    (messages::ROLE, messages::role),
    (server::ROLE, server::role),
    (holder::ROLE, holder::role),
];

/// Plays the role that `bench role NAME` names, when a topic has started this program again.
pub fn play_role() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != "role" {
        return None;
    }
    let name = args.next()?;
    let (_, play) = ROLES.iter().find(|role| role.0 == name)?;
    play();
    Some(ExitCode::SUCCESS)
}

/// Writes a script into a file of our own: Node forks files only.
pub fn script_file(name: &str, script: &str) -> std::io::Result<String> {
    let path = std::env::temp_dir().join(format!("bench-{name}-{}.js", std::process::id()));
    std::fs::write(&path, script)?;
    Ok(path.to_string_lossy().into_owned())
}

//! The topics of the benchmarks. Each has one file, and one line in [`ALL`].

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

/// A topic: its name on the command line, and the function that measures it.
pub struct Entry {
    pub name: &'static str,
    pub run: fn(&Context) -> Topic,
}

/// All topics, in the order of the report.
pub const ALL: &[Entry] = &[
    Entry { name: "spawn", run: spawn::run },
    Entry { name: "fork", run: fork::run },
    Entry { name: "ipc", run: messages::run },
    Entry { name: "os", run: os::run },
    Entry { name: "idle", run: idle::run },
    Entry { name: "cluster", run: cluster::run },
];

/// The modules that topics fork, by name.
pub const MODULES: &[(&str, fn())] =
    &[(fork::MODULE, fork::module), (holder::MODULE, holder::module)];

/// The roles in which topics start this program, by name.
const ROLES: &[(&str, fn())] = &[
    (fork::ROLE, fork::role),
    (spawn::ROLE, spawn::role),
    (messages::ROLE, messages::role),
    (server::ROLE, server::role),
    (holder::ROLE, holder::role),
];

/// Runs the role of `bench role NAME`. Returns `None` for any other command line.
pub fn run_role() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != "role" {
        return None;
    }
    let name = args.next()?;
    let (_, run) = ROLES.iter().find(|role| role.0 == name)?;
    run();
    Some(ExitCode::SUCCESS)
}

/// Writes a script to a temporary file, because Node forks files only.
pub fn script_file(name: &str, script: &str) -> std::io::Result<String> {
    let path = std::env::temp_dir().join(format!("bench-{name}-{}.js", std::process::id()));
    std::fs::write(&path, script)?;
    Ok(path.to_string_lossy().into_owned())
}

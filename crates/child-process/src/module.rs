//! The modules that can be forked: a named function of this program, this program, another program,
//! a script for Node.
//!
//! A named module is a function of this executable. The child finds the name in its environment.
//! [`run_modules`], the first call in `main`, runs the function there and exits.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The variable that names the module to run.
pub(crate) const MODULE: &str = "BROOD_MODULE";

/// The path of this executable, which works even when the file was replaced or removed.
const THIS_EXECUTABLE: &str = "/proc/self/exe";

/// The extensions of files that Node runs.
const NODE_ENDINGS: [&str; 4] = ["js", "mjs", "cjs", "ts"];

/// The program or function that a fork runs.
#[derive(Clone, Debug)]
pub struct Module(pub(crate) ModuleKind);

#[derive(Clone, Debug)]
pub(crate) enum ModuleKind {
    Named(String),
    ThisProgram,
    ThisProgramAt(PathBuf),
    Program(PathBuf),
    Node(PathBuf),
}

impl Module {
    /// Selects the function that this executable passes to [`run_modules`] under `name`.
    #[must_use]
    pub fn current_exe(name: impl Into<String>) -> Self {
        Self(ModuleKind::Named(name.into()))
    }

    /// Selects this executable; its `main` decides what to run.
    #[must_use]
    pub const fn this_program() -> Self {
        Self(ModuleKind::ThisProgram)
    }

    /// Selects the file at `path` at the time of the spawn, which may be a newer build of this
    /// program. If there is none, this executable runs, as in [`this_program`](Self::this_program).
    #[must_use]
    pub fn this_program_at(path: impl AsRef<Path>) -> Self {
        Self(ModuleKind::ThisProgramAt(path.as_ref().to_owned()))
    }

    /// Selects another program: a path, or a name that is looked up in the child's `PATH`.
    #[must_use]
    pub fn program(path: impl AsRef<Path>) -> Self {
        Self(ModuleKind::Program(path.as_ref().to_owned()))
    }

    /// Selects a script for Node, which runs as `node SCRIPT` and gets Node's channel.
    #[must_use]
    pub fn node(script: impl AsRef<Path>) -> Self {
        Self(ModuleKind::Node(script.as_ref().to_owned()))
    }

    /// Selects a script for Node if the name ends in `.js`, `.mjs`, `.cjs` or `.ts`, else a
    /// program.
    #[must_use]
    pub fn from_path(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let ending = path.extension().and_then(OsStr::to_str);
        if ending.is_some_and(|ending| NODE_ENDINGS.contains(&ending)) {
            return Self::node(path);
        }
        Self::program(path)
    }
}

impl<T: AsRef<Path>> From<T> for Module {
    fn from(path: T) -> Self {
        Self::from_path(path)
    }
}

/// Returns whether an executable runs scripts with Node's channel, judged by its name.
pub(crate) fn runs_scripts(program: &OsStr) -> bool {
    let name = Path::new(program).file_name();
    name.is_some_and(|name| ["node", "nodejs", "bun", "deno"].iter().any(|known| name == *known))
}

/// Returns the path of this executable, and a path that works if that file is gone.
pub(crate) fn this_executable() -> (OsString, OsString) {
    let path =
        std::env::current_exe().map_or_else(|_| THIS_EXECUTABLE.into(), PathBuf::into_os_string);
    (path, THIS_EXECUTABLE.into())
}

/// Returns the name of the module that this process was forked to run.
///
/// For programs that choose the function themselves, in place of [`run_modules`]. Act on the name
/// before the program forks: after this call, a fork of this program is no longer refused with
/// [`Error::ModuleNotRun`].
#[must_use]
pub fn module() -> Option<&'static str> {
    sys::startup::take_module()
}

/// Checks that this process has asked for the module that it was forked to run: otherwise `main`
/// runs from its beginning in every child, and a fork of this program repeats without end.
pub(crate) fn check_started() -> Result<(), Error> {
    match sys::startup::forgotten_module() {
        Some(name) => Err(Error::ModuleNotRun(name.to_owned())),
        None => Ok(()),
    }
}

/// Runs the module that this process was forked to run, and exits with code 0 when it returns.
///
/// Returns at once in a process without a module. Call it first in `main`. Messages that the module
/// has sent to its parent are written before the process ends. A name that is not in the list ends
/// the process with code 2 and a line on standard error.
///
/// In a process that was forked to run a module and has not made this call, a fork of this program
/// is [`Error::ModuleNotRun`](crate::Error::ModuleNotRun), and the end of the process adds a line on
/// standard error.
///
/// ```
/// fn double() {
///     let parent = brood_child_process::parent().expect("forked with a channel");
///     for event in parent.take_events().expect("taken once") {
///         if let brood_child_process::Event::Message(message) = event {
///             let number: u32 = message.decode().expect("the parent sends numbers");
///             parent.send(&(number * 2)).expect("the channel is open");
///         }
///     }
/// }
///
/// fn main() {
///     brood_child_process::run_modules(&[("double", double)]);
///     // The program itself starts here.
/// }
/// ```
pub fn run_modules(modules: &[(&str, fn())]) {
    let Some(name) = module() else { return };
    let Some((_, run)) = modules.iter().find(|(known, _)| *known == name) else {
        // Not the print macros: they panic when standard error is closed.
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "this program has no module named {name:?}");
        std::process::exit(2);
    };
    run();
    // The exit hooks write the messages that are queued.
    std::process::exit(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_engines_are_known_by_their_names() {
        for program in ["node", "/opt/x/bin/node", "bun", "./deno", "nodejs"] {
            assert!(runs_scripts(program.as_ref()), "{program}");
        }
        for program in ["", "/", "nodes", "node/x", "fixture"] {
            assert!(!runs_scripts(program.as_ref()), "{program}");
        }
    }

    #[test]
    fn scripts_are_known_by_their_extensions() {
        for script in ["a.js", "x/b.mjs", "c.cjs", "d.ts"] {
            assert!(matches!(Module::from_path(script).0, ModuleKind::Node(_)), "{script}");
        }
        for program in ["./a", "a.py", "js", ".js"] {
            assert!(matches!(Module::from_path(program).0, ModuleKind::Program(_)), "{program}");
        }
    }
}

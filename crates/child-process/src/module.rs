//! What can be forked: a named part of this program, this program again, another program, a
//! script for Node.
//!
//! A named module is a function of this executable. The child finds its name in the environment;
//! [`run_modules`], called first thing in `main`, runs it there and ends the process.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The variable that names the module a process is to run.
pub(crate) const MODULE: &str = "BROOD_MODULE";

/// This executable, even when its file was replaced or removed since it started.
const THIS_EXECUTABLE: &str = "/proc/self/exe";

/// The endings of files that Node runs.
const NODE_ENDINGS: [&str; 4] = ["js", "mjs", "cjs", "ts"];

/// What a fork runs.
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
    /// The function that this executable gives to [`run_modules`] under `name`.
    #[must_use]
    pub fn current_exe(name: impl Into<String>) -> Self {
        Self(ModuleKind::Named(name.into()))
    }

    /// This executable again; its own `main` decides what it does.
    #[must_use]
    pub const fn this_program() -> Self {
        Self(ModuleKind::ThisProgram)
    }

    /// As [`this_program`](Self::this_program), but what lies at `path` by the time it is started,
    /// which may be a newer build; where nothing is, this very executable.
    #[must_use]
    pub fn this_program_at(path: impl AsRef<Path>) -> Self {
        Self(ModuleKind::ThisProgramAt(path.as_ref().to_owned()))
    }

    /// Another program: a path, or a name that is looked for in the child's `PATH`.
    #[must_use]
    pub fn program(path: impl AsRef<Path>) -> Self {
        Self(ModuleKind::Program(path.as_ref().to_owned()))
    }

    /// A script for Node, run as `node SCRIPT`; its channel speaks as Node's do.
    #[must_use]
    pub fn node(script: impl AsRef<Path>) -> Self {
        Self(ModuleKind::Node(script.as_ref().to_owned()))
    }

    /// A script for Node when the name ends in `.js`, `.mjs`, `.cjs` or `.ts`, else a program.
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

/// Whether an executable is known to run scripts with a channel like Node's: by its name.
pub(crate) fn runs_scripts(program: &OsStr) -> bool {
    let name = Path::new(program).file_name();
    name.is_some_and(|name| ["node", "nodejs", "bun", "deno"].iter().any(|known| name == *known))
}

/// The path of this executable, and how to reach it should nothing be there any more.
pub(crate) fn this_executable() -> (OsString, OsString) {
    let path =
        std::env::current_exe().map_or_else(|_| THIS_EXECUTABLE.into(), PathBuf::into_os_string);
    (path, THIS_EXECUTABLE.into())
}

/// The name of the module that this process was forked to run.
#[must_use]
pub fn module() -> Option<&'static str> {
    sys::startup::variable_text(MODULE)
}

/// Runs the module that this process was forked to run, and ends the process with code 0 when it
/// returns; returns at once where there is none. Call it first thing in `main`.
///
/// What the module has sent to its parent is still written. A name that is not in the list ends
/// the process with code 2 and a line on standard error.
///
/// ```
/// fn double() {
///     let parent = child_process::parent().expect("forked with a channel");
///     for event in parent.events() {
///         if let child_process::Event::Message(message) = event {
///             let number: u32 = message.decode().expect("the parent sends numbers");
///             parent.send(number * 2).expect("the parent listens");
///         }
///     }
/// }
///
/// fn main() {
///     child_process::run_modules(&[("double", double)]);
///     // The program itself begins here.
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
    std::process::exit(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_scripts_is_known_by_its_name() {
        for program in ["node", "/opt/x/bin/node", "bun", "./deno", "nodejs"] {
            assert!(runs_scripts(program.as_ref()), "{program}");
        }
        for program in ["", "/", "nodes", "node/x", "fixture"] {
            assert!(!runs_scripts(program.as_ref()), "{program}");
        }
    }

    #[test]
    fn scripts_are_known_by_their_ending() {
        for script in ["a.js", "x/b.mjs", "c.cjs", "d.ts"] {
            assert!(matches!(Module::from_path(script).0, ModuleKind::Node(_)), "{script}");
        }
        for program in ["./a", "a.py", "js", ".js"] {
            assert!(matches!(Module::from_path(program).0, ModuleKind::Program(_)), "{program}");
        }
    }
}

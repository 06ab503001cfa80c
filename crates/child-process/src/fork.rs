//! Children with a channel.

use std::ffi::{OsStr, OsString};
use std::ops::{Deref, DerefMut};

use crate::child::Child;
use crate::command::Command;
use crate::error::Error;
use crate::module::{Module, ModuleKind, runs_scripts, this_executable};
use crate::stdio::Stdio;

/// The descriptor of the channel in the child, unless [`Command::descriptor`] sets another one.
const CHANNEL_NUMBER: i32 = 3;

/// A [`Command`] for a child with a channel: the child inherits descriptors 0 to 2, and descriptor
/// 3 is the channel.
///
/// Every option of `Command` is available. `stdio` and `descriptor` put the channel under another
/// number and change the standard streams.
///
/// `node` runs a script for Node. Its channel carries JSON, or V8's format with
/// [`Serialization::Advanced`](ipc::Serialization::Advanced); in the script, `process.send` and
/// `process.on('message')` work as in a child of Node. Sockets are sent along with a message: see
/// [`Child::send_with_handle`] and [`Message::take_handle`](ipc::Message::take_handle).
///
/// ```no_run
/// use brood_child_process::{Event, Fork, Module};
///
/// let child = Fork::new(Module::current_exe("double")).spawn()?;
/// child.send(&21_u32)?;
/// for event in child.take_events().expect("taken once") {
///     if let Event::Message(message) = event {
///         assert_eq!(message.decode::<u32>()?, 42);
///         child.disconnect()?;
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Fork(Command);

impl Fork {
    /// Creates a fork of `module`.
    pub fn new(module: impl Into<Module>) -> Self {
        let mut command = match module.into().0 {
            ModuleKind::Named(name) => {
                let mut command = this_program();
                command.module = Some(name);
                command
            }
            ModuleKind::ThisProgram => this_program(),
            ModuleKind::ThisProgramAt(path) => {
                let mut command = this_program();
                command.program = path.into();
                command
            }
            ModuleKind::Program(path) => Command::new(path),
            ModuleKind::Node(script) => {
                let mut command = Command::new("node");
                command.arg(script);
                command.is_node = true;
                command
            }
        };
        command.is_fork = true;
        command.stdio([Stdio::inherit(), Stdio::inherit(), Stdio::inherit()]);
        command.descriptor(CHANNEL_NUMBER, Stdio::ipc());
        Self(command)
    }

    /// Makes the standard streams pipes instead of inheriting them.
    pub fn silent(&mut self, silent: bool) -> &mut Self {
        if silent {
            self.0.stdio([Stdio::pipe(), Stdio::pipe(), Stdio::pipe()]);
        } else {
            self.0.stdio([Stdio::inherit(), Stdio::inherit(), Stdio::inherit()]);
        }
        self
    }

    /// Sets another executable: another build of this program, another Node.
    ///
    /// An executable named `node`, `nodejs`, `bun` or `deno` runs the module as a script, whatever
    /// its extension, and gets Node's channel.
    pub fn exec_path(&mut self, path: impl AsRef<OsStr>) -> &mut Self {
        let program = std::mem::replace(&mut self.0.program, path.as_ref().to_owned());
        if !self.0.is_node && self.0.fallback.is_none() && runs_scripts(path.as_ref()) {
            self.0.is_node = true;
            // The engine runs the module as its script, the first argument.
            self.0.args.insert(0, program);
        }
        self.0.fallback = None;
        self
    }

    /// Adds arguments for the executable itself, before those of the module.
    pub fn exec_argv(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        let mut all: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        all.append(&mut self.0.args);
        self.0.args = all;
        self
    }

    /// Returns whether the child gets Node's channel: it is a script, or an engine for scripts.
    #[must_use]
    pub fn speaks_node(&self) -> bool {
        self.0.speaks_node()
    }

    /// Starts the child. See [`Command::spawn`].
    ///
    /// # Errors
    ///
    /// As [`Command::spawn`]; [`Error::Invalid`] when no descriptor is the channel;
    /// [`Error::ModuleNotRun`] for a fork of this program, in a process that was itself forked to
    /// run a module and has not called [`run_modules`](crate::run_modules).
    pub fn spawn(&mut self) -> Result<Child, Error> {
        self.0.spawn()
    }
}

fn this_program() -> Command {
    let (path, fallback) = this_executable();
    let mut command = Command::new(path);
    command.fallback = Some(fallback);
    command
}

impl Deref for Fork {
    type Target = Command;

    fn deref(&self) -> &Command {
        &self.0
    }
}

impl DerefMut for Fork {
    fn deref_mut(&mut self) -> &mut Command {
        &mut self.0
    }
}

/// Starts `module` as a child with a channel and these arguments. [`Fork`] has more options, and
/// takes arguments that are not UTF-8.
///
/// ```no_run
/// let child = brood_child_process::fork("worker.js", [])?;
/// child.send("hello")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`Fork::spawn`].
pub fn fork<'a>(
    module: impl Into<Module>,
    args: impl IntoIterator<Item = &'a str>,
) -> Result<Child, Error> {
    let mut fork = Fork::new(module);
    fork.args(args);
    fork.spawn()
}

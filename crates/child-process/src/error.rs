//! The errors of starting, watching and talking to children.
//!
//! `Display` is an error's own sentence; `source` gives the cause. `{:?}` is the sentence with all
//! causes on one line, and `{:#?}` the structure.

use std::error::Error as StdError;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use ipc::internal::{copy_error, copy_io_error};
use sys::errno::write_with_causes;
use sys::pidfd::ExitStatus;
use sys::spawn::Step;
use sys::text;

use crate::signalled::TreeError;

/// An error about a child, its channel, or the channel to the parent.
///
/// `Display` is one sentence without the cause, which is the [`source`](StdError::source). `{:?}` is
/// one line with all causes, as `main` prints an error that it returns; `{:#?}` is the structure.
///
/// ```
/// use brood_child_process::Command;
///
/// let error = Command::new("true").current_dir("/nowhere").spawn().unwrap_err();
/// assert_eq!(error.to_string(), "cannot start true: working directory /nowhere");
/// assert_eq!(
///     format!("{error:?}"),
///     "cannot start true: working directory /nowhere: No such file or directory (os error 2)"
/// );
/// assert_eq!(error.code(), "ENOENT");
/// ```
#[non_exhaustive]
pub enum Error {
    /// An option is invalid. Nothing was started.
    Invalid(Box<InvalidOption>),
    /// The child could not be started. No process and no descriptor of it is left.
    Spawn(Box<SpawnError>),
    /// This process was forked to run the module of this name, but has not called
    /// [`run_modules`](crate::run_modules), so that another fork of this program would do the same
    /// without end. Nothing was started.
    ModuleNotRun(String),
    /// A command exited with a code other than 0, or was killed by a signal.
    Exited(ExitStatus),
    /// The timeout passed, and the child was sent its kill signal.
    TimedOut,
    /// The child wrote more than `max_buffer` bytes to this stream and was sent its kill signal.
    MaxBuffer(OutputStream),
    /// The child was cancelled, with an optional reason, and was sent its kill signal.
    Cancelled(Option<String>),
    /// A signal for a child and its descendants may not have reached all of them.
    Tree(Box<TreeError>),
    /// There is no channel, or the channel is already closed.
    NoChannel,
    /// The channel reported an error.
    Channel(ipc::Error),
    /// The named system call or operation failed.
    Os(&'static str, io::Error),
}

/// An output of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output, descriptor 1.
    Stdout,
    /// Standard error, descriptor 2.
    Stderr,
}

/// An option with an invalid value, and the reason.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidOption {
    /// The name of the option: `"args[2]"`, `"env PATH"`, `"uid"`.
    pub field: String,
    /// The reason, as the second half of a sentence: `"must not be empty"`.
    pub why: &'static str,
    code: &'static str,
}

impl InvalidOption {
    pub(crate) fn value(field: impl Into<String>, why: &'static str) -> Self {
        Self { field: field.into(), why, code: "ERR_INVALID_ARG_VALUE" }
    }

    pub(crate) fn range(field: impl Into<String>, why: &'static str) -> Self {
        Self { field: field.into(), why, code: "ERR_OUT_OF_RANGE" }
    }

    pub(crate) fn coded(field: impl Into<String>, why: &'static str, code: &'static str) -> Self {
        Self { field: field.into(), why, code }
    }

    /// Returns Node's name for the error, see [`Error::code`].
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }
}

/// A program that could not be started, and the step that failed.
#[non_exhaustive]
pub struct SpawnError {
    /// The program, as the command names it.
    pub program: OsString,
    /// The arguments, without `argv[0]`.
    pub arguments: Vec<OsString>,
    /// The working directory, if the command sets one.
    pub current_dir: Option<PathBuf>,
    /// The step that failed. A missing directory and a missing program are different steps.
    pub step: Step,
    /// The system call that failed, if the step has several: `"clone"`, `"pidfd_open"`, …
    pub call: Option<&'static str>,
    /// The error of the kernel.
    pub source: io::Error,
}

impl Error {
    /// Returns Node's name for this error: `"ENOENT"`, `"ERR_IPC_CHANNEL_CLOSED"`, …
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(invalid) => invalid.code,
            Self::Spawn(failure) => sys::errno::name_of(&failure.source),
            Self::ModuleNotRun(_) => "ERR_INVALID_STATE",
            Self::Exited(_) => "ERR_CHILD_PROCESS_FAILED",
            Self::TimedOut => "ETIMEDOUT",
            Self::MaxBuffer(_) => "ERR_CHILD_PROCESS_STDIO_MAXBUFFER",
            Self::Cancelled(_) => "ABORT_ERR",
            Self::Tree(failure) => sys::errno::name_of(&failure.source),
            Self::NoChannel => "ERR_IPC_DISCONNECTED",
            Self::Channel(error) => error.code(),
            Self::Os(_, error) => sys::errno::name_of(error),
        }
    }

    /// Returns the kernel's error number, if a system call failed.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Spawn(failure) => failure.source.raw_os_error(),
            Self::Tree(failure) => failure.source.raw_os_error(),
            Self::Os(_, error) | Self::Channel(ipc::Error::Os(_, error)) => error.raw_os_error(),
            Self::Invalid(_)
            | Self::ModuleNotRun(_)
            | Self::Exited(_)
            | Self::TimedOut
            | Self::MaxBuffer(_)
            | Self::Cancelled(_)
            | Self::NoChannel
            | Self::Channel(_) => None,
        }
    }

    /// Copies the error, for one more subscriber.
    pub(crate) fn copy(&self) -> Self {
        match self {
            Self::Invalid(invalid) => Self::Invalid(invalid.clone()),
            Self::Spawn(failure) => Self::Spawn(Box::new(SpawnError {
                program: failure.program.clone(),
                arguments: failure.arguments.clone(),
                current_dir: failure.current_dir.clone(),
                step: failure.step,
                call: failure.call,
                source: copy_io_error(&failure.source),
            })),
            Self::ModuleNotRun(name) => Self::ModuleNotRun(name.clone()),
            Self::Exited(status) => Self::Exited(*status),
            Self::TimedOut => Self::TimedOut,
            Self::MaxBuffer(stream) => Self::MaxBuffer(*stream),
            Self::Cancelled(reason) => Self::Cancelled(reason.clone()),
            Self::Tree(error) => Self::Tree(Box::new(TreeError {
                child: error.child,
                unreached: error.unreached.clone(),
                call: error.call,
                source: copy_io_error(&error.source),
            })),
            Self::NoChannel => Self::NoChannel,
            Self::Channel(error) => Self::Channel(copy_error(error)),
            Self::Os(call, error) => Self::Os(call, copy_io_error(error)),
        }
    }

    /// Returns the step that failed, if the child could not be started.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        match self {
            Self::Spawn(failure) => Some(failure.step),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::Spawn(failure) => failure.fmt(f),
            Self::ModuleNotRun(name) => write!(
                f,
                "cannot fork: this process was started to run the module {name:?}, and has not \
                 called `run_modules`; make that the first call in `main`"
            ),
            Self::Exited(ExitStatus::Signal(signal)) => write!(f, "killed by {signal}"),
            Self::Exited(status) => write!(f, "exited with {status}"),
            Self::TimedOut => f.write_str("took longer than allowed"),
            Self::MaxBuffer(OutputStream::Stdout) => {
                f.write_str("wrote more to standard output than allowed")
            }
            Self::MaxBuffer(OutputStream::Stderr) => {
                f.write_str("wrote more to standard error than allowed")
            }
            Self::Cancelled(None) => f.write_str("cancelled"),
            Self::Cancelled(Some(reason)) => write!(f, "cancelled: {}", text::line(reason)),
            Self::Tree(failure) => failure.fmt(f),
            Self::NoChannel => f.write_str("there is no open channel"),
            Self::Channel(_) => f.write_str("the channel failed"),
            Self::Os(call, _) => write!(f, "{call} failed"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return write_with_causes(self, f);
        }
        match self {
            Self::Invalid(invalid) => f.debug_tuple("Invalid").field(invalid).finish(),
            Self::Spawn(failure) => f.debug_tuple("Spawn").field(failure).finish(),
            Self::ModuleNotRun(name) => f.debug_tuple("ModuleNotRun").field(name).finish(),
            Self::Exited(status) => f.debug_tuple("Exited").field(status).finish(),
            Self::TimedOut => f.write_str("TimedOut"),
            Self::MaxBuffer(stream) => f.debug_tuple("MaxBuffer").field(stream).finish(),
            Self::Cancelled(reason) => f.debug_tuple("Cancelled").field(reason).finish(),
            Self::Tree(failure) => f.debug_tuple("Tree").field(failure).finish(),
            Self::NoChannel => f.write_str("NoChannel"),
            Self::Channel(error) => f.debug_tuple("Channel").field(error).finish(),
            Self::Os(call, error) => f.debug_tuple("Os").field(call).field(error).finish(),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            // The sentence is that of the inner error, so the cause is the cause of that error.
            Self::Spawn(failure) => Some(&failure.source),
            Self::Tree(failure) => Some(&failure.source),
            Self::Channel(error) => Some(error),
            Self::Os(_, error) => Some(error),
            Self::Invalid(_)
            | Self::ModuleNotRun(_)
            | Self::Exited(_)
            | Self::TimedOut
            | Self::MaxBuffer(_)
            | Self::Cancelled(_)
            | Self::NoChannel => None,
        }
    }
}

impl fmt::Display for InvalidOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", text::line(&self.field), self.why)
    }
}

impl fmt::Debug for InvalidOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("InvalidOption")
            .field("field", &self.field)
            .field("why", &self.why)
            .field("code", &self.code)
            .finish()
    }
}

impl StdError for InvalidOption {}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start {}", text::line(self.program.as_bytes()))?;
        match (self.step, &self.current_dir) {
            (Step::Program, _) => Ok(()),
            (Step::CurrentDir, Some(path)) => {
                write!(f, ": working directory {}", text::line(path.as_os_str().as_bytes()))
            }
            (step, _) => write!(f, ": {step}"),
        }?;
        match self.call {
            Some(call) => write!(f, ": {call}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return write_with_causes(self, f);
        }
        f.debug_struct("SpawnError")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .field("current_dir", &self.current_dir)
            .field("step", &self.step)
            .field("call", &self.call)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for SpawnError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}

impl From<InvalidOption> for Error {
    fn from(invalid: InvalidOption) -> Self {
        Self::Invalid(Box::new(invalid))
    }
}

impl From<reactor::StartError> for Error {
    fn from(error: reactor::StartError) -> Self {
        Self::Os(error.call, error.source)
    }
}

impl From<ipc::Error> for Error {
    fn from(error: ipc::Error) -> Self {
        Self::Channel(error)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Spawn(failure) => failure.source.kind(),
            Error::Tree(failure) => failure.source.kind(),
            Error::Os(_, source) => source.kind(),
            Error::Invalid(_) => io::ErrorKind::InvalidInput,
            Error::TimedOut => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Converts a string for a message. Bytes that are not UTF-8 are replaced.
pub(crate) fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing_program() -> Error {
        let source = io::Error::from_raw_os_error(sys::errno::ENOENT);
        let (program, step) = (OsString::from("nope"), Step::Program);
        let (arguments, current_dir, call) = (Vec::new(), None, None);
        Error::Spawn(Box::new(SpawnError { program, arguments, current_dir, step, call, source }))
    }

    #[test]
    fn a_sentence_leaves_the_cause_to_the_source() {
        let error = missing_program();
        assert_eq!(error.to_string(), "cannot start nope");
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.and_then(io::Error::raw_os_error), Some(sys::errno::ENOENT));
        assert!(InvalidOption::value("uid", "is odd").source().is_none());
        let odd = InvalidOption::value("env A\nexit 1", "is odd");
        assert_eq!(odd.to_string(), r"env A\nexit 1: is odd");
    }

    #[test]
    fn debug_is_one_line_with_all_causes_and_the_structure_on_request() {
        let error = missing_program();
        let line = "cannot start nope: No such file or directory (os error 2)";
        assert_eq!(format!("{error:?}"), line);
        let structure = format!("{:#?}", Error::Channel(ipc::Error::Closed));
        assert!(structure.starts_with("Channel(\n"), "{structure}");
        assert_eq!(
            format!("{:?}", Error::Channel(ipc::Error::Closed)),
            "the channel failed: the channel is closed"
        );
    }

    #[test]
    fn errors_are_small_enough_to_be_returned() {
        assert!(size_of::<Error>() <= 48, "{}", size_of::<Error>());
    }
}

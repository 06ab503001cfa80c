//! The errors of starting, watching and talking to children.

use std::error::Error as StdError;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::PathBuf;

use sys::pidfd::ExitStatus;
use sys::spawn::Step;

/// An error about a child, its channel, or the channel to the parent.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An option is invalid. Nothing was started.
    Invalid(InvalidOption),
    /// The child could not be started. No process and no descriptor of it is left.
    Spawn(Box<SpawnError>),
    /// A command exited with a code other than 0, or was killed by a signal.
    Exited(ExitStatus),
    /// The timeout passed, and the child was sent its kill signal.
    TimedOut,
    /// The child wrote more than `max_buffer` bytes to this stream and was sent its kill signal.
    MaxBuffer(OutputStream),
    /// The child was cancelled, with an optional reason, and was sent its kill signal.
    Cancelled(Option<String>),
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// A program that could not be started, and the step that failed.
#[derive(Debug)]
pub struct SpawnError {
    /// The program, as the command names it.
    pub program: OsString,
    /// The arguments, without `argv[0]`.
    pub arguments: Vec<OsString>,
    /// The working directory, if the command sets one.
    pub current_dir: Option<PathBuf>,
    /// The step that failed. A missing directory and a missing program are different steps.
    pub step: Step,
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
            Self::Exited(_) => "ERR_CHILD_PROCESS_FAILED",
            Self::TimedOut => "ETIMEDOUT",
            Self::MaxBuffer(_) => "ERR_CHILD_PROCESS_STDIO_MAXBUFFER",
            Self::Cancelled(_) => "ABORT_ERR",
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
            Self::Os(_, error) | Self::Channel(ipc::Error::Os(_, error)) => error.raw_os_error(),
            Self::Invalid(_)
            | Self::Exited(_)
            | Self::TimedOut
            | Self::MaxBuffer(_)
            | Self::Cancelled(_)
            | Self::NoChannel
            | Self::Channel(_) => None,
        }
    }

    /// Copies the errors that are emitted as events; `None` for all others.
    pub(crate) fn try_clone(&self) -> Option<Self> {
        match self {
            Self::TimedOut => Some(Self::TimedOut),
            Self::MaxBuffer(stream) => Some(Self::MaxBuffer(*stream)),
            Self::Cancelled(reason) => Some(Self::Cancelled(reason.clone())),
            _ => None,
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
            Self::Invalid(InvalidOption { field, why, .. }) => write!(f, "{field}: {why}"),
            Self::Spawn(failure) => failure.fmt(f),
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
            Self::Cancelled(Some(reason)) => write!(f, "cancelled: {reason}"),
            Self::NoChannel => f.write_str("there is no open channel"),
            Self::Channel(_) => f.write_str("the channel failed"),
            Self::Os(call, _) => write!(f, "{call} failed"),
        }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start {}: ", lossy(&self.program))?;
        match (self.step, &self.current_dir) {
            (Step::Program, _) => {}
            (Step::CurrentDir, Some(path)) => write!(f, "working directory {}: ", path.display())?,
            (step, _) => write!(f, "{step}: ")?,
        }
        let (name, text) = sys::errno::describe(&self.source);
        write!(f, "{text} ({name})")
    }
}

impl StdError for SpawnError {}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Channel(error) => Some(error),
            Self::Os(_, error) => Some(error),
            _ => None,
        }
    }
}

/// The error of a command whose output is collected: an [`ExecFailure`].
#[derive(Debug)]
pub struct ExecError(Box<ExecFailure>);

impl std::ops::Deref for ExecError {
    type Target = ExecFailure;

    fn deref(&self) -> &ExecFailure {
        &self.0
    }
}

/// The details of a command that failed: the cause, the status, and the output until then.
#[derive(Debug)]
pub struct ExecFailure {
    /// The cause.
    pub error: Error,
    /// The exit status, if a process was started.
    pub status: Option<ExitStatus>,
    /// The standard output that was collected until the failure.
    pub stdout: Vec<u8>,
    /// The standard error that was collected until the failure.
    pub stderr: Vec<u8>,
    /// The program and its arguments, as one line.
    pub line: String,
}

impl ExecError {
    pub(crate) fn before_start(error: Error, line: String) -> Self {
        let (stdout, stderr) = (Vec::new(), Vec::new());
        ExecFailure { error, status: None, stdout, stderr, line }.into()
    }

    /// Returns Node's name for the cause, see [`Error::code`].
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.error.code()
    }

    /// Returns whether the process was sent its kill signal: after a timeout, a cancellation, or
    /// too much output.
    #[must_use]
    pub fn killed(&self) -> bool {
        matches!(self.error, Error::TimedOut | Error::MaxBuffer(_) | Error::Cancelled(_))
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command failed: {}: {}", self.line, self.error)?;
        let said = String::from_utf8_lossy(&self.stderr);
        if said.is_empty() { Ok(()) } else { write!(f, "\n{}", said.trim_end()) }
    }
}

impl StdError for ExecError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl From<ExecError> for Error {
    fn from(failed: ExecError) -> Self {
        failed.0.error
    }
}

impl From<ExecFailure> for ExecError {
    fn from(failure: ExecFailure) -> Self {
        Self(Box::new(failure))
    }
}

impl From<InvalidOption> for Error {
    fn from(invalid: InvalidOption) -> Self {
        Self::Invalid(invalid)
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

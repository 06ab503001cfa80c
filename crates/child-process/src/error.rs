//! What can go wrong with children.

use std::error::Error as StdError;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::PathBuf;

use sys::pidfd::ExitStatus;
use sys::spawn::Step;

/// Why something about a child did not work.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An option that cannot be. Nothing was started.
    Invalid(InvalidOption),
    /// The child could not be started; nothing is left of the attempt.
    Spawn(Box<SpawnError>),
    /// A command ended with another code than 0, or by a signal.
    Exited(ExitStatus),
    /// The time allowed was over, and the child was sent its kill signal.
    TimedOut,
    /// The child wrote more than allowed to this stream, and was sent its kill signal.
    MaxBuffer(OutputStream),
    /// The child was cancelled, for this reason, and was sent its kill signal.
    Cancelled(Option<String>),
    /// The child (or this process) has no channel, or it was closed before.
    NoChannel,
    /// The channel refused.
    Channel(ipc::Error),
    /// The kernel refused this call.
    Os(&'static str, io::Error),
}

/// Which of a child's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// An option that cannot be, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOption {
    /// The option: `"args[2]"`, `"env PATH"`, `"uid"`.
    pub field: String,
    /// What is wrong with it.
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

/// Which program could not be started, and which step of starting it failed.
#[derive(Debug)]
pub struct SpawnError {
    /// The program as it was asked for.
    pub program: OsString,
    /// Its arguments, without its own name.
    pub arguments: Vec<OsString>,
    /// The working directory that was asked for.
    pub current_dir: Option<PathBuf>,
    /// What failed: a missing directory is told apart from a missing program.
    pub step: Step,
    /// The kernel's reason.
    pub source: io::Error,
}

impl Error {
    /// Node's name for this error: `"ENOENT"`, `"ERR_IPC_CHANNEL_CLOSED"`, …
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

    /// The kernel's error number, where the kernel refused.
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

    /// A second one, of those that come as events.
    pub(crate) fn try_clone(&self) -> Option<Self> {
        match self {
            Self::TimedOut => Some(Self::TimedOut),
            Self::MaxBuffer(stream) => Some(Self::MaxBuffer(*stream)),
            Self::Cancelled(reason) => Some(Self::Cancelled(reason.clone())),
            _ => None,
        }
    }

    /// The step of starting a child that failed, where one did.
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

/// How a command whose output was collected did not end well: an [`ExecFailure`].
#[derive(Debug)]
pub struct ExecError(Box<ExecFailure>);

impl std::ops::Deref for ExecError {
    type Target = ExecFailure;

    fn deref(&self) -> &ExecFailure {
        &self.0
    }
}

/// What there is to know about a command that did not end well.
#[derive(Debug)]
pub struct ExecFailure {
    /// What went wrong.
    pub error: Error,
    /// How the process ended, where one was started.
    pub status: Option<ExitStatus>,
    /// What it wrote to its standard output until then.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error until then.
    pub stderr: Vec<u8>,
    /// The command, as one line.
    pub line: String,
}

impl ExecError {
    pub(crate) fn before_start(error: Error, line: String) -> Self {
        let (stdout, stderr) = (Vec::new(), Vec::new());
        ExecFailure { error, status: None, stdout, stderr, line }.into()
    }

    /// Node's name for the error, see [`Error::code`].
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.error.code()
    }

    /// Whether we ended the process.
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

/// Names a string in messages, whatever bytes it holds.
pub(crate) fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

//! The one error of this crate.

use std::error;
use std::fmt;
use std::io;

/// Why the system did not answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused this call, or to read this file.
    Os {
        /// The call (`getpriority`) or the file (`/proc/stat`).
        call: &'static str,
        /// What it answered.
        error: io::Error,
    },
    /// The kernel's file does not hold what it should.
    Malformed {
        /// The file: `/proc/stat`.
        file: &'static str,
    },
    /// A text is not UTF-8.
    NotUtf8 {
        /// The call that gave it: `uname`.
        call: &'static str,
        /// The text as it is.
        bytes: Vec<u8>,
    },
    /// A variable of the environment is set, but empty.
    Empty {
        /// The variable: `HOME`.
        variable: &'static str,
    },
    /// A priority is not between −20 and 19; nothing was changed.
    OutOfRange {
        /// The call that would have been made: `setpriority`.
        call: &'static str,
        /// The number that was asked for.
        value: i32,
    },
}

impl Error {
    pub(crate) fn os(call: &'static str, error: io::Error) -> Self {
        Self::Os { call, error }
    }

    /// The name that Node gives this error: `ENOENT`, `EPERM`, `ERR_OUT_OF_RANGE`, …
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::OutOfRange { .. } => "ERR_OUT_OF_RANGE",
            Self::Os { .. }
            | Self::Malformed { .. }
            | Self::NotUtf8 { .. }
            | Self::Empty { .. } => self.errno().map_or("UNKNOWN", sys::errno::name),
        }
    }

    /// The kernel's number for this error; where the kernel did not fail, the one that says it
    /// best: `EILSEQ` for a text, `EINVAL` for a value, `EBADMSG` for a file.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Os { error, .. } => error.raw_os_error(),
            Self::Malformed { .. } => Some(sys::errno::EBADMSG),
            Self::NotUtf8 { .. } => Some(sys::errno::EILSEQ),
            Self::Empty { .. } | Self::OutOfRange { .. } => Some(sys::errno::EINVAL),
        }
    }

    /// The call, file or variable that gave no answer: `getpriority`, `/proc/stat`, `HOME`.
    #[must_use]
    pub fn call(&self) -> &'static str {
        match self {
            Self::Os { call, .. } | Self::NotUtf8 { call, .. } | Self::OutOfRange { call, .. } => {
                call
            }
            Self::Malformed { file } => file,
            Self::Empty { variable } => variable,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os { call, .. } => write!(f, "{call} failed with {}", self.code()),
            Self::Malformed { file } => write!(f, "{file} does not hold what it should"),
            Self::NotUtf8 { call, bytes } => {
                write!(f, "{call} gave a text that is not UTF-8: {}", bytes.escape_ascii())
            }
            Self::Empty { variable } => write!(f, "{variable} is set, but empty"),
            Self::OutOfRange { call, value } => {
                write!(f, "{call} takes a priority from -20 to 19, not {value}")
            }
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Os { error, .. } => Some(error),
            Self::Malformed { .. }
            | Self::NotUtf8 { .. }
            | Self::Empty { .. }
            | Self::OutOfRange { .. } => None,
        }
    }
}

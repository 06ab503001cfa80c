//! The error type of this crate.

use std::error;
use std::fmt;
use std::io;

use sys::errno::write_with_causes;

/// The reason why a question about the system has no answer.
///
/// `Display` is one sentence without the cause, which is the [`source`](error::Error::source).
/// `{:?}` is one line with all causes, as `main` prints an error that it returns; `{:#?}` is the
/// structure.
///
/// ```
/// let error = brood_os_info::get_priority(u32::MAX).unwrap_err();
/// assert_eq!(error.to_string(), "getpriority failed");
/// assert_eq!(format!("{error:?}"), "getpriority failed: No such process (os error 3)");
/// assert_eq!(error.code(), "ESRCH");
/// ```
#[non_exhaustive]
pub enum Error {
    /// A system call failed, or a file of the kernel could not be read.
    Os {
        /// The call (`getpriority`) or the file (`/proc/stat`).
        call: &'static str,
        /// The error that the kernel returned.
        error: io::Error,
    },
    /// A file of the kernel does not have the expected content, or is no regular file.
    Malformed {
        /// The file: `/proc/stat`.
        file: &'static str,
    },
    /// A text from the kernel is not UTF-8.
    NotUtf8 {
        /// The call that returned the text: `uname`.
        call: &'static str,
        /// The bytes of the text, unchanged.
        bytes: Vec<u8>,
    },
    /// An environment variable is set, but empty.
    Empty {
        /// The variable: `HOME`.
        variable: &'static str,
    },
    /// The requested priority is not between −20 and 19. No priority was changed.
    OutOfRange {
        /// The call that the check prevented: `setpriority`.
        call: &'static str,
        /// The requested priority.
        value: i32,
    },
}

impl Error {
    pub(crate) fn os(call: &'static str, error: io::Error) -> Self {
        Self::Os { call, error }
    }

    /// Creates the error for a file that could not be opened or read.
    pub(crate) fn of_file(file: &'static str, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Malformed { file },
            _ => Self::os(file, error),
        }
    }

    /// Returns Node's name for this error: `ENOENT`, `EPERM`, `ERR_OUT_OF_RANGE`, …
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

    /// Returns the kernel's number for this error.
    ///
    /// Where no call failed, the closest number stands in: `EILSEQ` for a text that is not UTF-8,
    /// `EINVAL` for a value, `EBADMSG` for a malformed file.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Os { error, .. } => error.raw_os_error(),
            Self::Malformed { .. } => Some(sys::errno::EBADMSG),
            Self::NotUtf8 { .. } => Some(sys::errno::EILSEQ),
            Self::Empty { .. } | Self::OutOfRange { .. } => Some(sys::errno::EINVAL),
        }
    }

    /// Returns the call, file or variable that failed: `getpriority`, `/proc/stat`, `HOME`.
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
            Self::Os { call, .. } => write!(f, "{call} failed"),
            Self::Malformed { file } => write!(f, "{file} does not have the expected content"),
            Self::NotUtf8 { call, bytes } => {
                write!(f, "{call} gave a text that is not UTF-8: {}", bytes.escape_ascii())
            }
            Self::Empty { variable } => write!(f, "{variable} is set, but empty"),
            Self::OutOfRange { call, value } => {
                write!(f, "{call} needs a priority from -20 to 19, not {value}")
            }
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return write_with_causes(self, f);
        }
        match self {
            Self::Os { call, error } => {
                f.debug_struct("Os").field("call", call).field("error", error).finish()
            }
            Self::Malformed { file } => f.debug_struct("Malformed").field("file", file).finish(),
            Self::NotUtf8 { call, bytes } => {
                f.debug_struct("NotUtf8").field("call", call).field("bytes", bytes).finish()
            }
            Self::Empty { variable } => {
                f.debug_struct("Empty").field("variable", variable).finish()
            }
            Self::OutOfRange { call, value } => {
                f.debug_struct("OutOfRange").field("call", call).field("value", value).finish()
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

//! The failure of a command whose output is collected.

use std::error::Error as StdError;
use std::fmt;

use sys::pidfd::ExitStatus;
use sys::text;

use crate::error::Error;

/// The longest standard error in a message, in bytes.
const STDERR_BYTES_MAX: usize = 16 * 1024;

/// The failure of a command whose output is collected: the cause, the status, and the output until
/// then.
///
/// `Display` names the command and adds its standard error, as Node does; the cause is the
/// [`source`](StdError::source). `{:?}` is one line: the command, all causes, and the last line of
/// the standard error. Both cut what is long: the command after 1,000 bytes, and the standard error
/// before its last 16 KiB. Both escape characters that would change a log or a terminal; line breaks
/// of the standard error stay in `Display`. The fields have all of it, as it came.
///
/// ```
/// let failed = brood_child_process::exec_sync("echo no luck >&2; exit 3").unwrap_err();
/// assert_eq!(
///     format!("{failed:?}"),
///     "command failed: echo no luck >&2; exit 3: exited with code 3: no luck"
/// );
/// assert_eq!(failed.stderr, b"no luck\n");
/// ```
#[non_exhaustive]
pub struct ExecError {
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
        Self { error, status: None, stdout: Vec::new(), stderr: Vec::new(), line }
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
        matches!(
            self.error,
            Error::TimedOut | Error::MaxBuffer(_) | Error::Cancelled(_) | Error::Tree(_)
        )
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command failed: {}", text::line(&self.line).cut())?;
        let lines = end(&self.stderr).trim_ascii_end();
        match self.stderr.len() {
            _ if lines.is_empty() => Ok(()),
            0..=STDERR_BYTES_MAX => write!(f, "\n{}", text::lines(lines)),
            _ => write!(f, "\n…{}", text::lines(lines)),
        }
    }
}

impl fmt::Debug for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return f
                .debug_struct("ExecError")
                .field("error", &self.error)
                .field("status", &self.status)
                .field("stdout", &String::from_utf8_lossy(&self.stdout))
                .field("stderr", &String::from_utf8_lossy(&self.stderr))
                .field("line", &self.line)
                .finish();
        }
        write!(f, "command failed: {}: {:?}", text::line(&self.line).cut(), self.error)?;
        match end(&self.stderr).trim_ascii_end().rsplit(|byte| *byte == b'\n').next() {
            None | Some([]) => Ok(()),
            Some(line) => write!(f, ": {}", text::line(line).cut()),
        }
    }
}

impl StdError for ExecError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.error)
    }
}

impl From<ExecError> for Error {
    fn from(failed: ExecError) -> Self {
        failed.error
    }
}

/// Returns the end of a standard error that may be very long.
fn end(stderr: &[u8]) -> &[u8] {
    &stderr[stderr.len().saturating_sub(STDERR_BYTES_MAX)..]
}

#[cfg(test)]
mod tests {
    use sys::text::CUT_BYTES_MAX;

    use super::*;

    fn failed(line: &str, stderr: &[u8]) -> ExecError {
        let (stdout, stderr, line) = (Vec::new(), stderr.to_vec(), line.to_owned());
        ExecError { error: Error::TimedOut, status: None, stdout, stderr, line }
    }

    #[test]
    fn a_message_has_the_command_the_cause_and_the_standard_error() {
        let failed = self::failed("nope -x", b"first\nlast\n");
        let line = "command failed: nope -x: took longer than allowed: last";
        assert_eq!(format!("{failed:?}"), line);
        assert_eq!(failed.to_string(), "command failed: nope -x\nfirst\nlast");
        let failed = self::failed("a\nb", b"first\nl\x1b[31mast\xff\r\n");
        assert_eq!(failed.to_string(), "command failed: a\\nb\nfirst\nl\\u{1b}[31mast\\xff");
        assert!(format!("{failed:?}").ends_with(r"than allowed: l\u{1b}[31mast\xff"), "{failed:?}");
    }

    #[test]
    fn a_message_cuts_what_is_long() {
        let failed = failed(&"é".repeat(2_000_000), &vec![b'e'; 1 << 20]);
        let message = failed.to_string();
        assert!(message.len() < CUT_BYTES_MAX + STDERR_BYTES_MAX + 100, "{}", message.len());
        assert!(message.contains("é… (4000000 bytes)\n…eee"));
        assert!(format!("{failed:?}").len() < 2 * CUT_BYTES_MAX + 200);
        assert_eq!((failed.line.len(), failed.stderr.len()), (4_000_000, 1 << 20));
    }

    #[test]
    fn the_failure_is_small_enough_to_be_returned() {
        assert!(size_of::<ExecError>() <= 128, "{}", size_of::<ExecError>());
    }
}

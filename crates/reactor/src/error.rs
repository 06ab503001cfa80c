//! The error of starting the loop.

use std::error::Error;
use std::fmt;
use std::io;

/// The loop that cannot be started or used, and the call that failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct StartError {
    /// The name of the call: `"epoll_create1"`, `"eventfd2"`, …
    pub call: &'static str,
    /// The error of the call.
    pub source: io::Error,
}

impl StartError {
    pub(crate) fn of(call: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { call, source }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the event loop cannot be started: {} failed", self.call)
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

impl From<StartError> for io::Error {
    fn from(error: StartError) -> Self {
        error.source
    }
}

//! The standard input of a child under tokio.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sys::signal::without_sigpipe;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWrite, Interest};

use crate::stdio::ChildStdin;

/// This process's end of a child's standard input, as a writer of tokio. Dropping it ends the
/// child's input.
///
/// As for [`ChildStdin`], a write to a child that does not read is an error of kind
/// [`BrokenPipe`](ErrorKind::BrokenPipe), even where `SIGPIPE` has its default disposition: tokio's
/// own pipes leave that disposition to the program.
#[derive(Debug)]
pub struct AsyncStdin(AsyncFd<File>);

impl ChildStdin {
    /// Converts into a writer of tokio.
    ///
    /// # Errors
    ///
    /// The error of registering the descriptor with the runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with its I/O enabled.
    pub fn into_async(self) -> io::Result<AsyncStdin> {
        // The flag belongs to this end alone: the child has the other one.
        sys::socket::set_nonblocking(self.as_fd(), true)?;
        #[allow(deprecated, reason = "its fault needs a type that lies about its descriptor")]
        let watched = AsyncFd::with_interest(OwnedFd::from(self).into(), Interest::WRITABLE);
        watched.map(AsyncStdin)
    }
}

impl AsyncStdin {
    /// Waits until the pipe has room, or the child has closed its end.
    ///
    /// # Errors
    ///
    /// The runtime is shutting down.
    pub async fn writable(&self) -> io::Result<()> {
        loop {
            let mut guard = self.0.writable().await?;
            // tokio's note of the readiness may be older than the last write.
            if sys::poll::writable(self.0.as_fd(), Some(std::time::Duration::ZERO))? {
                guard.retain_ready();
                return Ok(());
            }
            guard.clear_ready();
        }
    }

    /// Writes as much as fits into the pipe, and does not wait.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](ErrorKind::WouldBlock) when the pipe is full,
    /// [`BrokenPipe`](ErrorKind::BrokenPipe) when the child does not read any more.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        without_sigpipe(bytes.len(), || self.0.get_ref().write(bytes))
    }
}

impl AsyncWrite for AsyncStdin {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match self.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The input ends when the value is dropped.
        Poll::Ready(Ok(()))
    }
}

impl AsFd for AsyncStdin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<AsyncStdin> for OwnedFd {
    fn from(stdin: AsyncStdin) -> Self {
        stdin.0.into_inner().into()
    }
}

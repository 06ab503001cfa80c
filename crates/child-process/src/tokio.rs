//! Children under tokio: the runtime waits for their descriptors instead of a thread.

mod async_stdin;

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use sys::pidfd::ExitStatus;

pub use async_stdin::AsyncStdin;

use crate::capture::Output;
use crate::child::Child;
use crate::error::Error;
use crate::exec::Exec;
use crate::exec_error::ExecError;
use crate::stdio::ChildOutput;

impl Child {
    /// Waits as [`wait`](Self::wait) does, without blocking a thread. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait); `EMFILE` when no descriptor is left to wait on.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with its I/O enabled.
    pub async fn wait_async(&self) -> Result<ExitStatus, Error> {
        drop(self.streams().stdin.take());
        let failed = |error| Error::Os("waiting for a process", error);
        // A descriptor of its own, because tokio registers and removes it.
        let pidfd = self.shared().process.pidfd().try_clone().map_err(failed)?;
        #[allow(deprecated, reason = "its fault needs a type that lies about its descriptor")]
        let watched = AsyncFd::with_interest(OwnedFd::from(pidfd), Interest::READABLE);
        let watched = watched.map_err(failed)?;
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        drop(watched.readable().await.map_err(failed)?);
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        // The tracer of a process is notified of an exit before `waitid` shows the exit here. The
        // case is rare enough for a blocking thread.
        let shared = self.shared().clone();
        let waited = tokio::task::spawn_blocking(move || shared.process.wait_until(None)).await;
        match waited {
            Ok(Ok(Some(status))) => Ok(status),
            Ok(Ok(None)) => Ok(ExitStatus::Unknown),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(failed(io::ErrorKind::Interrupted.into())),
        }
    }
}

impl Exec {
    /// Waits as [`wait`](Self::wait) does, without blocking an executor thread.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn wait_async(self) -> Result<Output, ExecError> {
        let waited = tokio::task::spawn_blocking(move || self.wait()).await;
        waited.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

impl ChildOutput {
    /// Converts into a pipe of tokio. [`Event::Close`](crate::Event::Close) no longer waits for the
    /// end of this output.
    ///
    /// # Errors
    ///
    /// The error of registering the descriptor with the runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with its I/O enabled.
    pub fn into_async(self) -> io::Result<pipe::Receiver> {
        pipe::Receiver::from_owned_fd(self.into())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Command, ExitStatus, exec};

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(future)
    }

    #[test]
    fn an_exit_is_awaited() {
        block_on(async {
            let child = Command::new("sh").args(["-c", "read -r x; exit 6"]).spawn().unwrap();
            assert_eq!(child.wait_async().await.unwrap(), ExitStatus::Code(6));
            assert_eq!(child.wait_async().await.unwrap(), ExitStatus::Code(6), "each time");
        });
    }

    #[test]
    fn a_result_is_awaited() {
        let output = block_on(exec("echo hello").unwrap().wait_async()).unwrap();
        assert_eq!(output.stdout, b"hello\n");
    }

    #[test]
    fn standard_streams_are_read_and_written() {
        block_on(async {
            let mut cat = Command::new("cat").spawn().unwrap();
            let stdin = cat.take_stdin().unwrap().into_async().unwrap();
            let stdout = cat.take_stdout().unwrap().into_async().unwrap();
            stdin.writable().await.unwrap();
            assert_eq!(stdin.try_write(b"through").unwrap(), 7);
            drop(stdin);
            let mut read = Vec::new();
            loop {
                stdout.readable().await.unwrap();
                let mut buffer = [0; 64];
                match stdout.try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => read.extend_from_slice(&buffer[..count]),
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
                }
            }
            assert_eq!(read, b"through");
            assert!(cat.wait_async().await.unwrap().success());
        });
    }
}

//! What a child's descriptors lead to, and our ends of its pipes.
//!
//! Descriptors that are given to a [`Command`](crate::Command) move into its next child: when the
//! child runs, only the child has them. So a pipeline of children ends by itself when one of them
//! does. Give a clone where several children shall have the same.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::thread;

use crate::shared::Shared;

/// What one descriptor of a child leads to.
///
/// Made by its functions, or from anything that owns a descriptor: a file, a socket, another
/// child's [`ChildOutput`].
///
/// ```
/// use child_process::{Command, Stdio};
///
/// let mut echo = Command::new("echo").arg("through").spawn()?;
/// let said = Command::new("cat").stdin(echo.take_stdout().unwrap()).output()?;
/// assert_eq!(said.stdout, b"through\n");
/// let silent = Command::new("ls").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
/// assert!(silent.wait()?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Stdio(pub(crate) Slot);

#[derive(Debug)]
pub(crate) enum Slot {
    Pipe,
    Inherit(i32),
    InheritOwn,
    Null,
    Closed,
    Channel,
    Owned(OwnedFd),
    /// It was owned, and went into a child.
    Moved,
}

impl Slot {
    /// Takes the descriptor out of an owned slot, so that it moves into the child.
    pub(crate) fn take_owned(&mut self) -> Option<OwnedFd> {
        match std::mem::replace(self, Self::Moved) {
            Self::Owned(fd) => Some(fd),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Stdio {
    /// A pipe between the child and us: what it reads as 0, what it writes as 1 and 2. Any other
    /// number gets a Unix stream socket, which goes both ways.
    #[must_use]
    pub const fn pipe() -> Self {
        Self(Slot::Pipe)
    }

    /// The same as our descriptor of the same number; `/dev/null` where 0, 1 or 2 is closed.
    #[must_use]
    pub const fn inherit() -> Self {
        Self(Slot::InheritOwn)
    }

    /// The same as our descriptor `number`, whatever it is when the child starts.
    #[must_use]
    pub const fn inherit_from(number: i32) -> Self {
        Self(Slot::Inherit(number))
    }

    /// `/dev/null`.
    #[must_use]
    #[doc(alias = "ignore")]
    pub const fn null() -> Self {
        Self(Slot::Null)
    }

    /// Nothing. Few programs expect their first three descriptors to be closed.
    #[must_use]
    pub const fn closed() -> Self {
        Self(Slot::Closed)
    }

    /// The channel for messages. A child has at most one.
    #[must_use]
    pub const fn ipc() -> Self {
        Self(Slot::Channel)
    }
}

impl<T: Into<OwnedFd>> From<T> for Stdio {
    fn from(descriptor: T) -> Self {
        Self(Slot::Owned(descriptor.into()))
    }
}

/// Our end of a child's standard input. Dropping it is the end of what the child reads.
#[derive(Debug)]
pub struct ChildStdin(File);

impl ChildStdin {
    pub(crate) fn new(pipe: OwnedFd) -> Self {
        Self(pipe.into())
    }
}

impl Write for ChildStdin {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for ChildStdin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<ChildStdin> for OwnedFd {
    fn from(stdin: ChildStdin) -> Self {
        stdin.0.into()
    }
}

/// Our end of what a child writes: its standard output or its standard error.
///
/// While it is held, [`Event::Close`](crate::Event::Close) waits for its end; a descriptor that
/// was taken out of it is no longer waited for.
#[derive(Debug)]
pub struct ChildOutput {
    // Closed before the notifier is given.
    pipe: Arc<File>,
    notifier: DropNotifier,
}

/// Tells the child's driver that one of our ends is gone.
#[derive(Debug)]
pub(crate) struct DropNotifier(Weak<Shared>);

impl Drop for DropNotifier {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.output_dropped();
        }
    }
}

impl ChildOutput {
    pub(crate) fn new(pipe: Arc<File>, shared: &Arc<Shared>) -> Self {
        Self { pipe, notifier: DropNotifier(Arc::downgrade(shared)) }
    }

    /// Makes a second handle of the same pipe.
    ///
    /// # Errors
    ///
    /// `EMFILE` when no descriptor is left.
    pub fn try_clone_to_owned(&self) -> io::Result<OwnedFd> {
        self.pipe.as_fd().try_clone_to_owned()
    }
}

impl Read for ChildOutput {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self.pipe).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self.pipe).read_vectored(bufs)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        (&*self.pipe).read_to_end(buf)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        (&*self.pipe).read_to_string(buf)
    }
}

impl AsFd for ChildOutput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl From<ChildOutput> for OwnedFd {
    fn from(output: ChildOutput) -> Self {
        let ChildOutput { mut pipe, notifier } = output;
        // The driver borrows it for as long as one system call takes.
        let file = loop {
            match Arc::try_unwrap(pipe) {
                Ok(file) => break file,
                Err(again) => pipe = again,
            }
            thread::yield_now();
        };
        drop(notifier);
        file.into()
    }
}

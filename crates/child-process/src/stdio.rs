//! The descriptors of a child, and this process's ends of its pipes.
//!
//! Descriptors that are given to a [`Command`](crate::Command) move into its next child: once the
//! child runs, no copy of them is open here. A pipeline of children therefore ends by itself when
//! one of them ends. A start that fails leaves them in the command. Give a clone to each child if
//! several children use one descriptor.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::thread;

use sys::signal::without_sigpipe;

use crate::child_state::Shared;

/// The source of one descriptor of a child.
///
/// Created by its functions, or from any value that owns a descriptor: a file, a socket, another
/// child's [`ChildOutput`].
///
/// Descriptors 0 to 2 of a child are blocking, as in Node and as programs expect. `O_NONBLOCK` is a
/// flag of the open file description: clearing it affects a clone of the descriptor, and a stream
/// that is inherited, in this process as well.
///
/// ```
/// use brood_child_process::{Command, Stdio};
///
/// let mut echo = Command::new("echo").arg("through").spawn()?;
/// let output = Command::new("cat").stdin(echo.take_stdout().unwrap()).output()?;
/// assert_eq!(output.stdout, b"through\n");
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
    /// The pseudo-terminal of the child, one for all slots.
    Terminal,
    Owned(OwnedFd),
    /// The descriptor has moved into a child.
    Moved,
}

impl Slot {
    /// Takes the descriptor out of an owned slot.
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
    /// Creates a pipe between the child and this process: the child reads descriptor 0 and writes
    /// descriptors 1 and 2. Any other number is a Unix stream socket, which carries both
    /// directions.
    #[must_use]
    pub const fn pipe() -> Self {
        Self(Slot::Pipe)
    }

    /// Inherits the descriptor of the same number; `/dev/null` if 0, 1 or 2 is closed here.
    #[must_use]
    pub const fn inherit() -> Self {
        Self(Slot::InheritOwn)
    }

    /// Inherits descriptor `number`, in the state it has when the child starts.
    #[must_use]
    pub const fn inherit_from(number: i32) -> Self {
        Self(Slot::Inherit(number))
    }

    /// Opens `/dev/null`.
    #[must_use]
    #[doc(alias = "ignore")]
    pub const fn null() -> Self {
        Self(Slot::Null)
    }

    /// Leaves the number closed. Few programs expect their first three descriptors to be closed.
    #[must_use]
    pub const fn closed() -> Self {
        Self(Slot::Closed)
    }

    /// Creates a pseudo-terminal, the controlling terminal of the child, for full-screen programs,
    /// job control and Ctrl-C.
    ///
    /// All slots of a command with this value have the same terminal. The child leads a new session
    /// with it, as with [`detached`](crate::Command::detached). This process's end is
    /// [`Child::take_terminal`](crate::Child::take_terminal), and the size is
    /// [`Command::terminal_size`](crate::Command::terminal_size). Output that is collected
    /// (`output`, `exec`) cannot come from a terminal.
    ///
    /// Node: has no such value; a package is needed.
    #[must_use]
    #[doc(alias = "terminal")]
    #[doc(alias = "openpty")]
    pub const fn pty() -> Self {
        Self(Slot::Terminal)
    }

    /// Creates the channel for messages. A child has at most one.
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

/// This process's end of a child's standard input. Dropping it ends the child's input.
///
/// A write to a child that does not read is an error of kind
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe), even in a process in which `SIGPIPE` has its default
/// disposition. That does not hold for the descriptor that is taken out of the value.
#[derive(Debug)]
pub struct ChildStdin(File);

impl ChildStdin {
    pub(crate) fn new(pipe: OwnedFd) -> Self {
        Self(pipe.into())
    }
}

impl Write for ChildStdin {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        without_sigpipe(bytes.len(), || self.0.write(bytes))
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let length = bytes.iter().map(|slice| slice.len()).sum();
        without_sigpipe(length, || self.0.write_vectored(bytes))
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

/// This process's end of a child's standard output or standard error.
///
/// [`Event::Close`](crate::Event::Close) waits until this output has ended or the value is dropped.
/// The event does not wait for a descriptor that was taken out of the value.
#[derive(Debug)]
pub struct ChildOutput {
    // Dropped first: the driver must find the pipe closed when it is notified.
    pipe: Arc<File>,
    notifier: DropNotifier,
}

/// Notifies the child's driver, on drop, that this process has closed its end of an output.
#[derive(Debug)]
pub(crate) struct DropNotifier(Weak<Shared>);

impl DropNotifier {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(shared))
    }
}

/// Takes a file out of its reference count. The driver holds a reference for the duration of one
/// system call.
pub(crate) fn sole_owner(mut file: Arc<File>) -> File {
    loop {
        match Arc::try_unwrap(file) {
            Ok(file) => return file,
            Err(again) => file = again,
        }
        thread::yield_now();
    }
}

impl Drop for DropNotifier {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.output_dropped();
        }
    }
}

impl ChildOutput {
    pub(crate) fn new(pipe: Arc<File>, shared: &Arc<Shared>) -> Self {
        Self { pipe, notifier: DropNotifier::new(shared) }
    }

    /// Duplicates the descriptor of the pipe.
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
        let ChildOutput { pipe, notifier } = output;
        let file = sole_owner(pipe);
        drop(notifier);
        file.into()
    }
}

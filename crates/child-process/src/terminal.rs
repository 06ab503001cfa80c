//! The pseudo-terminal of a child, and this process's end of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::child_state::Shared;
use crate::stdio::{DropNotifier, sole_owner};

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TerminalSize {
    /// The number of rows.
    pub rows: u16,
    /// The number of columns.
    pub columns: u16,
}

impl TerminalSize {
    /// Creates a size. Zero means that the size is not known.
    #[must_use]
    pub const fn new(rows: u16, columns: u16) -> Self {
        Self { rows, columns }
    }
}

impl Default for TerminalSize {
    /// 24 rows of 80 columns.
    fn default() -> Self {
        Self::new(24, 80)
    }
}

/// This process's end of a child's pseudo-terminal, see [`Stdio::pty`](crate::Stdio::pty).
///
/// Bytes that are written are what a user types: `0x03` is Ctrl-C, and the terminal echoes them
/// until the child turns that off. Reading returns what the child prints, with `\r\n` at the end of
/// a line, and 0 once every process has closed the terminal.
///
/// Dropping the value hangs the terminal up: the child gets `SIGHUP`.
/// [`Event::Close`](crate::Event::Close) waits until the terminal has ended or the value is dropped.
///
/// ```
/// use std::io::{BufRead, BufReader, Write};
/// use brood_child_process::{Command, Stdio, TerminalSize};
///
/// let mut command = Command::new("sh");
/// command.args(["-c", "read line; stty size"]).terminal_size(TerminalSize::new(30, 90));
/// let mut child = command.stdio([Stdio::pty(), Stdio::pty(), Stdio::pty()]).spawn()?;
/// let mut terminal = child.take_terminal().expect("taken once");
/// terminal.resize(TerminalSize::new(40, 120))?;
/// terminal.write_all(b"typed\n")?;
/// let lines: Vec<String> = BufReader::new(terminal).lines().collect::<Result<_, _>>()?;
/// assert_eq!(lines, ["typed", "40 120"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Terminal {
    // Dropped first: the driver must find the terminal closed when it is notified.
    file: Arc<File>,
    notifier: DropNotifier,
}

impl Terminal {
    pub(crate) fn new(file: Arc<File>, shared: &Arc<Shared>) -> Self {
        Self { file, notifier: DropNotifier::new(shared) }
    }

    /// Sets the size. The programs in the foreground get `SIGWINCH` if it changes.
    ///
    /// # Errors
    ///
    /// As `TIOCSWINSZ` in `ioctl_tty(2)`.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        sys::terminal::set_size(self.file.as_fd(), size.rows, size.columns)
    }

    /// Returns the size, which programs of the child can change as well.
    ///
    /// # Errors
    ///
    /// As `TIOCGWINSZ` in `ioctl_tty(2)`.
    pub fn size(&self) -> io::Result<TerminalSize> {
        let (rows, columns) = sys::terminal::size(self.file.as_fd())?;
        Ok(TerminalSize { rows, columns })
    }

    /// Duplicates the descriptor, so that one thread can read and another one write. The terminal
    /// is hung up when the last duplicate is closed.
    ///
    /// # Errors
    ///
    /// `EMFILE` when no descriptor is left.
    pub fn try_clone_to_owned(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }
}

impl Read for Terminal {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match (&*self.file).read(buf) {
            // The kernel's answer once no process has the terminal open.
            Err(error) if error.raw_os_error() == Some(sys::errno::EIO) => Ok(0),
            result => result,
        }
    }
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.file).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<Terminal> for OwnedFd {
    /// Takes the descriptor. Reading it reports the end as `EIO`, in place of 0 bytes.
    fn from(terminal: Terminal) -> Self {
        let Terminal { file, notifier } = terminal;
        let file = sole_owner(file);
        drop(notifier);
        file.into()
    }
}

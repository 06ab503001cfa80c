//! Waiting for readiness without the event loop: `ppoll(2)` on borrowed descriptors.
//!
//! For blocking calls that work on their own descriptor. A signal handler that runs in between
//! neither shortens nor lengthens the wait: the deadline is computed once.
//!
//! "Readable" and "writable" mean that the next call would not block. Hang-ups and errors count,
//! because that call would report them at once.

use std::io;
use std::ops::BitOr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::time::TimeSpec;

/// The readiness to wait for on a descriptor: reading, writing or both.
///
/// ```
/// use brood_sys::poll::Interest;
/// assert_eq!(Interest::READABLE | Interest::WRITABLE, Interest::BOTH);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Interest(u8);

impl Interest {
    /// The next read would not block.
    pub const READABLE: Self = Self(1);
    /// The next write would not block.
    pub const WRITABLE: Self = Self(2);
    /// Reading and writing.
    pub const BOTH: Self = Self(3);
    /// Neither of the two: only a hang-up or an error.
    pub const HANGUP: Self = Self(0);

    /// Returns whether reading is part of this interest.
    #[must_use]
    pub const fn is_readable(self) -> bool {
        self.0 & 1 != 0
    }

    /// Returns whether writing is part of this interest.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        self.0 & 2 != 0
    }

    fn flags(self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, self.is_readable());
        flags.set(PollFlags::POLLOUT, self.is_writable());
        flags
    }
}

impl BitOr for Interest {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The readiness of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ready {
    /// The next read would not block: there are bytes, end of file, or an error to report.
    pub readable: bool,
    /// The next write would not block: there is room, no reader is left, or an error to report.
    pub writable: bool,
}

impl Ready {
    /// Returns whether anything is ready.
    #[must_use]
    pub const fn any(self) -> bool {
        self.readable || self.writable
    }
}

/// Waits until `fd` can be read without blocking; returns `false` if `timeout` passed first.
///
/// Without a timeout the call waits for ever; with a zero timeout it polls once.
///
/// # Errors
///
/// `ENOMEM` or `EINVAL` (over the limit of descriptors), as `ppoll(2)`; never `EINTR`.
///
/// ```
/// use std::io::Write;
/// use std::os::fd::AsFd;
/// use std::time::Duration;
///
/// let (reader, mut writer) = std::io::pipe()?;
/// assert!(!brood_sys::poll::readable(reader.as_fd(), Some(Duration::ZERO))?);
/// writer.write_all(b"x")?;
/// assert!(brood_sys::poll::readable(reader.as_fd(), None)?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    Ok(wait(&[(fd, Interest::READABLE)], timeout)?[0].any())
}

/// Waits until `fd` can be written without blocking; returns `false` if `timeout` passed first.
///
/// # Errors
///
/// As [`readable`].
pub fn writable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    Ok(wait(&[(fd, Interest::WRITABLE)], timeout)?[0].any())
}

/// Waits until one of `entries` is ready; nothing in the result is ready if `timeout` passed first.
///
/// The result has one entry per descriptor, in the same order. The call does not allocate.
///
/// # Errors
///
/// As [`readable`].
pub fn wait<const N: usize>(
    entries: &[(BorrowedFd<'_>, Interest); N],
    timeout: Option<Duration>,
) -> io::Result<[Ready; N]> {
    let mut fds = entries.map(|(fd, interest)| PollFd::new(fd, interest.flags()));
    // Without waiting the clock need not be read.
    let polls_once = timeout == Some(Duration::ZERO);
    // A timeout beyond the range of the clock means no timeout.
    let until = timeout.filter(|_| !polls_once).and_then(|left| Instant::now().checked_add(left));
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = if polls_once { timeout } else { left }.map(TimeSpec::from_duration);
        match wait_once(&mut fds, left) {
            Ok(_) => return Ok(std::array::from_fn(|i| answer(&fds[i], entries[i].1))),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits with `ppoll`, or with the older `poll` where a sandbox refuses that.
fn wait_once(fds: &mut [PollFd<'_>], left: Option<TimeSpec>) -> Result<i32, Errno> {
    match ppoll(fds, left, None) {
        Err(refused @ (Errno::EPERM | Errno::ENOSYS)) => {
            let left = left.map(|left| Duration::from(left).as_nanos().div_ceil(1_000_000));
            let left = left.map_or(-1, |left| i32::try_from(left).unwrap_or(i32::MAX));
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::NONE);
            // Without that call the answer is that of `ppoll`.
            poll(fds, timeout).map_err(|error| if error == Errno::EINTR { error } else { refused })
        }
        answer => answer,
    }
}

/// Converts the kernel's answer. Hang-ups and errors count for each direction that was asked for.
fn answer(fd: &PollFd<'_>, interest: Interest) -> Ready {
    let seen = fd.revents().unwrap_or(PollFlags::empty());
    let both = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    if interest == Interest::HANGUP {
        let gone = seen.intersects(both);
        return Ready { readable: gone, writable: gone };
    }
    Ready {
        readable: interest.is_readable() && seen.intersects(both | PollFlags::POLLIN),
        writable: interest.is_writable() && seen.intersects(both | PollFlags::POLLOUT),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn an_empty_pipe_is_not_readable_until_the_timeout() {
        let (reader, _writer) = io::pipe().unwrap();
        let begin = Instant::now();
        assert!(!readable(reader.as_fd(), Some(Duration::from_millis(20))).unwrap());
        assert!(begin.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn bytes_and_the_end_are_both_readable() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        assert!(readable(reader.as_fd(), None).unwrap());
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        assert!(readable(reader.as_fd(), None).unwrap());
    }

    #[test]
    fn a_pipe_without_reader_is_writable_because_the_write_would_fail_at_once() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert!(writable(writer.as_fd(), Some(Duration::ZERO)).unwrap());
    }

    #[test]
    fn a_hang_up_is_distinguished_from_bytes() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let entries = [(reader.as_fd(), Interest::HANGUP)];
        assert!(!wait(&entries, Some(Duration::ZERO)).unwrap()[0].any());
        drop(writer);
        assert!(wait(&entries, None).unwrap()[0].readable);
    }

    #[test]
    fn each_descriptor_has_its_own_result() {
        let (reader, writer) = io::pipe().unwrap();
        let entries = [(reader.as_fd(), Interest::READABLE), (writer.as_fd(), Interest::WRITABLE)];
        let [idle, ready] = wait(&entries, Some(Duration::ZERO)).unwrap();
        assert_eq!(idle, Ready::default());
        assert_eq!(ready, Ready { readable: false, writable: true });
    }

    #[test]
    fn the_longest_timeout_is_no_error() {
        let (_reader, writer) = io::pipe().unwrap();
        assert!(writable(writer.as_fd(), Some(Duration::MAX)).unwrap());
    }
}

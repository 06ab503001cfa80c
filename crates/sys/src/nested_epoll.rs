//! Descriptors that report the readiness of others: [`GatedFd`] of one descriptor while its gate is
//! open, [`AnyOf`] of two.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::fd;

/// A descriptor that is readable while its gate is open and the descriptor it watches is readable.
///
/// An `epoll(7)` instance with a single member, which can be polled, and added to other instances,
/// as any descriptor can. Close-on-exec; no call on it blocks. The instance holds no copy of the
/// watched descriptor.
#[derive(Debug)]
pub struct GatedFd(Epoll);

impl GatedFd {
    /// Watches `watched`, with the gate open.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` when no descriptor is left, `EPERM` when `watched` cannot be polled.
    pub fn new(watched: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = create()?;
        epoll.add(watched, event(true))?;
        Ok(Self(epoll))
    }

    /// Opens or closes the gate. `watched` is the descriptor that [`new`](Self::new) was given.
    ///
    /// Opening the gate while `watched` is readable makes this descriptor readable, which is an
    /// edge for an edge-triggered waiter.
    ///
    /// # Errors
    ///
    /// `ENOENT` when `watched` is another descriptor.
    pub fn set_open(&self, watched: BorrowedFd<'_>, open: bool) -> io::Result<()> {
        if open {
            // A member that was ready when the gate closed may still be on the kernel's ready
            // list, and the kernel wakes nobody for a member that is listed already. A wait while
            // the gate is closed takes it off the list.
            self.0.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO)?;
        }
        Ok(self.0.modify(watched, &mut event(open))?)
    }
}

fn create() -> nix::Result<Epoll> {
    fd::with_standard_occupied(|| Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC))
}

fn event(open: bool) -> EpollEvent {
    EpollEvent::new(if open { EpollFlags::EPOLLIN } else { EpollFlags::empty() }, 0)
}

impl AsFd for GatedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// A descriptor that is readable while one of two others is: an `epoll(7)` instance of both.
///
/// Close-on-exec. The instance holds no copy of the two descriptors, which must stay open.
#[derive(Debug)]
pub struct AnyOf(Epoll);

impl AnyOf {
    /// Watches both descriptors.
    ///
    /// # Errors
    ///
    /// As [`GatedFd::new`]; `EEXIST` when both are the same descriptor.
    pub fn new(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = create()?;
        epoll.add(one, event(true))?;
        epoll.add(other, event(true))?;
        Ok(Self(epoll))
    }

    /// Stops watching `one`; the other descriptor stays watched.
    ///
    /// # Errors
    ///
    /// `ENOENT` when `one` is not watched.
    pub fn remove(&self, one: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.0.delete(one)?)
    }
}

impl AsFd for AnyOf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_gated_descriptor_is_readable_while_its_gate_is_open_and_its_member_is_readable() {
        let (read, write) = crate::pipe::pipe().unwrap();
        let gated = GatedFd::new(read.as_fd()).unwrap();
        let readable = || crate::poll::readable(gated.as_fd(), Some(Duration::ZERO)).unwrap();
        assert!(!readable());
        nix::unistd::write(&write, b"x").unwrap();
        assert!(readable() && readable());
        gated.set_open(read.as_fd(), false).unwrap();
        assert!(!readable());
        gated.set_open(read.as_fd(), true).unwrap();
        assert!(readable());
        nix::unistd::read(&read, &mut [0]).unwrap();
        assert!(!readable());
        gated.set_open(write.as_fd(), true).unwrap_err();
    }

    #[test]
    fn any_of_two_is_readable_while_one_is_and_reports_each_arrival() {
        let pipes = [crate::pipe::pipe().unwrap(), crate::pipe::pipe().unwrap()];
        let any_of = AnyOf::new(pipes[0].0.as_fd(), pipes[1].0.as_fd()).unwrap();
        let outer = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let edges = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 1);
        outer.add(any_of.as_fd(), edges).unwrap();
        let edge = || outer.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO).unwrap() == 1;
        let readable = || crate::poll::readable(any_of.as_fd(), Some(Duration::ZERO)).unwrap();
        assert!(!readable() && !edge());
        for _ in 0..2 {
            for (_, write) in &pipes {
                nix::unistd::write(write, b"x").unwrap();
                assert!(readable() && edge() && !edge());
            }
            // Reading empties the pipe, as `accept` empties a queue; each new arrival is an edge.
            for (read, write) in &pipes {
                nix::unistd::read(read, &mut [0]).unwrap();
                nix::unistd::write(write, b"x").unwrap();
                assert!(readable() && edge());
                nix::unistd::read(read, &mut [0]).unwrap();
            }
            assert!(!readable());
        }
        any_of.remove(pipes[0].0.as_fd()).unwrap();
        nix::unistd::write(&pipes[0].1, b"x").unwrap();
        assert!(!readable());
        nix::unistd::write(&pipes[1].1, b"x").unwrap();
        assert!(readable() && edge());
    }

    #[test]
    fn opening_the_gate_is_an_edge_for_an_edge_triggered_waiter() {
        let (read, write) = crate::pipe::pipe().unwrap();
        let gated = GatedFd::new(read.as_fd()).unwrap();
        let outer = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let edges = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 1);
        outer.add(gated.as_fd(), edges).unwrap();
        let edge = || outer.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO).unwrap() == 1;
        assert!(!edge());
        nix::unistd::write(&write, b"x").unwrap();
        assert!(edge() && !edge());
        for _ in 0..2 {
            gated.set_open(read.as_fd(), false).unwrap();
            assert!(!edge());
            gated.set_open(read.as_fd(), true).unwrap();
            assert!(edge() && !edge());
        }
        // Nothing was polled in between.
        gated.set_open(read.as_fd(), false).unwrap();
        nix::unistd::write(&write, b"x").unwrap();
        gated.set_open(read.as_fd(), true).unwrap();
        assert!(edge() && !edge());
    }
}

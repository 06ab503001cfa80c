//! Descriptors that are readable when others are: another one, as long as it is switched on; or any
//! of two.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Readable while what it watches is readable and it is on: an `epoll(7)` instance of one, which
/// can be polled and put into other instances like any descriptor.
///
/// Close-on-exec; no call on it blocks. It holds no copy of what it watches.
#[derive(Debug)]
pub struct Switch(Epoll);

impl Switch {
    /// Makes one that watches this descriptor, and is on.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` when no descriptor is left, `EPERM` when it cannot be polled.
    pub fn new(watched: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(watched, event(true))?;
        Ok(Self(epoll))
    }

    /// Turns it on or off; `watched` is what it was made with. Turned on while that is readable,
    /// it becomes so too, an edge for those who wait for one.
    ///
    /// # Errors
    ///
    /// `ENOENT` when it was made with another.
    pub fn set(&self, watched: BorrowedFd<'_>, on: bool) -> io::Result<()> {
        if on {
            // What was ready when it was turned off may still be listed as ready, and then the
            // kernel would tell nobody. Asked while it is off, it strikes that out.
            self.0.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO)?;
        }
        Ok(self.0.modify(watched, &mut event(on))?)
    }
}

fn event(on: bool) -> EpollEvent {
    EpollEvent::new(if on { EpollFlags::EPOLLIN } else { EpollFlags::empty() }, 0)
}

impl AsFd for Switch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// Readable while one of two descriptors is: an `epoll(7)` instance of both.
///
/// Close-on-exec. It holds no copy of what it watches, which has to stay open.
#[derive(Debug)]
pub struct Either(Epoll);

impl Either {
    /// Makes one that watches these.
    ///
    /// # Errors
    ///
    /// As [`Switch::new`]; `EEXIST` when they are one.
    pub fn new(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(one, event(true))?;
        epoll.add(other, event(true))?;
        Ok(Self(epoll))
    }

    /// Watches only the other one from now on.
    ///
    /// # Errors
    ///
    /// `ENOENT` when this one is not watched.
    pub fn leave_out(&self, one: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.0.delete(one)?)
    }
}

impl AsFd for Either {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_is_readable_while_it_is_on_and_the_other_is_readable() {
        let (read, write) = crate::pipe::pipe().unwrap();
        let switch = Switch::new(read.as_fd()).unwrap();
        let readable = || crate::poll::readable(switch.as_fd(), Some(Duration::ZERO)).unwrap();
        assert!(!readable());
        nix::unistd::write(&write, b"x").unwrap();
        assert!(readable() && readable());
        switch.set(read.as_fd(), false).unwrap();
        assert!(!readable());
        switch.set(read.as_fd(), true).unwrap();
        assert!(readable());
        nix::unistd::read(&read, &mut [0]).unwrap();
        assert!(!readable());
        switch.set(write.as_fd(), true).unwrap_err();
    }

    #[test]
    fn either_is_readable_while_one_is_and_tells_each_arrival() {
        let pipes = [crate::pipe::pipe().unwrap(), crate::pipe::pipe().unwrap()];
        let either = Either::new(pipes[0].0.as_fd(), pipes[1].0.as_fd()).unwrap();
        let outer = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let edges = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 1);
        outer.add(either.as_fd(), edges).unwrap();
        let edge = || outer.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO).unwrap() == 1;
        let readable = || crate::poll::readable(either.as_fd(), Some(Duration::ZERO)).unwrap();
        assert!(!readable() && !edge());
        for _ in 0..2 {
            for (_, write) in &pipes {
                nix::unistd::write(write, b"x").unwrap();
                assert!(readable() && edge() && !edge());
            }
            // Emptied by reading, as whoever takes connections does: each new one is told again.
            for (read, write) in &pipes {
                nix::unistd::read(read, &mut [0]).unwrap();
                nix::unistd::write(write, b"x").unwrap();
                assert!(readable() && edge());
                nix::unistd::read(read, &mut [0]).unwrap();
            }
            assert!(!readable());
        }
        either.leave_out(pipes[0].0.as_fd()).unwrap();
        nix::unistd::write(&pipes[0].1, b"x").unwrap();
        assert!(!readable());
        nix::unistd::write(&pipes[1].1, b"x").unwrap();
        assert!(readable() && edge());
    }

    #[test]
    fn turned_on_it_is_an_edge_for_who_waits_for_one() {
        let (read, write) = crate::pipe::pipe().unwrap();
        let switch = Switch::new(read.as_fd()).unwrap();
        let outer = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let edges = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 1);
        outer.add(switch.as_fd(), edges).unwrap();
        let edge = || outer.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO).unwrap() == 1;
        assert!(!edge());
        nix::unistd::write(&write, b"x").unwrap();
        assert!(edge() && !edge());
        for _ in 0..2 {
            switch.set(read.as_fd(), false).unwrap();
            assert!(!edge());
            switch.set(read.as_fd(), true).unwrap();
            assert!(edge() && !edge());
        }
        // Nobody looked in between.
        switch.set(read.as_fd(), false).unwrap();
        nix::unistd::write(&write, b"x").unwrap();
        switch.set(read.as_fd(), true).unwrap();
        assert!(edge() && !edge());
    }
}

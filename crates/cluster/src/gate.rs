//! The limit of open connections where no primary keeps count: the listening socket is shared by
//! several processes, or is this process's own.
//!
//! Who has all it may have does not accept. Its descriptor is not readable then, whoever waits
//! at the socket stays there, and others that share it may be quicker.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sys::epoll::GatedFd;

/// A listening socket from which only so many connections may be open.
#[derive(Debug)]
pub(crate) struct Gate {
    socket: OwnedFd,
    /// Readable when there is a connection, and room for it.
    switch: GatedFd,
    max: u32,
    open: Mutex<u32>,
}

impl Gate {
    pub(crate) fn new(socket: OwnedFd, max: u32) -> io::Result<Arc<Self>> {
        let switch = GatedFd::new(socket.as_fd())?;
        Ok(Arc::new(Self { socket, switch, max, open: Mutex::new(0) }))
    }

    /// Accepts where there is room, or `anyway`; `WouldBlock` also when there is none.
    pub(crate) fn accept<T>(
        &self,
        anyway: bool,
        accept: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut open = self.open();
        if *open >= self.max && !anyway {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let accepted = accept(self.socket.as_fd())?;
        *open += 1;
        if *open == self.max {
            self.turn(false);
        }
        Ok(accepted)
    }

    /// One that was accepted has ended.
    pub(crate) fn leave(&self) {
        let mut open = self.open();
        *open -= 1;
        if *open + 1 == self.max {
            self.turn(true);
        }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn turn(&self, on: bool) {
        self.switch.set_open(self.socket.as_fd(), on).expect("it watches the socket");
    }

    fn open(&self) -> MutexGuard<'_, u32> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.switch.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Address, ListenOptions, listen_with};
    use std::net::TcpStream;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn a_listener_at_its_limit_gives_nothing_until_one_has_ended() {
        let options = ListenOptions::new().max_connections(2);
        let listener = listen_with("127.0.0.1:0", &options).unwrap();
        let Address::Tcp { address, .. } = *listener.address() else { panic!("not TCP") };
        let clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        let readable = |time| sys::poll::readable(listener.as_fd(), Some(time)).unwrap();
        let first = listener.accept().unwrap();
        let (second, _) = listener.try_accept().unwrap().unwrap();
        assert!(listener.try_accept().unwrap().is_none() && !readable(Duration::ZERO));
        // The stream lives on, but is no longer counted.
        let _stream = second.into_inner();
        assert!(readable(Duration::from_secs(10)));
        let third = listener.accept().unwrap();
        assert!(listener.try_accept().unwrap().is_none() && !readable(Duration::ZERO));
        std::thread::scope(|scope| {
            let fourth = scope.spawn(|| listener.accept().unwrap());
            drop(first);
            fourth.join().unwrap();
        });
        drop((clients, third));
        assert!(listener.try_accept().unwrap().is_none());
    }
}

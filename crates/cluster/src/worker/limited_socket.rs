//! The connection limit of a listening socket for which no primary counts.
//!
//! The socket is shared by several processes, or belongs to this process alone. At the limit the
//! listener stops accepting and its descriptor is not readable. Clients stay in the backlog, where
//! other processes that share the socket can take them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sys::nested_epoll::GatedFd;

/// A listening socket with a limit on the connections that are open at once.
#[derive(Debug)]
pub(crate) struct LimitedSocket {
    socket: OwnedFd,
    /// Readable while a connection waits and the limit is not reached.
    readiness: GatedFd,
    max: u32,
    open: Mutex<u32>,
}

impl LimitedSocket {
    pub(crate) fn new(socket: OwnedFd, max: u32) -> io::Result<Arc<Self>> {
        let readiness = GatedFd::new(socket.as_fd())?;
        Ok(Arc::new(Self { socket, readiness, max, open: Mutex::new(0) }))
    }

    /// Accepts a connection. At the limit the result is `WouldBlock`, unless `ignore_limit`.
    pub(crate) fn accept<T>(
        &self,
        ignore_limit: bool,
        accept: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        // Locked across the accept: two threads must not both take the last place.
        let mut open = self.open();
        if *open >= self.max && !ignore_limit {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let accepted = accept(self.socket.as_fd())?;
        *open += 1;
        if *open == self.max {
            self.set_readiness(false);
        }
        Ok(accepted)
    }

    /// Counts one open connection less.
    pub(crate) fn connection_closed(&self) {
        let mut open = self.open();
        *open -= 1;
        if *open + 1 == self.max {
            self.set_readiness(true);
        }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn set_readiness(&self, on: bool) {
        self.readiness
            .set_open(self.socket.as_fd(), on)
            .expect("the socket has been watched since new");
    }

    fn open(&self) -> MutexGuard<'_, u32> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for LimitedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readiness.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Address, ListenOptions};
    use std::net::TcpStream;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn a_listener_at_its_limit_accepts_nothing_until_a_connection_has_closed() {
        let options = ListenOptions::new().max_connections(2);
        let listener = options.listen("127.0.0.1:0").unwrap();
        let Address::Tcp { address, .. } = *listener.address() else { panic!("not TCP") };
        let clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        let readable = |time| sys::poll::readable(listener.as_fd(), Some(time)).unwrap();
        let first = listener.accept().unwrap();
        let (second, _) = listener.try_accept().unwrap().unwrap();
        assert!(listener.try_accept().unwrap().is_none() && !readable(Duration::ZERO));
        // The stream stays open but is no longer counted.
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

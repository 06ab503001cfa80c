//! The hand-off queue: a `SOCK_SEQPACKET` pair that carries connections to one worker.
//!
//! The primary writes into [`HandOffQueue`] and keeps a copy of the end that the worker reads, so the
//! queue outlives the worker: what nobody accepted is read back and given to another. Both
//! readers see each record exactly once; the kernel decides which.
//!
//! While the copy is open the writing end never sees a hang-up, so a worker's death is learnt
//! from its pidfd or channel, never from here. One that lives and closes its listener shuts the
//! queue down, and from then on nothing gets in.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use sys::scm::{self, RecvFlags};

use crate::protocol::record::{RECORD_BYTES, Record};

/// Within so many descriptors of the limit, a worker looks before it takes.
const DESCRIPTORS_SPARE: u64 = 64;

/// An accepted connection on its way to a worker.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Option<SocketAddr>,
}

/// The primary's ends of one worker's queue.
#[derive(Debug)]
pub(crate) struct HandOffQueue {
    write: OwnedFd,
    read_copy: OwnedFd,
}

impl HandOffQueue {
    /// Makes a queue; the second value is the worker's end.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let (write, read) = sys::socket::pair_seqpacket()?;
        let read_copy = read.try_clone()?;
        Ok((Self { write, read_copy }, read))
    }

    /// Puts a connection into the queue; its descriptor may be closed afterwards.
    pub(crate) fn send(&self, connection: &Connection) -> io::Result<()> {
        let record = Record::Connection(connection.peer).encode();
        let bytes = [io::IoSlice::new(&record)];
        scm::send(self.write.as_fd(), &bytes, &[connection.socket.as_fd()]).map(drop)
    }

    /// Puts a probe into the queue.
    pub(crate) fn send_probe(&self) -> io::Result<()> {
        let record = Record::Probe.encode();
        scm::send(self.write.as_fd(), &[io::IoSlice::new(&record)], &[]).map(drop)
    }

    /// Counts the records nobody has read yet.
    pub(crate) fn depth(&self) -> io::Result<usize> {
        Ok(sys::socket::unread_bytes(self.read_copy.as_fd())? / RECORD_BYTES)
    }

    /// Reads back what nobody has read yet, oldest first; the number counts the probes.
    ///
    /// Stops early where this process has no descriptor left for what it would read.
    pub(crate) fn reclaim(&self) -> (Vec<Connection>, u32) {
        let mut connections = Vec::new();
        let mut probes = 0;
        while let Ok(Some(taken)) = take(self.read_copy.as_fd(), true) {
            match taken {
                Taken::Connection(connection) => connections.push(connection),
                Taken::Probe => probes += 1,
                Taken::End => break,
            }
        }
        (connections, probes)
    }

    /// Lets the worker read to the end: nothing more will come.
    pub(crate) fn end(&self) -> io::Result<()> {
        sys::socket::shutdown_write(self.write.as_fd())
    }

    /// The end to watch for room; never the copy, which would wake us for each record.
    pub(crate) fn write_end(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }
}

/// The worker's end of its queue.
#[derive(Debug)]
pub(crate) struct QueueReader {
    read: OwnedFd,
    /// A connection with this number or a higher one means: look before the next is taken.
    careful_from: u64,
    last_number: AtomicU64,
}

impl QueueReader {
    pub(crate) fn new(read: OwnedFd) -> Self {
        let limit = sys::limit::descriptors().map_or(0, |(soft, _)| soft);
        let careful_from = limit.saturating_sub(DESCRIPTORS_SPARE);
        Self { read, careful_from, last_number: AtomicU64::new(0) }
    }

    /// Takes the next connection; `None` when none waits, an error kind of
    /// `UnexpectedEof` when none will come.
    ///
    /// With no descriptor left it is `EMFILE` and the record stays in the queue, from where the
    /// primary takes it back: reading it would lose the connection.
    pub(crate) fn accept(&self) -> io::Result<Option<Connection>> {
        loop {
            let peek_first = self.last_number.load(Ordering::Relaxed) >= self.careful_from;
            match take(self.read.as_fd(), peek_first)? {
                None => return Ok(None),
                Some(Taken::Probe) => {}
                Some(Taken::End) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(Taken::Connection(connection)) => {
                    self.note(&connection);
                    return Ok(Some(connection));
                }
            }
        }
    }

    /// Notes the number of a descriptor: the higher, the nearer is the limit.
    pub(crate) fn note(&self, connection: &Connection) {
        let number = sys::fd::number(connection.socket.as_fd());
        // Never negative for an open descriptor.
        let number = u64::try_from(number).unwrap_or(0);
        self.last_number.store(number, Ordering::Relaxed);
    }
}

impl Drop for QueueReader {
    /// Nothing more gets in, although the primary holds the queue open and may not hear what we
    /// tell it; what is there it reads back.
    fn drop(&mut self) {
        // Fails only where the primary is gone.
        let _ = sys::socket::shutdown_read(self.read.as_fd());
    }
}

impl AsFd for QueueReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

enum Taken {
    Connection(Connection),
    Probe,
    End,
}

/// Reads one record without waiting. Packets that are no records are dropped, with whatever
/// they carried: only the primary writes here, so there are none unless it is broken.
fn take(read: BorrowedFd<'_>, peek_first: bool) -> io::Result<Option<Taken>> {
    let mut bytes = [0; RECORD_BYTES];
    loop {
        if peek_first {
            let flags = RecvFlags { dont_wait: true, peek: true };
            match scm::recv(read, &mut bytes, 1, flags) {
                Ok(seen) if seen.truncated => {
                    return Err(io::Error::from_raw_os_error(sys::errno::EMFILE));
                }
                Ok(_) => {}
                Err(error) => return none_if_would_block(error),
            }
        }
        let flags = RecvFlags { dont_wait: true, peek: false };
        let mut received = match scm::recv(read, &mut bytes, 1, flags) {
            Ok(received) => received,
            Err(error) => return none_if_would_block(error),
        };
        if received.bytes == 0 {
            return Ok(Some(Taken::End));
        }
        match Record::decode(&bytes[..received.bytes]) {
            Some(Record::Probe) => return Ok(Some(Taken::Probe)),
            Some(Record::Connection(peer)) => {
                if let Some(socket) = received.fds.pop() {
                    return Ok(Some(Taken::Connection(Connection { socket, peer })));
                }
            }
            None => {}
        }
    }
}

fn none_if_would_block(error: io::Error) -> io::Result<Option<Taken>> {
    if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: Option<&str>) -> Connection {
        let (socket, _) = sys::socket::pair_stream().unwrap();
        Connection { socket, peer: peer.map(|peer| peer.parse().unwrap()) }
    }

    #[test]
    fn an_end_that_is_closed_takes_nothing_more_and_leaves_what_it_had() {
        let (queue, end) = HandOffQueue::new().unwrap();
        let reader = QueueReader::new(end);
        for peer in ["192.0.2.7:1", "192.0.2.7:2"] {
            queue.send(&from(Some(peer))).unwrap();
        }
        assert_eq!(reader.accept().unwrap().unwrap().peer, from(Some("192.0.2.7:1")).peer);
        drop(reader);
        let refused = queue.send(&from(None)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(sys::errno::EPIPE));
        assert!(queue.send_probe().is_err());
        assert_eq!(queue.depth().unwrap(), 1);
        let (left, probes) = queue.reclaim();
        assert_eq!((left.len(), left[0].peer, probes), (1, from(Some("192.0.2.7:2")).peer, 0));
    }
}

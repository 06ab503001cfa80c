//! The hand-off queue: a `SOCK_SEQPACKET` pair that carries connections to one worker.
//!
//! The primary writes to a [`HandOffQueue`] and keeps a copy of the reading end. The queue
//! therefore outlives the worker, and the primary reclaims the connections that the worker did not
//! accept, for another worker. Each record is read once; if both sides read at the same time, the
//! kernel decides which of them gets it.
//!
//! While the primary's copy is open, the writing end never sees a hang-up. The end of a worker is
//! observed on its pidfd or channel, never here. A live worker that closes its listener shuts its
//! queue down, and the queue takes no more records from then on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use sys::scm::{self, RecvFlags};

use crate::protocol::record::{RECORD_BYTES, Record};

/// The number of spare descriptors below which a worker peeks at a record before it reads it.
const DESCRIPTORS_SPARE: u64 = 64;

/// An accepted connection on its way to a worker.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Option<SocketAddr>,
}

/// The primary's ends of the queue of one worker.
#[derive(Debug)]
pub(crate) struct HandOffQueue {
    write: OwnedFd,
    read_copy: OwnedFd,
}

impl HandOffQueue {
    /// Creates a queue. The second value is the reading end of the worker.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` when no descriptor is left.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let (write, read) = sys::socket::pair_seqpacket()?;
        let read_copy = read.try_clone()?;
        Ok((Self { write, read_copy }, read))
    }

    /// Sends a connection. Its descriptor may be closed afterwards.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when the queue is full, `ETOOMANYREFS` when too many descriptors are in flight,
    /// `EPIPE` when the worker has shut the queue down.
    pub(crate) fn send(&self, connection: &Connection) -> io::Result<()> {
        let record = Record::Connection(connection.peer).encode();
        let bytes = [io::IoSlice::new(&record)];
        scm::send(self.write.as_fd(), &bytes, &[connection.socket.as_fd()]).map(drop)
    }

    /// Sends a probe. Errors as for [`send`](Self::send).
    pub(crate) fn send_probe(&self) -> io::Result<()> {
        let record = Record::Probe.encode();
        scm::send(self.write.as_fd(), &[io::IoSlice::new(&record)], &[]).map(drop)
    }

    /// Returns the number of unread records.
    pub(crate) fn depth(&self) -> io::Result<usize> {
        Ok(sys::socket::unread_bytes(self.read_copy.as_fd())? / RECORD_BYTES)
    }

    /// Reads all unread records. Returns the connections, oldest first, and the number of probes.
    ///
    /// Stops early when this process has no descriptor left for the next connection, which stays
    /// in the queue.
    pub(crate) fn reclaim(&self) -> (Vec<Connection>, u32) {
        let mut connections = Vec::new();
        let mut probes = 0;
        while let Ok(Some(record)) = read_record(self.read_copy.as_fd(), true) {
            match record {
                ReadRecord::Connection(connection) => connections.push(connection),
                ReadRecord::Probe => probes += 1,
                ReadRecord::End => break,
            }
        }
        (connections, probes)
    }

    /// Ends the queue: the worker reads what is in it, and then its end.
    pub(crate) fn end(&self) -> io::Result<()> {
        sys::socket::shutdown_write(self.write.as_fd())
    }

    /// Returns the end to watch for room. The copy of the reading end must not be watched: it would
    /// wake the primary for each record.
    pub(crate) fn write_end(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }
}

/// The reading end of a worker's queue.
#[derive(Debug)]
pub(crate) struct QueueReader {
    read: OwnedFd,
    /// The descriptor number from which on the next record is peeked at before it is read.
    peek_from: u64,
    /// The descriptor number of the last connection.
    last_number: AtomicU64,
}

impl QueueReader {
    /// Creates the reader of this end.
    pub(crate) fn new(read: OwnedFd) -> Self {
        let limit = sys::rlimit::descriptors().map_or(0, |(soft, _)| soft);
        let peek_from = limit.saturating_sub(DESCRIPTORS_SPARE);
        Self { read, peek_from, last_number: AtomicU64::new(0) }
    }

    /// Reads the next connection; `None` when none waits.
    ///
    /// # Errors
    ///
    /// An error of the kind `UnexpectedEof` when the queue has ended. `EMFILE` when this process
    /// has no descriptor left. The record then stays in the queue, from where the primary reclaims
    /// it: `recvmsg(2)` would lose the connection.
    pub(crate) fn accept(&self) -> io::Result<Option<Connection>> {
        loop {
            let peek_first = self.last_number.load(Ordering::Relaxed) >= self.peek_from;
            match read_record(self.read.as_fd(), peek_first)? {
                None => return Ok(None),
                Some(ReadRecord::Probe) => {}
                Some(ReadRecord::End) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(ReadRecord::Connection(connection)) => {
                    self.note(&connection);
                    return Ok(Some(connection));
                }
            }
        }
    }

    /// Records the number of a descriptor: the kernel gives the lowest free number, so a high one
    /// means that the limit is near.
    pub(crate) fn note(&self, connection: &Connection) {
        let number = sys::fd::number(connection.socket.as_fd());
        // Never negative for an open descriptor.
        let number = u64::try_from(number).unwrap_or(0);
        self.last_number.store(number, Ordering::Relaxed);
    }
}

impl Drop for QueueReader {
    /// Shuts the queue down, so that it takes no more records: the primary holds it open, and may
    /// not receive the message that the listener is closed. The primary reclaims the unread records.
    fn drop(&mut self) {
        // Fails only if the primary is gone.
        let _ = sys::socket::shutdown_read(self.read.as_fd());
    }
}

impl AsFd for QueueReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

/// The result of one read.
enum ReadRecord {
    Connection(Connection),
    Probe,
    /// The queue has ended.
    End,
}

/// Reads one record without blocking. Packets that are no records are dropped with their
/// descriptors: only the primary writes here, so there are none unless it is broken.
fn read_record(read: BorrowedFd<'_>, peek_first: bool) -> io::Result<Option<ReadRecord>> {
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
            return Ok(Some(ReadRecord::End));
        }
        match Record::decode(&bytes[..received.bytes]) {
            Some(Record::Probe) => return Ok(Some(ReadRecord::Probe)),
            Some(Record::Connection(peer)) => {
                if let Some(socket) = received.fds.pop() {
                    return Ok(Some(ReadRecord::Connection(Connection { socket, peer })));
                }
            }
            None => {}
        }
    }
}

fn none_if_would_block(error: io::Error) -> io::Result<Option<ReadRecord>> {
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
    fn a_queue_that_its_reader_closed_takes_no_more_and_keeps_its_records() {
        let (queue, worker_end) = HandOffQueue::new().unwrap();
        let reader = QueueReader::new(worker_end);
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

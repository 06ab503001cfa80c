//! The hand-off queue: a `SOCK_SEQPACKET` pair that carries connections to one worker.
//!
//! The primary writes to a [`HandOffQueue`] and keeps a copy of the reading end. The queue
//! therefore outlives the worker, and the primary reclaims the connections that the worker did not
//! accept, for another worker. Each record is read once.
//!
//! A plain `recvmsg(2)` removes the record also where no descriptor is left, and the kernel then
//! closes the connection. Each record is therefore read in two steps: the first peeks at it, which
//! duplicates the descriptor and fails without harm; the second removes the record without its
//! descriptor. Files that other threads open meanwhile change nothing. No other reader may come
//! between the two steps, which is what the lock in the [`QueuePage`] is for.
//!
//! While the primary's copy is open, the writing end never sees a hang-up. The end of a worker is
//! observed on its pidfd or channel, never here. A live worker that closes its listener shuts its
//! queue down, and the queue takes no more records from then on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sys::poll::{self, Interest};
use sys::scm::{self, RecvFlags};

use crate::protocol::queue_page::{QueuePage, ReadLock};
use crate::protocol::record::{RECORD_BYTES, Record};

/// The number of times for which a worker tries to lock its queue before it sleeps. The primary
/// holds the lock while it reads the queue back.
const WORKER_TRIES: u32 = 100;
/// The time for which a worker sleeps between two further tries.
const WORKER_PAUSE: Duration = Duration::from_micros(100);

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
    page: Arc<QueuePage>,
}

/// The connections and the number of probes that a reclaim read back, oldest first.
pub(crate) type Reclaimed = (Vec<Connection>, u32);

impl HandOffQueue {
    /// Creates a queue. The second value is the reading end of the worker.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` when no descriptor is left.
    pub(crate) fn new(page: Arc<QueuePage>) -> io::Result<(Self, OwnedFd)> {
        let (write, read) = sys::socket::pair_seqpacket()?;
        let read_copy = read.try_clone()?;
        Ok((Self { write, read_copy, page }, read))
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

    /// Reads all unread records back.
    ///
    /// Stops early when this process has no descriptor left for the next connection, which stays
    /// in the queue. Reads nothing while a worker that has not ended is in the middle of a read.
    pub(crate) fn reclaim(&self, worker_ended: bool) -> Reclaimed {
        let (mut connections, mut probes) = (Vec::new(), 0);
        let Some(_lock) = self.page.try_lock_for_primary(worker_ended) else {
            return (connections, probes);
        };
        while let Ok(Some(record)) = read_record(self.read_copy.as_fd()) {
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
    page: Arc<QueuePage>,
    /// Locked by the thread of this process that reads.
    reading: Mutex<()>,
}

impl QueueReader {
    /// Creates the reader of this end.
    pub(crate) fn new(read: OwnedFd, page: Arc<QueuePage>) -> Self {
        Self { read, page, reading: Mutex::default() }
    }

    /// Reads the next connection; `None` when none waits.
    ///
    /// # Errors
    ///
    /// An error of the kind `UnexpectedEof` when the queue has ended. `EMFILE` when this process
    /// has no descriptor left. The record then stays in the queue, from where the primary reclaims
    /// it.
    pub(crate) fn accept(&self) -> io::Result<Option<Connection>> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = self.lock();
        loop {
            match read_record(self.read.as_fd()) {
                Ok(None) => return Ok(None),
                Ok(Some(ReadRecord::Probe)) => self.check_for_descriptor(),
                Ok(Some(ReadRecord::End)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Some(ReadRecord::Connection(connection))) => {
                    self.set_short_of_descriptors(false);
                    return Ok(Some(connection));
                }
                Err(error) => {
                    self.set_short_of_descriptors(true);
                    return Err(error);
                }
            }
        }
    }

    /// Reports to the primary whether a descriptor is missing for the next connection.
    pub(crate) fn set_short_of_descriptors(&self, is_short: bool) {
        self.page.set_short_of_descriptors(is_short);
    }

    /// Locks the queue for a read. `None` when the primary has closed its ends: no other process
    /// reads then, and a lock that the primary held is void.
    fn lock(&self) -> Option<ReadLock<'_>> {
        for tries in 0.. {
            let lock = self.page.try_lock_for_worker();
            if lock.is_some() {
                return lock;
            }
            if tries < WORKER_TRIES {
                std::hint::spin_loop();
                continue;
            }
            let hung_up =
                poll::wait(&[(self.read.as_fd(), Interest::HANGUP)], Some(Duration::ZERO));
            if hung_up.is_ok_and(|ready| ready[0].any()) {
                return None;
            }
            std::thread::sleep(WORKER_PAUSE);
        }
        None
    }

    /// Finds out whether a descriptor is free again, after one was missing: the probe asks whether
    /// this worker can take connections.
    fn check_for_descriptor(&self) {
        if self.page.is_short_of_descriptors() {
            self.page.set_short_of_descriptors(self.read.try_clone().is_err());
        }
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
///
/// The caller holds the lock of the queue, or is its only reader.
fn read_record(read: BorrowedFd<'_>) -> io::Result<Option<ReadRecord>> {
    let mut bytes = [0; RECORD_BYTES];
    loop {
        let peek = RecvFlags { dont_wait: true, peek: true };
        let mut seen = match scm::recv(read, &mut bytes, 1, peek) {
            Ok(seen) if seen.truncated => {
                return Err(io::Error::from_raw_os_error(sys::errno::EMFILE));
            }
            Ok(seen) => seen,
            Err(error) => return none_if_would_block(error),
        };
        if seen.bytes == 0 {
            return Ok(Some(ReadRecord::End));
        }
        // The kernel drops the descriptor of the record; the one that was peeked at stays open.
        let remove = RecvFlags { dont_wait: true, peek: false };
        scm::recv(read, &mut [0; RECORD_BYTES], 0, remove)?;
        match Record::decode(&bytes[..seen.bytes]) {
            Some(Record::Probe) => return Ok(Some(ReadRecord::Probe)),
            Some(Record::Connection(peer)) => {
                if let Some(socket) = seen.fds.pop() {
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

    fn queue() -> (HandOffQueue, QueueReader) {
        let (page, page_of_worker) = QueuePage::new(false).unwrap();
        let (queue, worker_end) = HandOffQueue::new(Arc::new(page)).unwrap();
        let page = QueuePage::map(page_of_worker.as_fd(), false).unwrap();
        (queue, QueueReader::new(worker_end, Arc::new(page)))
    }

    #[test]
    fn a_queue_that_its_reader_closed_takes_no_more_and_keeps_its_records() {
        let (queue, reader) = queue();
        for peer in ["192.0.2.7:1", "192.0.2.7:2"] {
            queue.send(&from(Some(peer))).unwrap();
        }
        assert_eq!(reader.accept().unwrap().unwrap().peer, from(Some("192.0.2.7:1")).peer);
        drop(reader);
        let refused = queue.send(&from(None)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(sys::errno::EPIPE));
        assert!(queue.send_probe().is_err());
        assert_eq!(queue.depth().unwrap(), 1);
        let (left, probes) = queue.reclaim(false);
        assert_eq!((left.len(), left[0].peer, probes), (1, from(Some("192.0.2.7:2")).peer, 0));
    }

    #[test]
    fn readers_in_both_processes_and_several_threads_get_each_connection_once_and_open() {
        const COUNT: usize = 2000;
        let (queue, reader) = queue();
        let got = Mutex::new(Vec::new());
        let take = |connection: Connection| {
            let Connection { socket, peer } = connection;
            // The descriptor is that of the record: its number was written into the other end.
            let mut bytes = [0; 2];
            let read = scm::recv(socket.as_fd(), &mut bytes, 0, RecvFlags::default()).unwrap();
            assert_eq!((read.bytes, u16::from_be_bytes(bytes)), (2, peer.unwrap().port()));
            got.lock().unwrap().push(peer.unwrap().port());
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        match reader.accept() {
                            Ok(Some(connection)) => take(connection),
                            Ok(None) => std::thread::yield_now(),
                            Err(error) => {
                                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                                break;
                            }
                        }
                    }
                });
            }
            for number in 0..COUNT {
                let (socket, other) = sys::socket::pair_stream().unwrap();
                let number = u16::try_from(number).unwrap();
                let bytes = number.to_be_bytes();
                scm::send(other.as_fd(), &[io::IoSlice::new(&bytes)], &[]).unwrap();
                let peer = Some(SocketAddr::from(([192, 0, 2, 7], number)));
                let connection = Connection { socket, peer };
                while queue.send(&connection).is_err() {
                    std::thread::yield_now();
                }
                if usize::from(number) % 7 == 0 {
                    queue.reclaim(false).0.into_iter().for_each(take);
                }
            }
            queue.end().unwrap();
        });
        let mut got = got.into_inner().unwrap();
        got.sort_unstable();
        assert_eq!(got, (0..u16::try_from(COUNT).unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn a_primary_without_descriptors_reclaims_nothing_and_loses_nothing() {
        // The limit of descriptors holds for the whole process.
        let name = "protocol::hand_off_queue::tests::reclaim_without_descriptors";
        let mut own = std::process::Command::new(std::env::current_exe().unwrap());
        own.args(["--exact", name, "--ignored", "--test-threads=1"]);
        let output = own.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    }

    #[test]
    #[ignore = "runs in a process of its own"]
    fn reclaim_without_descriptors() {
        let (queue, _reader) = queue();
        let peers = ["192.0.2.7:1", "192.0.2.7:2", "192.0.2.7:3"];
        peers.iter().for_each(|peer| queue.send(&from(Some(peer))).unwrap());
        let (soft, _) = sys::rlimit::descriptors().unwrap();
        // No number below this one is free, and the second connection finds none either.
        for free in [0, 1] {
            let lowest = sys::fd::number(queue.write_end().try_clone_to_owned().unwrap().as_fd());
            sys::rlimit::set_descriptors(lowest as u64 + free).unwrap();
            let (reclaimed, probes) = queue.reclaim(true);
            sys::rlimit::set_descriptors(soft).unwrap();
            assert_eq!((reclaimed.len() as u64, probes), (free, 0));
        }
        assert_eq!(queue.depth().unwrap(), 2);
        let left: Vec<_> = queue.reclaim(true).0.into_iter().map(|it| it.peer).collect();
        assert_eq!(left, [peers[1], peers[2]].map(|peer| from(Some(peer)).peer));
    }

    #[test]
    fn a_reader_goes_on_when_the_primary_ended_in_the_middle_of_a_reclaim() {
        let (queue, reader) = queue();
        queue.send(&from(Some("192.0.2.7:1"))).unwrap();
        std::mem::forget(queue.page.try_lock_for_primary(false).unwrap());
        drop(queue);
        assert_eq!(reader.accept().unwrap().unwrap().peer, from(Some("192.0.2.7:1")).peer);
        assert_eq!(reader.accept().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_worker_that_ended_in_the_middle_of_a_read_keeps_no_record() {
        let (queue, reader) = queue();
        queue.send(&from(Some("192.0.2.7:1"))).unwrap();
        std::mem::forget(reader.page.try_lock_for_worker().unwrap());
        assert_eq!(queue.reclaim(false).0.len(), 0);
        assert_eq!(queue.depth().unwrap(), 1);
        assert_eq!(queue.reclaim(true).0.len(), 1);
    }
}

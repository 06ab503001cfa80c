//! Memory that a thread uses again and again for one frame, one read or one queue, so that no end
//! has to keep its own.

use crate::transport::inbox::Inbox;
use crate::transport::outbox::Outbox;
use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::thread::LocalKey;

/// Longer vectors are not kept.
const KEPT_BYTES_MAX: usize = 128 * 1024;

/// The longest beginning of a message that is copied out of a reading buffer, in bytes.
const REST_BYTES_MAX: usize = 4 * 1024;

thread_local! {
    static FRAME: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static QUEUE: Cell<Option<Outbox<OwnedFd>>> = const { Cell::new(None) };
}

/// Memory for encoding one frame. A second taker, inside the first, gets fresh memory.
#[inline]
pub(crate) fn take_frame() -> Vec<u8> {
    FRAME.try_with(Cell::take).unwrap_or_default()
}

/// Gives it back. Of two that are given back, the longer one is kept.
#[inline]
pub(crate) fn keep_frame(memory: Vec<u8>) {
    keep(&FRAME, memory);
}

/// Memory for one read.
pub(crate) fn take_read() -> Vec<u8> {
    READ.try_with(Cell::take).unwrap_or_default()
}

/// Gives it back.
pub(crate) fn keep_read(memory: Vec<u8>) {
    keep(&READ, memory);
}

#[inline]
fn keep(place: &'static LocalKey<Cell<Vec<u8>>>, memory: Vec<u8>) {
    if memory.capacity() <= KEPT_BYTES_MAX {
        let _ = place.try_with(|cell| {
            let kept = cell.take();
            cell.set(if kept.capacity() > memory.capacity() { kept } else { memory });
        });
    }
}

/// Lends memory for the next read, unless there is some.
#[inline]
pub(crate) fn lend_buffer(inbox: &mut Inbox<OwnedFd>) {
    if inbox.decoder().wants_buffer() {
        drop(inbox.decoder().swap_buffer(take_read()));
    }
}

/// Gives it back: nothing that was read waits to be taken. The beginning of a message stays: a
/// short one in memory of its size, a longer one where it is, so that a peer that sends byte after
/// byte does not have all the others copied for each.
#[inline]
pub(crate) fn keep_buffer(inbox: &mut Inbox<OwnedFd>) {
    let decoder = inbox.decoder();
    if decoder.rest_bytes() <= REST_BYTES_MAX && !decoder.wants_buffer() {
        take_back_buffer(inbox);
    }
}

/// Gives it back whatever is in it: nothing more is read.
pub(crate) fn take_back_buffer(inbox: &mut Inbox<OwnedFd>) {
    keep_read(inbox.decoder().swap_buffer(Vec::new()));
}

/// Lends an empty queue the memory that was kept, unless it has some.
#[inline]
pub(crate) fn lend_queue(queue: &mut Outbox<OwnedFd>) {
    if queue.is_bare() {
        if let Some(kept) = QUEUE.try_with(Cell::take).ok().flatten() {
            *queue = kept;
        }
    }
}

/// Keeps the memory of a queue at rest, which is much after a long message, or many.
#[inline]
pub(crate) fn keep_queue(queue: &mut Outbox<OwnedFd>) {
    if queue.is_empty() && queue.rests_on_much() {
        let rested = std::mem::replace(queue, Outbox::new());
        if rested.memory_bytes() <= 2 * KEPT_BYTES_MAX {
            let _ = QUEUE.try_with(|cell| cell.set(Some(rested)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Header, Kind, Limits, READ_BYTES};
    use crate::hello::Hello;
    use crate::serialization::Serialization;
    use crate::transport::outbox::Encoded;

    /// A queue that has written so many messages, all at once.
    fn rested(messages: usize) -> Outbox<OwnedFd> {
        let mut queue = Outbox::new();
        let mut encoded = Encoded::begin(Vec::new());
        encoded.inline.push(7);
        encoded.finish(Kind::Message, 0);
        (0..messages).for_each(|_| queue.push(&mut encoded, Vec::new()));
        queue.written(queue.bytes());
        queue
    }

    #[test]
    fn a_queue_leaves_its_memory_to_the_thread_and_gets_it_back() {
        let mut queue = rested(300);
        let memory = queue.memory_bytes();
        keep_queue(&mut queue);
        assert!(queue.is_bare());
        lend_queue(&mut queue);
        assert_eq!(queue.memory_bytes(), memory);
        let mut second = Outbox::new();
        lend_queue(&mut second);
        assert!(second.is_bare(), "it is lent once");
        let mut short = rested(1);
        keep_queue(&mut short);
        assert!(!short.is_bare(), "so little is not worth it");
        lend_queue(&mut short);
    }

    #[test]
    #[cfg_attr(miri, ignore = "tens of thousands of messages")]
    fn a_queue_with_much_memory_gives_it_back_to_the_system() {
        // Short messages make a long list of lengths.
        let mut queue = rested(2 * KEPT_BYTES_MAX / size_of::<usize>() + 1);
        keep_queue(&mut queue);
        assert!(queue.is_bare());
        lend_queue(&mut queue);
        assert!(queue.is_bare());
    }

    #[test]
    fn only_a_short_beginning_of_a_message_is_copied_out_of_the_buffer() {
        let limits = Limits { frame_bytes_max: READ_BYTES, handles_max: 0 };
        let header = Header { kind: Kind::Message, handles: 0, length: READ_BYTES / 2 };
        for (length, moves) in [(1, true), (REST_BYTES_MAX, true), (REST_BYTES_MAX + 1, false)] {
            let ours = Hello::new(Serialization::Bincode, "");
            let mut inbox = Inbox::<OwnedFd>::new(limits, ours, true);
            keep_read(Vec::with_capacity(READ_BYTES));
            lend_buffer(&mut inbox);
            let memory = inbox.decoder().space().0.as_ptr();
            let mut frame = header.to_bytes().to_vec();
            frame.resize(length, 7);
            inbox.decoder().space().0.extend_from_slice(&frame);
            assert!(inbox.next_message().unwrap().is_none());
            keep_buffer(&mut inbox);
            assert_eq!(inbox.decoder().wants_buffer(), moves);
            let kept = take_read();
            assert_eq!(kept.as_ptr() == memory, moves);
            let buffer = inbox.decoder().space().0;
            assert_eq!((buffer.as_ptr() == memory, &*buffer), (!moves, &frame));
            // A second look moves nothing.
            let memory = buffer.as_ptr();
            keep_buffer(&mut inbox);
            assert_eq!(inbox.decoder().space().0.as_ptr(), memory);
            take_back_buffer(&mut inbox);
            assert!(inbox.decoder().wants_buffer());
            assert_eq!(*inbox.decoder().space().0, frame);
        }
    }

    #[test]
    fn of_two_buffers_the_longer_one_is_kept_up_to_a_bound() {
        keep_frame(Vec::with_capacity(KEPT_BYTES_MAX + 1));
        assert_eq!(take_frame().capacity(), 0);
        keep_read(Vec::with_capacity(100));
        keep_read(Vec::with_capacity(10));
        assert!(take_read().capacity() >= 100);
    }
}

//! The pool of queue memory, one for each thread, so that an idle endpoint keeps almost none.

use super::{Encoded, Outbox};
use crate::buffer_pool::THREAD_BYTES_MAX;
use std::cell::Cell;
use std::os::fd::OwnedFd;

thread_local! {
    static QUEUE: Cell<Option<Outbox<OwnedFd>>> = const { Cell::new(None) };
}

impl Outbox<OwnedFd> {
    /// Queues one finished frame, in memory of the thread when the queue has none.
    #[inline]
    pub(crate) fn enqueue(&mut self, encoded: &mut Encoded, handles: Vec<OwnedFd>) {
        self.take_memory();
        self.push(encoded, handles);
    }

    #[inline]
    fn take_memory(&mut self) {
        if self.has_no_memory() {
            if let Some(kept) = QUEUE.try_with(Cell::take).ok().flatten() {
                *self = kept;
            }
        }
    }

    /// Recycles the memory of an idle queue, which is much after a long message or many messages.
    #[inline]
    pub(crate) fn recycle_memory(&mut self) {
        if self.is_empty() && self.holds_much_memory() {
            let rested = std::mem::replace(self, Outbox::new());
            if rested.memory_bytes() <= 2 * THREAD_BYTES_MAX {
                let _ = QUEUE.try_with(|cell| cell.set(Some(rested)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;

    /// Returns a queue that has written `messages` messages, all at once.
    fn rested(messages: usize) -> Outbox<OwnedFd> {
        let mut queue = Outbox::new();
        let mut encoded = Encoded::begin(Kind::Message);
        encoded.inline.push(7);
        encoded.finish(0, 0);
        (0..messages).for_each(|_| queue.push(&mut encoded, Vec::new()));
        queue.written(queue.bytes());
        queue
    }

    #[test]
    fn a_queue_recycles_its_memory_and_takes_it_again() {
        let mut queue = rested(300);
        let memory = queue.memory_bytes();
        queue.recycle_memory();
        assert!(queue.has_no_memory());
        queue.take_memory();
        assert_eq!(queue.memory_bytes(), memory);
        let mut second = Outbox::new();
        second.take_memory();
        assert!(second.has_no_memory(), "it is taken once");
        let mut short = rested(1);
        short.recycle_memory();
        assert!(!short.has_no_memory(), "little memory is not worth recycling");
        short.take_memory();
    }

    #[test]
    #[cfg_attr(miri, ignore = "tens of thousands of messages")]
    fn a_queue_with_much_memory_gives_it_back_to_the_system() {
        // Short messages make a long list of lengths.
        let mut queue = rested(2 * THREAD_BYTES_MAX / size_of::<usize>() + 1);
        queue.recycle_memory();
        assert!(queue.has_no_memory());
        queue.take_memory();
        assert!(queue.has_no_memory());
    }
}

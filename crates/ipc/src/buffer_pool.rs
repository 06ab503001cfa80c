//! Buffer pools: buffers of each thread for short messages, buffers of the process for long ones.
//!
//! An idle endpoint therefore keeps almost no memory. A fresh buffer of 16 MiB costs four thousand
//! page faults, more than copying its bytes; the few long buffers that the process keeps make a
//! stream of long messages run at the speed of the socket.
//!
//! Limits: [`THREAD_BYTES_MAX`] for each buffer of a thread, [`LONG_BUFFERS_MAX`] buffers and
//! [`LONG_BYTES_MAX`] bytes in the process.

use bytes::Bytes;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::LocalKey;

/// The longest buffer that a thread keeps, in bytes.
pub(crate) const THREAD_BYTES_MAX: usize = 128 * 1024;

/// The number of long buffers that the process keeps at most.
const LONG_BUFFERS_MAX: usize = 4;

/// The number of bytes that the long buffers of the process may have together.
const LONG_BYTES_MAX: usize = 40 * 1024 * 1024;

thread_local! {
    static FRAME: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

static LONG: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// The buffer in which one frame is encoded.
///
/// The drop recycles the memory for the next frame of the dropping thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameBuffer(Vec<u8>);

impl FrameBuffer {
    /// Takes the thread's buffer, empty. An encoder inside another encoder gets fresh memory.
    #[inline]
    pub(crate) fn take() -> FrameBuffer {
        // A thread that exits has no buffers any more, and `with` would panic.
        let mut buffer = FRAME.try_with(Cell::take).unwrap_or_default();
        buffer.clear();
        FrameBuffer(buffer)
    }

    /// Takes the memory out, so that it is not recycled.
    pub(crate) fn take_memory(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

impl Deref for FrameBuffer {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for FrameBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for FrameBuffer {
    #[inline]
    fn drop(&mut self) {
        recycle(&FRAME, self.take_memory());
    }
}

/// Takes the thread's buffer for one read.
pub(crate) fn take_read() -> Vec<u8> {
    READ.try_with(Cell::take).unwrap_or_default()
}

/// Recycles a buffer for the next read of this thread.
pub(crate) fn recycle_read(memory: Vec<u8>) {
    recycle(&READ, memory);
}

/// Keeps the longer one of two buffers.
#[inline]
fn recycle(place: &'static LocalKey<Cell<Vec<u8>>>, memory: Vec<u8>) {
    if memory.capacity() <= THREAD_BYTES_MAX {
        let _ = place.try_with(|cell| {
            let kept = cell.take();
            cell.set(if kept.capacity() > memory.capacity() { kept } else { memory });
        });
    }
}

fn long_buffers() -> MutexGuard<'static, Vec<Vec<u8>>> {
    LONG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes an empty buffer: the smallest long buffer of the process with room for `length` bytes, or
/// one without memory.
pub(crate) fn take_long(length: usize) -> Vec<u8> {
    let mut kept = long_buffers();
    // A longer buffer stays for a longer message.
    let best = kept
        .iter()
        .enumerate()
        .filter(|(_, buffer)| buffer.capacity() >= length)
        .min_by_key(|(_, buffer)| buffer.capacity())
        .map(|(at, _)| at);
    best.map(|at| kept.swap_remove(at)).unwrap_or_default()
}

/// Shares `buffer`. The drop of the last owner recycles the buffer for the process.
pub(crate) fn share_long(buffer: Vec<u8>) -> Bytes {
    Bytes::from_owner(LongBuffer(buffer))
}

struct LongBuffer(Vec<u8>);

impl AsRef<[u8]> for LongBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for LongBuffer {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        buffer.clear();
        let mut kept = long_buffers();
        let bytes: usize = kept.iter().map(Vec::capacity).sum();
        if kept.len() < LONG_BUFFERS_MAX && bytes + buffer.capacity() <= LONG_BYTES_MAX {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_one_of_two_buffers_is_kept_up_to_a_limit() {
        drop(FrameBuffer(Vec::with_capacity(THREAD_BYTES_MAX + 1)));
        assert_eq!(FrameBuffer::take().capacity(), 0);
        recycle_read(Vec::with_capacity(100));
        recycle_read(Vec::with_capacity(10));
        assert!(take_read().capacity() >= 100);
    }

    #[test]
    fn a_dropped_frame_buffer_is_taken_again_and_is_empty() {
        drop(FrameBuffer(vec![7; 1000]));
        let first = FrameBuffer::take();
        assert_eq!((first.len(), first.capacity() >= 1000), (0, true));
        assert_eq!(FrameBuffer::take().capacity(), 0, "it is taken once");
    }

    #[test]
    fn a_shared_buffer_is_recycled_and_the_pool_has_a_limit() {
        for length in [1, 9 << 20, 21 << 20] {
            let shared = (0..8).map(|_| share_long(Vec::with_capacity(length)));
            drop(shared.collect::<Vec<Bytes>>());
            let kept = long_buffers();
            let bytes: usize = kept.iter().map(Vec::capacity).sum();
            assert!(bytes <= LONG_BYTES_MAX && kept.len() <= LONG_BUFFERS_MAX, "{length}");
        }
        assert_eq!(take_long(usize::MAX).capacity(), 0);
    }
}

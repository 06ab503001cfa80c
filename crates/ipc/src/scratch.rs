//! Memory that a thread uses again and again for one frame or one read.

use std::cell::Cell;

/// Longer vectors are not kept.
const KEPT_BYTES_MAX: usize = 128 * 1024;

thread_local! {
    static FRAME: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Memory for encoding one frame. A second taker, inside the first, gets fresh memory.
#[inline]
pub(crate) fn take_frame() -> Vec<u8> {
    FRAME.try_with(Cell::take).unwrap_or_default()
}

/// Gives it back. Of two that are given back, the longer one is kept.
#[inline]
pub(crate) fn keep_frame(memory: Vec<u8>) {
    if memory.capacity() <= KEPT_BYTES_MAX {
        let _ = FRAME.try_with(|cell| {
            let kept = cell.take();
            cell.set(if kept.capacity() > memory.capacity() { kept } else { memory });
        });
    }
}

/// Memory for one read on the loop.
pub(crate) fn take_read() -> Vec<u8> {
    READ.try_with(Cell::take).unwrap_or_default()
}

/// Gives it back.
pub(crate) fn keep_read(memory: Vec<u8>) {
    if memory.capacity() <= KEPT_BYTES_MAX {
        let _ = READ.try_with(|cell| cell.set(memory));
    }
}

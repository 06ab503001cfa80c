//! A descriptor that has arrived and belongs to no whole message yet.
//!
//! The descriptors that wait for the rest of their frame are counted for the whole process, so that
//! peers that begin frames and never finish them take at most a share of its descriptors. Beyond
//! the share, a frame keeps [`FRAME_HANDLES_FREE`] handles, and one with more arrives without any.

use crate::frame::WaitingHandle;
use crate::receive_budget::process_handles_max;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of handles of one unfinished frame that may wait whatever other channels hold.
pub(crate) const FRAME_HANDLES_FREE: usize = 4;

/// The number of handles in the whole process that wait for the rest of their frame.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// A descriptor that has arrived.
#[derive(Debug)]
pub(crate) struct ArrivedHandle {
    fd: OwnedFd,
    waits: Option<CountedWait>,
}

/// The place of one handle in [`WAITING`], until it is dropped.
#[derive(Debug)]
struct CountedWait;

impl CountedWait {
    fn new() -> CountedWait {
        WAITING.fetch_add(1, Ordering::Relaxed);
        CountedWait
    }
}

impl Drop for CountedWait {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl From<OwnedFd> for ArrivedHandle {
    fn from(fd: OwnedFd) -> ArrivedHandle {
        ArrivedHandle { fd, waits: None }
    }
}

impl From<ArrivedHandle> for OwnedFd {
    fn from(handle: ArrivedHandle) -> OwnedFd {
        handle.fd
    }
}

impl WaitingHandle for ArrivedHandle {
    fn wait(&mut self) {
        self.waits.get_or_insert_with(CountedWait::new);
    }

    fn may_wait(count: usize) -> bool {
        let waiting = WAITING.load(Ordering::Relaxed);
        count <= FRAME_HANDLES_FREE || waiting <= process_handles_max(waiting)
    }
}

//! An allocator that ends the process when one run takes more memory than the library promises.
//!
//! A run may hold [`BASE_BYTES`], for buffers and for values whose number does not depend on the
//! input, and [`BYTES_PER_BYTE`] for each byte of its input. The sum counts all threads, because the
//! loop decodes, too. Memory that was held before the run does not count.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory that a run may hold whatever its input is.
const BASE_BYTES: usize = 8 << 20;

/// The memory that a run may hold for each byte of its input: an object of a JavaScript value for
/// every one or two bytes, in a list that doubles.
const BYTES_PER_BYTE: usize = 512;

struct Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The system may hold both places while it copies.
        add(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn add(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
    let limit = LIMIT.load(Ordering::Relaxed);
    if live > limit {
        LIMIT.store(usize::MAX, Ordering::Relaxed);
        eprintln!("{bytes} bytes more make {live}, over the bound of {limit}");
        std::process::abort();
    }
}

/// Calls `run` within the bound for an input of `length` bytes, and returns the most memory that it
/// held.
pub fn within_bound(length: usize, run: impl FnOnce()) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    LIMIT.store(before + BASE_BYTES + BYTES_PER_BYTE * length, Ordering::Relaxed);
    run();
    LIMIT.store(usize::MAX, Ordering::Relaxed);
    PEAK.load(Ordering::Relaxed).saturating_sub(before)
}

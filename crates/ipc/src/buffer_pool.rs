//! Long buffers that are used again.
//!
//! A fresh buffer of 16 MiB costs four thousand page faults, more than moving its bytes. The few
//! that are kept here make a stream of long messages run at the speed of the socket.
//!
//! Pure. Limits: [`KEPT_MAX`] buffers, [`KEPT_BYTES_MAX`] bytes in the whole process.

use bytes::Bytes;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many buffers are kept at most.
const KEPT_MAX: usize = 4;

/// How many bytes are kept at most.
const KEPT_BYTES_MAX: usize = 40 * 1024 * 1024;

static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

fn kept() -> MutexGuard<'static, Vec<Vec<u8>>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An empty buffer: the smallest kept one with room for `length` bytes, or one without memory.
pub(crate) fn take(length: usize) -> Vec<u8> {
    let mut kept = kept();
    let best = kept
        .iter()
        .enumerate()
        .filter(|(_, buffer)| buffer.capacity() >= length)
        .min_by_key(|(_, buffer)| buffer.capacity())
        .map(|(at, _)| at);
    best.map(|at| kept.swap_remove(at)).unwrap_or_default()
}

/// Shares `buffer`; the last owner gives it back to be used again.
pub(crate) fn share(buffer: Vec<u8>) -> Bytes {
    Bytes::from_owner(Lent(buffer))
}

struct Lent(Vec<u8>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        buffer.clear();
        let mut kept = kept();
        let bytes: usize = kept.iter().map(Vec::capacity).sum();
        if kept.len() < KEPT_MAX && bytes + buffer.capacity() <= KEPT_BYTES_MAX {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_buffer_comes_back_and_what_is_kept_has_a_bound() {
        let shared: Vec<Bytes> = (0..8).map(|_| share(Vec::with_capacity(9 << 20))).collect();
        drop(shared);
        let bytes: usize = kept().iter().map(Vec::capacity).sum();
        assert!(bytes <= KEPT_BYTES_MAX && kept().len() <= KEPT_MAX);
        assert_eq!(take(usize::MAX).capacity(), 0);
    }
}

//! Credit: the bytes and handles of messages that arrived and are still unread.
//!
//! Every message of a loop-driven channel holds its share until it is decoded or dropped. Above the
//! limit, the channel is not read, so that the peer's socket fills up; at half of the limit,
//! reading goes on. Handles are also counted for the whole process, so that the descriptors of one
//! peer never starve the other channels.

use crate::codec::advanced::Features;
use crate::options::Options;
use crate::serialization::Serialization;
use reactor::Handle as Wake;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// The cost of an unread message beside its payload: the value itself and its entry in the queue,
/// in bytes.
const MESSAGE_BYTES: usize = 128;

/// The number of received and unread handles in the whole process.
static HANDLES: AtomicUsize = AtomicUsize::new(0);

/// The channels that are not read because of [`HANDLES`].
static PAUSED: Mutex<Vec<Weak<CreditAccount>>> = Mutex::new(Vec::new());

/// The account of one channel, and everything that its messages need to be decoded.
///
/// The messages share the account, so that an unread message is small.
#[derive(Debug)]
pub(crate) struct CreditAccount {
    pub(crate) serialization: Serialization,
    pub(crate) mapped_bytes_max: usize,
    /// Whether the peer is Node.
    pub(crate) is_node: bool,
    features: Features,
    bytes: AtomicUsize,
    handles: AtomicUsize,
    bytes_max: usize,
    handles_max: usize,
    paused: AtomicBool,
    wake: OnceLock<Wake>,
}

impl CreditAccount {
    pub(crate) fn new(options: &Options, is_node: bool) -> Arc<CreditAccount> {
        Arc::new(CreditAccount {
            serialization: options.serialization,
            mapped_bytes_max: options.mapped_bytes_max,
            is_node,
            features: Features::default(),
            bytes: AtomicUsize::new(0),
            handles: AtomicUsize::new(0),
            bytes_max: options.unread_bytes_max,
            handles_max: options.unread_handles_max,
            paused: AtomicBool::new(false),
            wake: OnceLock::new(),
        })
    }

    /// Returns the features of V8 that the peer is known to read.
    pub(crate) fn features(&self) -> &Features {
        &self.features
    }

    /// Sets the source that is woken when reading may go on.
    pub(crate) fn set_wake(&self, wake: Wake) {
        let _ = self.wake.set(wake);
    }

    /// Takes credit for one message, until the returned value is dropped.
    pub(crate) fn take(self: &Arc<CreditAccount>, bytes: usize, handles: usize) -> Credit {
        let bytes = u32::try_from(bytes + MESSAGE_BYTES).unwrap_or(u32::MAX);
        let handles = u32::try_from(handles).unwrap_or(u32::MAX);
        self.bytes.fetch_add(bytes as usize, Ordering::Relaxed);
        if handles > 0 {
            self.handles.fetch_add(handles as usize, Ordering::Relaxed);
            HANDLES.fetch_add(handles as usize, Ordering::Relaxed);
        }
        Credit { account: Arc::clone(self), bytes, handles }
    }

    /// Returns whether the channel may be read. Otherwise, its loop is woken as soon as it may.
    pub(crate) fn may_read(self: &Arc<CreditAccount>) -> bool {
        if self.has_room(1) {
            return true;
        }
        self.paused.store(true, Ordering::SeqCst);
        // This channel may have no unread message then, so the drop of another channel's message
        // must resume it.
        if !has_process_room() {
            let mut paused = PAUSED.lock().unwrap_or_else(PoisonError::into_inner);
            paused.retain(|account| account.strong_count() > 0);
            paused.push(Arc::downgrade(self));
        }
        // Credit that came back between the two checks has either seen `paused` or is seen here.
        self.has_room(1) && self.paused.swap(false, Ordering::SeqCst)
    }

    /// Returns whether the channel is not read because too much is unread.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    fn has_room(&self, part: usize) -> bool {
        self.bytes.load(Ordering::SeqCst) <= self.bytes_max / part
            && self.handles.load(Ordering::SeqCst) < (self.handles_max / part).max(1)
            && has_process_room()
    }

    fn resume(&self) {
        // Half of the limit must be free: resuming at the limit would pause again with each
        // message.
        if self.has_room(2) && self.paused.swap(false, Ordering::SeqCst) {
            if let Some(wake) = self.wake.get() {
                wake.wake();
            }
        }
    }
}

/// The most handles that unread messages of a process hold, whatever its limit of descriptors.
const PROCESS_HANDLES_MAX: u64 = 4096;

/// Returns whether unread messages hold less than a quarter of the descriptors that this process
/// may have, and less than [`PROCESS_HANDLES_MAX`].
fn has_process_room() -> bool {
    let limit = || sys::rlimit::descriptors().ok().map(|(soft, _)| soft);
    is_below_share(HANDLES.load(Ordering::SeqCst), limit)
}

/// Returns whether so many handles are less than the share of a process with this limit of
/// descriptors.
fn is_below_share(held: usize, limit: impl FnOnce() -> Option<u64>) -> bool {
    // The limit is read only where it could matter.
    held < 64 || (held as u64) < (limit().unwrap_or(1024) / 4).min(PROCESS_HANDLES_MAX)
}

/// The share of one message. The drop gives it back.
#[derive(Debug)]
pub(crate) struct Credit {
    account: Arc<CreditAccount>,
    bytes: u32,
    handles: u32,
}

impl Credit {
    pub(crate) fn account(&self) -> &CreditAccount {
        &self.account
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.account.bytes.fetch_sub(self.bytes as usize, Ordering::SeqCst);
        if self.handles > 0 {
            self.account.handles.fetch_sub(self.handles as usize, Ordering::SeqCst);
            HANDLES.fetch_sub(self.handles as usize, Ordering::SeqCst);
            let mut paused = PAUSED.lock().unwrap_or_else(PoisonError::into_inner);
            if !paused.is_empty() && has_process_room() {
                let waiting: Vec<_> = paused.drain(..).collect();
                drop(paused);
                waiting.iter().filter_map(Weak::upgrade).for_each(|account| account.resume());
            }
        }
        if self.account.paused.load(Ordering::SeqCst) {
            self.account.resume();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(bytes_max: usize, handles_max: usize) -> Arc<CreditAccount> {
        let options = Options::new().unread_bytes_max(bytes_max).unread_handles_max(handles_max);
        CreditAccount::new(&options, false)
    }

    #[test]
    fn reading_stops_above_the_bytes_of_the_limit_and_goes_on_at_half_of_it() {
        let account = account(1000, 9);
        let first = account.take(500 - MESSAGE_BYTES, 0);
        let second = account.take(500 - MESSAGE_BYTES, 0);
        assert!(account.may_read() && !account.is_paused(), "the limit itself is allowed");
        let third = account.take(0, 0);
        assert!(!account.may_read() && account.is_paused());
        drop(third);
        assert!(account.is_paused(), "more than half is unread");
        drop(second);
        assert!(!account.is_paused() && account.may_read());
        drop(first);
    }

    #[test]
    fn the_features_of_a_peer_are_kept() {
        let account = account(1000, 9);
        assert!(std::ptr::eq(account.features(), account.features()));
    }

    #[test]
    fn reading_stops_at_the_handles_of_the_limit() {
        for (max, pauses, resumes) in [(4, 4, 1), (1, 1, 0)] {
            let account = account(usize::MAX, max);
            let mut unread: Vec<_> = (0..pauses - 1).map(|_| account.take(0, 1)).collect();
            assert!(account.may_read(), "{max}");
            unread.push(account.take(0, 1));
            assert!(!account.may_read(), "{max}");
            while unread.len() > resumes {
                assert!(account.is_paused(), "{max}: {}", unread.len());
                unread.pop();
            }
            assert!(!account.is_paused(), "{max}");
        }
    }

    #[test]
    fn channels_without_an_unread_message_wait_for_the_handles_of_another() {
        let many = usize::try_from(PROCESS_HANDLES_MAX).unwrap();
        let holder = account(usize::MAX, usize::MAX);
        let waiting = [account(1000, 9), account(1000, 9)];
        let unread = holder.take(0, many);
        for account in &waiting {
            assert!(!account.may_read() && account.is_paused());
        }
        drop(unread);
        for account in &waiting {
            assert!(!account.is_paused() && account.may_read());
        }
    }

    #[test]
    fn the_share_of_a_process_is_a_quarter_of_its_descriptors_within_bounds() {
        for (limit, share) in [
            (Some(0), 64),
            (Some(256), 64),
            (Some(1024), 256),
            (None, 256),
            (Some(16_384), 4096),
            (Some(1 << 20), 4096),
        ] {
            assert!(is_below_share(share - 1, || limit), "{limit:?}");
            assert!(!is_below_share(share, || limit), "{limit:?}");
        }
    }
}

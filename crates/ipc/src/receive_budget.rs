//! Credit: the bytes and handles of messages that arrived and are still unread.
//!
//! Every message of a loop-driven channel holds its share until it is decoded or dropped. Above the
//! limit, the channel is not read, so that the peer's socket fills up; at half of the limit,
//! reading goes on. Handles are also counted for the whole process, so that the descriptors of one
//! peer never starve the other channels.
//!
//! Limits: [`Options`], [`PROCESS_HANDLES_MAX`].

mod pausing;

use self::pausing::{ChannelShare, Environment, ProcessShare};
use crate::codec::DecodeLimits;
use crate::codec::advanced::Features;
use crate::options::Options;
use crate::serialization::Serialization;
use reactor::Handle as Wake;
use std::sync::{Arc, OnceLock};

mod sync {
    pub(super) use std::sync::Mutex;
    pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
}

/// The cost of an unread message beside its payload: the value itself and its entry in the queue,
/// in bytes.
const MESSAGE_BYTES: usize = 128;

/// The unread handles of this process.
static PROCESS: ProcessShare<LoopWake> = ProcessShare::new();

/// The account of one channel, and everything that its messages need to be decoded.
///
/// The messages share the account, so that an unread message is small.
#[derive(Debug)]
pub(crate) struct CreditAccount {
    pub(crate) serialization: Serialization,
    pub(crate) decode_limits: DecodeLimits,
    pub(crate) received_handles_max: usize,
    /// Whether the peer is Node.
    pub(crate) is_node: bool,
    features: Features,
    share: Arc<ChannelShare<LoopWake>>,
}

/// The source on the loop that is woken when reading may go on.
#[derive(Debug, Default)]
struct LoopWake(OnceLock<Wake>);

impl Environment for LoopWake {
    fn wake(&self) {
        if let Some(wake) = self.0.get() {
            wake.wake();
        }
    }

    fn has_room(handles: usize) -> bool {
        handles < process_handles_max(handles)
    }
}

impl CreditAccount {
    pub(crate) fn new(options: &Options, is_node: bool) -> Arc<CreditAccount> {
        let (bytes_max, handles_max) = (options.unread_bytes_max, options.unread_handles_max);
        let share = ChannelShare::new(LoopWake::default(), &PROCESS, bytes_max, handles_max);
        Arc::new(CreditAccount {
            serialization: options.serialization,
            decode_limits: options.decode_limits(),
            received_handles_max: options.received_handles_max,
            is_node,
            features: Features::default(),
            share: Arc::new(share),
        })
    }

    /// Returns the features of V8 that the peer is known to read.
    pub(crate) fn features(&self) -> &Features {
        &self.features
    }

    /// Sets the source that is woken when reading may go on.
    pub(crate) fn set_wake(&self, wake: Wake) {
        let _ = self.share.environment.0.set(wake);
    }

    /// Takes credit for one message, until the returned value is dropped.
    pub(crate) fn take(self: &Arc<CreditAccount>, bytes: usize, handles: usize) -> Credit {
        let bytes = u32::try_from(bytes + MESSAGE_BYTES).unwrap_or(u32::MAX);
        let handles = u32::try_from(handles).unwrap_or(u32::MAX);
        self.share.add(bytes as usize, handles as usize);
        Credit { account: Arc::clone(self), bytes, handles }
    }

    /// Returns whether the channel may be read. Otherwise, its loop is woken as soon as it may.
    pub(crate) fn may_read(&self) -> bool {
        self.share.may_read()
    }

    /// Returns whether the channel is not read because too much is unread.
    pub(crate) fn is_paused(&self) -> bool {
        self.share.is_paused()
    }
}

/// The most handles that unread messages of a process hold, whatever its limit of descriptors.
const PROCESS_HANDLES_MAX: u64 = 4096;

/// The number of handles that a process may hold in any case.
const PROCESS_HANDLES_MIN: usize = 64;

/// Returns the number of handles that unread messages of this process may hold: a quarter of the
/// descriptors that it may have, and at most [`PROCESS_HANDLES_MAX`].
///
/// `held` is the number that they hold. The system is asked only where the limit could matter.
pub(crate) fn process_handles_max(held: usize) -> usize {
    share_of(held, || sys::rlimit::descriptors().ok().map(|(soft, _)| soft))
}

/// Returns the share of a process with this limit of descriptors, which is asked for only where it
/// could matter.
fn share_of(held: usize, limit: impl FnOnce() -> Option<u64>) -> usize {
    if held < PROCESS_HANDLES_MIN {
        return PROCESS_HANDLES_MIN;
    }
    (limit().unwrap_or(1024) / 4).min(PROCESS_HANDLES_MAX) as usize
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
        self.account.share.remove(self.bytes as usize, self.handles as usize);
    }
}

#[cfg(test)]
mod model;

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
            assert!(share - 1 < share_of(share - 1, || limit), "{limit:?}");
            assert!(share >= share_of(share, || limit), "{limit:?}");
        }
    }
}

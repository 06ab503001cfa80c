//! Adaptive waiting: whether a blocking receiver spins for a moment before it sleeps.
//!
//! A sleep and a wake-up cost some 30 µs on a virtual machine, more than a whole round trip between
//! two busy cores. Whether a spin pays depends on the peer and on the other users of the core, so
//! [`AdaptiveWait`] learns from each attempt and stops when attempts fail. Further attempts follow
//! from time to time, after pauses that grow while the attempts keep failing.
//!
//! Pure.

use std::time::Duration;

/// The longest spin: about the cost of a sleep and a wake-up.
const SPIN_MAX: Duration = Duration::from_micros(50);

/// After this many failures in a row, the channel stops spinning for a while.
const FAILURES_MAX: u32 = 2;

/// The first and the longest pause between two attempts, counted in waits.
const PAUSE_MIN: u32 = 8;
const PAUSE_MAX: u32 = 1024;

/// A sleep that took longer shows that no spin could have caught the message.
const LONG_SLEEP: Duration = Duration::from_micros(500);

/// The experience of one channel with its waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdaptiveWait {
    is_enabled: bool,
    failures: u32,
    /// The number of waits until the next attempt; 0 while the channel spins.
    pause: u32,
    pause_next: u32,
}

impl AdaptiveWait {
    pub(crate) fn new(is_enabled: bool) -> AdaptiveWait {
        AdaptiveWait { is_enabled, failures: 0, pause: 0, pause_next: PAUSE_MIN }
    }

    /// Returns how long this wait spins before it sleeps, or `None` for a sleep at once.
    #[inline]
    pub(crate) fn spin_time(&mut self) -> Option<Duration> {
        if !self.is_enabled {
            return None;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        Some(SPIN_MAX)
    }

    /// Records a spin in which something arrived.
    #[inline]
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.pause_next = PAUSE_MIN;
    }

    /// Records a spin in which nothing arrived, and how long the sleep after it took.
    pub(crate) fn failed(&mut self, slept: Duration) {
        self.failures += 1;
        if self.failures >= FAILURES_MAX || slept >= LONG_SLEEP {
            // After the pause, a single further failure is enough for the next pause.
            self.failures = FAILURES_MAX - 1;
            self.pause = self.pause_next;
            self.pause_next = (self.pause_next * 2).min(PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(60);

    /// Returns how many of `waits` spin when every spin fails.
    fn tries(wait: &mut AdaptiveWait, waits: usize) -> usize {
        (0..waits).filter(|_| wait.spin_time().inspect(|_| wait.failed(SHORT)).is_some()).count()
    }

    #[test]
    fn spinning_goes_on_while_it_succeeds() {
        let mut wait = AdaptiveWait::new(true);
        for _ in 0..1000 {
            assert!(wait.spin_time().is_some());
            wait.succeeded();
        }
    }

    #[test]
    fn spinning_stops_where_it_fails_and_is_tried_more_and_more_rarely() {
        let mut wait = AdaptiveWait::new(true);
        let first = tries(&mut wait, 10_000);
        assert!((5..=25).contains(&first), "{first}");
        let later = tries(&mut wait, 10_000);
        assert!((9..=11).contains(&later), "{later}");
    }

    #[test]
    fn one_success_is_enough_to_start_spinning_again() {
        let mut wait = AdaptiveWait::new(true);
        tries(&mut wait, 10_000);
        while wait.spin_time().is_none() {}
        wait.succeeded();
        assert!(wait.spin_time().is_some());
    }

    #[test]
    fn a_long_sleep_ends_the_spinning_at_once() {
        let mut wait = AdaptiveWait::new(true);
        assert!(wait.spin_time().is_some());
        wait.failed(Duration::from_millis(5));
        assert!(wait.spin_time().is_none());
    }

    #[test]
    fn a_disabled_adaptive_wait_never_spins() {
        let mut wait = AdaptiveWait::new(false);
        assert_eq!(tries(&mut wait, 100), 0);
    }
}

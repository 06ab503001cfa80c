//! The delay before a worker that ended is replaced.
//!
//! Each slot has a bucket of immediate restarts, which fills while its worker listens. When the
//! bucket is empty, each further restart waits twice as long as the one before. Jitter keeps slots
//! that failed together from restarting together. A worker that listened long enough resets the
//! wait. A slot is never given up and never spins: without listening in between, the bucket empties
//! and then one restart happens per wait.
//!
//! Pure.

use std::time::{Duration, Instant};

use crate::contract::RestartOptions;

/// The restarts of one slot.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    /// The immediate restarts that are left, as the listening time that earned them.
    credit: Duration,
    /// The number of waits since the last reset.
    waits: u32,
}

impl Backoff {
    pub(crate) fn new(options: &RestartOptions) -> Self {
        Self { credit: full(options), waits: 0 }
    }

    /// Returns when to replace a worker that ended after it had listened for `listened`.
    pub(crate) fn next(
        &mut self,
        options: &RestartOptions,
        listened: Duration,
        now: Instant,
        rng: &mut Rng,
    ) -> Instant {
        if listened >= options.reset {
            self.waits = 0;
        }
        self.credit = self.credit.saturating_add(listened).min(full(options));
        let refill = refill(options);
        if options.burst > 0 && self.credit >= refill {
            self.credit -= refill;
            return now;
        }
        let doubled = options.delay_min.saturating_mul(1 << self.waits.min(20));
        self.waits = self.waits.saturating_add(1);
        let jitter = 0.75 + 0.5 * rng.unit();
        let longest = options.delay_max.min(CENTURY);
        now + doubled.min(longest).mul_f64(jitter).min(longest)
    }
}

/// The longest delay: longer ones leave the range of durations or of the clock.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn full(options: &RestartOptions) -> Duration {
    refill(options).saturating_mul(options.burst)
}

/// Returns the listening time that earns one immediate restart. Never 0, because a worker that does
/// not listen at all would earn restarts, too.
fn refill(options: &RestartOptions) -> Duration {
    options.refill.max(Duration::from_nanos(1))
}

/// A small deterministic random number generator (splitmix64) for jitter, not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from 0 up to but not including 1.
    fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap_or(u32::MAX)) / 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    struct Restarts {
        options: RestartOptions,
        backoff: Backoff,
        rng: Rng,
        now: Instant,
    }

    impl Restarts {
        fn new(options: RestartOptions) -> Self {
            let backoff = Backoff::new(&options);
            Self { options, backoff, rng: Rng::new(1), now: Instant::now() }
        }

        fn wait_after(&mut self, listened: Duration) -> Duration {
            self.backoff.next(&self.options, listened, self.now, &mut self.rng) - self.now
        }

        fn empty(&mut self) {
            while self.wait_after(Duration::ZERO).is_zero() {}
        }
    }

    #[test]
    fn five_restarts_are_immediate_and_then_each_waits_twice_as_long() {
        let mut slot = Restarts::new(RestartOptions::default());
        for _ in 0..5 {
            assert_eq!(slot.wait_after(Duration::ZERO), Duration::ZERO);
        }
        for n in 0..8 {
            let wait = slot.wait_after(Duration::ZERO);
            let middle = 100 * MS * (1 << n);
            assert!(wait >= middle.mul_f64(0.74) && wait <= middle.mul_f64(1.26), "{n}: {wait:?}");
        }
        for _ in 0..100 {
            let wait = slot.wait_after(Duration::ZERO);
            assert!(wait >= Duration::from_secs(19) && wait <= Duration::from_secs(30), "{wait:?}");
        }
    }

    #[test]
    fn options_at_their_ends_give_a_delay_that_the_clock_can_hold() {
        let ends = [Duration::ZERO, Duration::MAX];
        for (delay_min, delay_max) in ends.into_iter().flat_map(|min| ends.map(|max| (min, max))) {
            for (burst, refill) in [0, u32::MAX].into_iter().flat_map(|n| ends.map(|it| (n, it))) {
                for reset in ends {
                    let options = RestartOptions {
                        burst,
                        refill,
                        delay_min,
                        delay_max,
                        reset,
                        ..RestartOptions::default()
                    };
                    let mut slot = Restarts::new(options);
                    for listened in [Duration::ZERO, Duration::from_secs(3600)] {
                        (0..40).for_each(|_| assert!(slot.wait_after(listened) <= CENTURY));
                    }
                }
            }
        }
    }

    #[test]
    fn a_delay_of_years_is_waited_for() {
        let years = CENTURY / 2;
        assert!(years.as_secs() > 49 * 365 * 86_400);
        let (burst, delay_min, delay_max) = (0, years, years);
        let options = RestartOptions { burst, delay_min, delay_max, ..RestartOptions::default() };
        assert!(Restarts::new(options).wait_after(Duration::ZERO) >= years.mul_f64(0.74));
    }

    #[test]
    fn listening_earns_immediate_restarts_up_to_the_burst() {
        let mut slot = Restarts::new(RestartOptions::default());
        slot.empty();
        assert_eq!(slot.wait_after(1000 * MS), Duration::ZERO);
        assert!(slot.wait_after(600 * MS) > Duration::ZERO);
        assert_eq!(slot.wait_after(600 * MS), Duration::ZERO);
        assert_eq!(slot.wait_after(3600 * 1000 * MS), Duration::ZERO);
        let immediate = (0..10).filter(|_| slot.wait_after(Duration::ZERO).is_zero()).count();
        assert_eq!(immediate, 4);
    }

    #[test]
    fn listening_long_resets_the_wait() {
        let mut slot = Restarts::new(RestartOptions { burst: 0, ..RestartOptions::default() });
        for _ in 0..6 {
            slot.wait_after(Duration::ZERO);
        }
        assert!(slot.wait_after(9999 * MS) > 1000 * MS);
        assert!(slot.wait_after(10_000 * MS) <= 125 * MS);
    }

    #[test]
    fn without_a_burst_every_restart_waits() {
        let mut slot = Restarts::new(RestartOptions { burst: 0, ..RestartOptions::default() });
        assert!(slot.wait_after(3600 * 1000 * MS) >= 75 * MS);
    }

    #[test]
    fn a_burst_of_nothing_never_spins() {
        let none = RestartOptions { burst: 0, refill: Duration::ZERO, ..RestartOptions::default() };
        let mut slot = Restarts::new(none);
        assert!(slot.wait_after(Duration::ZERO) >= 75 * MS, "the first restart waits");
        assert!(slot.wait_after(Duration::ZERO) >= 150 * MS);
    }

    #[test]
    fn a_burst_that_any_listening_refills_is_still_a_burst() {
        let options = RestartOptions { refill: Duration::ZERO, ..RestartOptions::default() };
        let mut slot = Restarts::new(options);
        for _ in 0..2 {
            let immediate = (0..20).filter(|_| slot.wait_after(Duration::ZERO).is_zero()).count();
            assert_eq!(immediate, 5, "and not every time");
            assert!(slot.wait_after(MS).is_zero());
            slot = Restarts::new(slot.options);
        }
    }

    /// The published numbers of splitmix64.
    #[test]
    fn the_generator_is_splitmix64() {
        let mut rng = Rng::new(0);
        let known = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        assert_eq!([rng.next(), rng.next(), rng.next()], known);
        let units: Vec<f64> = (0..1000).map(|_| rng.unit()).collect();
        assert!(units.iter().all(|unit| (0.0..1.0).contains(unit)));
        assert!(units.iter().any(|unit| *unit < 0.01) && units.iter().any(|unit| *unit > 0.99));
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let waits = |seed| {
            let mut slot = Restarts::new(RestartOptions::default());
            slot.rng = Rng::new(seed);
            (0..20).map(|_| slot.wait_after(Duration::ZERO)).collect::<Vec<_>>()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }
}

//! The steps by which a child is ended: its kill signal, `SIGKILL` after a while, and giving up.
//!
//! The kill signal is sent when the timeout passes, or when [`begin`](Ending::begin) is called. A
//! child that has not ended after the grace period is killed. A child that has not ended
//! [`GIVE_UP_AFTER`] its `SIGKILL` is not waited for any more.
//!
//! Pure.

use std::time::{Duration, Instant};

/// The time that a killed process may take to end. The kernel needs a moment, except for a process
/// that waits for a device or a remote file system.
pub(crate) const GIVE_UP_AFTER: Duration = Duration::from_secs(2);

/// A step that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndingStep {
    /// The timeout has passed: send the kill signal.
    Signal,
    /// The grace period has passed: send `SIGKILL`.
    Kill,
    /// The process does not end: wait no longer.
    GiveUp,
}

/// The steps of one child, and the time of the next one.
#[derive(Debug)]
pub(crate) struct Ending {
    /// The time between the kill signal and `SIGKILL`.
    grace: Duration,
    begun: bool,
    next: Option<(Instant, EndingStep)>,
}

impl Ending {
    /// Creates the steps of a child whose timeout passes at `timeout_at`.
    pub(crate) fn new(timeout_at: Option<Instant>, grace: Duration) -> Self {
        let next = timeout_at.map(|at| (at, EndingStep::Signal));
        Self { grace, begun: false, next }
    }

    /// Begins, because the kill signal is sent. Returns false if it was sent before.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        if self.begun {
            return false;
        }
        self.begun = true;
        // A grace period beyond the range of the clock never passes.
        self.next = now.checked_add(self.grace).map(|at| (at, EndingStep::Kill));
        true
    }

    /// Returns the step that is due, and goes on to the next one.
    pub(crate) fn step(&mut self, now: Instant) -> Option<EndingStep> {
        let (_, step) = self.next.filter(|(at, _)| *at <= now)?;
        match step {
            EndingStep::Signal => drop(self.begin(now)),
            EndingStep::Kill => self.next = Some((now + GIVE_UP_AFTER, EndingStep::GiveUp)),
            EndingStep::GiveUp => self.next = None,
        }
        Some(step)
    }

    /// Takes no further step, because the process has ended.
    pub(crate) fn finish(&mut self) {
        (self.begun, self.next) = (true, None);
    }

    /// Returns the time of the next step.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::EndingStep::{GiveUp, Kill, Signal};
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    /// Returns the steps with the seconds at which they are due.
    fn steps(ending: &mut Ending, begin: Instant) -> Vec<(u64, EndingStep)> {
        let mut steps = Vec::new();
        while let Some(at) = ending.deadline() {
            assert_eq!(ending.step(at - Duration::from_millis(1)), None, "not early");
            let step = ending.step(at).expect("due");
            steps.push(((at - begin).as_secs(), step));
        }
        steps
    }

    #[test]
    fn the_steps_follow_each_other() {
        let now = Instant::now();
        let in_3_s = now + Duration::from_secs(3);
        let mut ending = Ending::new(Some(in_3_s), GRACE);
        assert_eq!(steps(&mut ending, now), [(3, Signal), (8, Kill), (10, GiveUp)]);
        assert!(!ending.begin(now), "it was begun");
    }

    #[test]
    fn a_signal_before_the_timeout_replaces_it() {
        let now = Instant::now();
        let mut ending = Ending::new(Some(now + Duration::from_secs(3)), GRACE);
        assert!(ending.begin(now));
        assert!(!ending.begin(now));
        assert_eq!(steps(&mut ending, now), [(5, Kill), (7, GiveUp)]);
    }

    #[test]
    fn grace_periods_at_both_ends_are_taken() {
        let now = Instant::now();
        let mut never = Ending::new(None, Duration::MAX);
        assert_eq!(never.deadline(), None);
        assert!(never.begin(now));
        assert_eq!(never.deadline(), None);
        let mut at_once = Ending::new(None, Duration::ZERO);
        assert!(at_once.begin(now));
        assert_eq!(steps(&mut at_once, now), [(0, Kill), (2, GiveUp)]);
    }

    #[test]
    fn nothing_follows_the_end_of_the_process() {
        let now = Instant::now();
        let mut ending = Ending::new(Some(now), GRACE);
        ending.finish();
        assert_eq!(ending.step(now), None);
        assert!(!ending.begin(now));
        assert_eq!(ending.deadline(), None);
    }
}

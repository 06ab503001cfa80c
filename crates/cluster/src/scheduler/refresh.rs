//! A look at those that would be passed over.
//!
//! A lane that was seen to be late is passed over. That was up to a tick ago, though, and its
//! worker may have read everything since: so the lane that would have been chosen is looked at
//! first, and meanwhile the connection waits. On a busy machine the rotation is strict, the least
//! loaded is chosen and a client stays with its worker only with this. A lane that was found shut
//! is passed over without a look for [`FRESH`], however many connections come.
//!
//! Pure. Limits: [`LOOKS_MAX`], by load.

use std::time::{Duration, Instant};

use crate::contract::{Affinity, Output, WorkerKind};

use super::Schedule;
use super::backend::{Lane, LaneState};
use super::pick::Choice;
use super::sticky::weight;

/// What was seen is true for so long, unless the lane was given something since.
const FRESH: Duration = Duration::from_millis(1);
/// Of those that are late and have less, so many are looked at; the next tick looks at the others.
const LOOKS_MAX: usize = 8;

impl<H: Affinity> Schedule<H> {
    /// Asks about the lanes that would be passed over for the one at `at`; `true` while an answer
    /// is under way. It comes, and deals out what waits.
    pub(super) fn look_before(
        &mut self,
        choice: Choice,
        turn: usize,
        at: usize,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> bool {
        // One more must be able to wait for the answers.
        if self.waiting.len() >= self.waiting_max {
            return false;
        }
        let mut looks = false;
        for passed in self.passed_over(choice, turn, at) {
            let lane = &mut self.lanes[passed];
            if lane.looked_at.is_none_or(|at| at + FRESH <= now) {
                lane.looked_at = Some(now);
                self.ask(passed, out);
            }
            looks |= self.lanes[passed].asked.is_some();
        }
        looks
    }

    /// Those that come before the one at `at`, but for what may not be true any more.
    fn passed_over(&self, choice: Choice, turn: usize, at: usize) -> Vec<usize> {
        let count = self.lanes.len();
        let turn = turn.min(count);
        // A Node worker that is given more than its share comes after all that may be free.
        let last = !self.lanes[at].is_free(self.window);
        match choice {
            Choice::Turn => {
                let end = if last {
                    count + turn
                } else if at < turn {
                    count + at
                } else {
                    at
                };
                let passed = (turn..end).map(|lane| lane % count);
                passed.filter(|lane| self.lanes[*lane].may_have_read()).collect()
            }
            Choice::Load => {
                let order = |lane: usize| (lane + count - turn) % count;
                let rank = |lane: usize| (self.lanes[lane].load(), order(lane));
                let least = rank(at);
                let late = (0..count).filter(|lane| self.lanes[*lane].may_have_read());
                // Ranked once: workers go on counting.
                let ranked = late.map(|lane| (rank(lane), lane));
                let mut less: Vec<_> = ranked.filter(|(rank, _)| last || *rank < least).collect();
                if less.len() > LOOKS_MAX {
                    less.select_nth_unstable(LOOKS_MAX);
                    less.truncate(LOOKS_MAX);
                }
                less.into_iter().map(|(_, lane)| lane).collect()
            }
            Choice::Client(client) => {
                let rank = |lane: &Lane| (weight(client, lane.slot), lane.worker);
                let least = rank(&self.lanes[at]);
                let shut = (0..count).filter(|lane| self.lanes[*lane].may_take_again(self.window));
                shut.filter(|lane| rank(&self.lanes[*lane]) > least).collect()
            }
        }
    }
}

impl Lane {
    /// Is passed over for being late alone.
    fn may_have_read(&self) -> bool {
        self.late && self.state == LaneState::Open && self.can_be_asked()
    }

    /// Is passed over for anything that its worker may have mended.
    fn may_take_again(&self, window: usize) -> bool {
        let shut = match self.state {
            LaneState::Open => self.late || self.full || self.records.len() >= window,
            LaneState::Suspect => !self.records.is_empty(),
            LaneState::Granted
            | LaneState::Taking(_)
            | LaneState::Checking(_)
            | LaneState::Again(_)
            | LaneState::Ended
            | LaneState::Answering => false,
        };
        shut && self.can_be_asked()
    }

    fn can_be_asked(&self) -> bool {
        self.kind == WorkerKind::Native && !self.is_at_its_limit()
    }
}

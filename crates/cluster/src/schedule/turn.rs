//! A look at those that would be passed over.
//!
//! A lane that was seen to be late is passed over. That was up to a tick ago, though, and its
//! worker may have read everything since: so the lane that would have been chosen is looked at
//! first, and meanwhile the connection waits. On a busy machine the rotation is strict, the least
//! loaded is chosen and a client stays with its worker only with this.
//!
//! Pure.

use std::time::{Duration, Instant};

use crate::core::{Affinity, Output, WorkerKind};

use super::Schedule;
use super::lane::{Lane, LaneState};
use super::pick::Choice;
use super::sticky::weight;

/// What was seen is true for so long: more than it takes to hear of all that are asked at once.
const FRESH: Duration = Duration::from_millis(1);

impl<H: Affinity> Schedule<H> {
    /// Asks about the lanes that would be passed over for the one at `at`, each once for the
    /// connection of this number, and once more when that has waited; `true` while an answer is under way. It comes, and deals out
    /// what waits.
    pub(super) fn look_before(
        &mut self,
        choice: Choice,
        turn: usize,
        at: usize,
        (number, now): (u64, Instant),
        out: &mut Vec<Output<H>>,
    ) -> bool {
        // One more must be able to wait for the answers.
        if self.waiting.len() >= self.waiting_max {
            return false;
        }
        let mut looks = false;
        for passed in self.passed_over(choice, turn, at) {
            let lane = &mut self.lanes[passed];
            let seen = |(of, at): &(u64, Instant)| *of == number && now < *at + FRESH;
            if !lane.looked_for.as_ref().is_some_and(seen) {
                lane.looked_for = Some((number, now));
                self.ask(passed, out);
            }
            looks |= self.lanes[passed].asked.is_some();
        }
        looks
    }

    /// Those that come before the one at `at`, and are not chosen for what may not be true any more.
    fn passed_over(&self, choice: Choice, turn: usize, at: usize) -> Vec<usize> {
        let count = self.lanes.len();
        let turn = turn.min(count);
        match choice {
            Choice::Turn => {
                let end = if at < turn { count + at } else { at };
                let passed = (turn..end).map(|lane| lane % count);
                passed.filter(|lane| self.lanes[*lane].may_have_read()).collect()
            }
            Choice::Load => {
                let order = |lane: usize| (lane + count - turn) % count;
                let rank = |lane: usize| (self.lanes[lane].load(), order(lane));
                let less = |lane: &usize| rank(*lane) < rank(at);
                let late = (0..count).filter(|lane| self.lanes[*lane].may_have_read());
                late.filter(less).collect()
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

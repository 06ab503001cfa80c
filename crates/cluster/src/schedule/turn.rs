//! Turns of those that were late.
//!
//! A late lane is passed over. When it was seen to be late is up to a tick ago, though, and its
//! worker may have read everything since: so it is looked at when its turn comes, and meanwhile the
//! connection waits. On a busy machine the rotation is strict only with this.
//!
//! Pure.

use crate::core::{Affinity, Output, WorkerKind};

use super::Schedule;
use super::lane::LaneState;

impl<H: Affinity> Schedule<H> {
    /// Asks about the late lanes that would be passed over, each once for its turn; `true` while
    /// an answer is under way. It comes, and deals out what waits.
    pub(super) fn look_before(&mut self, turn: usize, at: usize, out: &mut Vec<Output<H>>) -> bool {
        let count = self.lanes.len();
        let turn = turn.min(count);
        let end = if at < turn { count + at } else { at };
        let passed = (turn..end).map(|lane| lane % count);
        // One more must be able to wait for the answers.
        let can_wait = self.waiting.len() < self.waiting_max;
        let mut looks = false;
        for at in passed.clone() {
            let lane = &mut self.lanes[at];
            let late = lane.late && lane.state == LaneState::Open;
            if late && lane.kind == WorkerKind::Native && !lane.looked && can_wait {
                lane.looked = true;
                self.ask(at, out);
                looks = true;
            }
        }
        if !looks {
            passed.for_each(|at| self.lanes[at].looked = false);
        }
        looks
    }
}

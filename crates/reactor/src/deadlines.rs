//! Deadlines: a queue with at most one deadline per owner, the earliest first.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The deadlines of all owners `O`.
#[derive(Debug)]
pub(crate) struct Deadlines<O> {
    queue: BTreeSet<(Instant, O)>,
    by_owner: BTreeMap<O, Instant>,
}

impl<O: Copy + Ord> Deadlines<O> {
    pub(crate) fn new() -> Self {
        Self { queue: BTreeSet::new(), by_owner: BTreeMap::new() }
    }

    /// Sets or moves the deadline of `owner`, or clears it (`None`).
    pub(crate) fn set(&mut self, owner: O, at: Option<Instant>) {
        let old = match at {
            Some(at) => self.by_owner.insert(owner, at),
            None => self.by_owner.remove(&owner),
        };
        // A busy source sets the same deadline in every turn; the queue is then left alone.
        if old == at {
            return;
        }
        self.queue.extend(at.map(|at| (at, owner)));
        if let Some(old) = old {
            self.queue.remove(&(old, owner));
        }
    }

    /// Removes and returns every owner whose deadline is at or before `now`, the earliest first.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<O> {
        let mut due = Vec::new();
        while let Some(&(at, owner)) = self.queue.first() {
            if at > now {
                break;
            }
            self.set(owner, None);
            due.push(owner);
        }
        due
    }

    /// Returns the earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check(set: &[(u64, Option<u64>)], now: u64, due: &[u64], next: Option<u64>) {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut deadlines = Deadlines::new();
        for &(owner, ms) in set {
            deadlines.set(owner, ms.map(at));
        }
        assert_eq!(deadlines.take_due(at(now)), due);
        assert_eq!(deadlines.next(), next.map(at));
        assert_eq!(deadlines.queue.len(), deadlines.by_owner.len());
    }

    #[test]
    fn due_owners_come_once_and_the_earliest_first() {
        check(&[], 5, &[], None);
        check(&[(1, Some(5))], 4, &[], Some(5));
        check(&[(1, Some(5))], 5, &[1], None);
        check(&[(1, Some(5)), (2, Some(3)), (3, Some(9))], 6, &[2, 1], Some(9));
        check(&[(1, Some(5)), (2, Some(5))], 5, &[1, 2], None);
    }

    #[test]
    fn a_new_deadline_replaces_the_old_one_and_none_clears_it() {
        check(&[(1, Some(5)), (1, Some(8))], 6, &[], Some(8));
        check(&[(1, Some(8)), (1, Some(5))], 6, &[1], None);
        check(&[(1, Some(5)), (1, Some(5))], 5, &[1], None);
        check(&[(1, Some(5)), (1, None), (2, None)], 9, &[], None);
    }
}

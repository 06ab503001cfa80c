//! The conduct of a native worker: whether its next message can come from this crate's runtime.
//!
//! A runtime reports itself online once and before all else. It reports a listener at most once for
//! each grant, and closes each grant at most once, after which it names that listener no more. Only
//! `HasRoom` may follow the end of a listener, because open connections outlive their listener.
//!
//! Races never count: a grant is recorded when it is sent, before the worker can know the number,
//! and kept until the worker itself has closed the listener, whatever the primary closes meanwhile.
//!
//! Pure.

use std::collections::BTreeMap;

use crate::contract::{ClientAffinity, Input, Key, WorkerId, WorkerKind};
use crate::protocol::violation::Violation;

use super::Supervisor;

/// A message of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Online,
    Listen,
    ListensAlone,
    Listening(Key),
    Close(Key),
    HasRoom(Key),
    Disconnect,
}

/// The messages that a worker may still send.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    online: bool,
    /// The worker has broken the protocol: nothing that it says counts any more.
    broken: bool,
    /// The grants that the worker has not closed. Their number is bounded with the listeners of a
    /// worker.
    grants: BTreeMap<Key, Grants>,
}

/// The grants of one key: several if a worker binds a datagram address more than once.
#[derive(Clone, Copy, Debug, Default)]
struct Grants {
    unclosed: u32,
    /// The grants that the worker has not reported to listen on.
    unreported: u32,
}

/// The judgement on an input, as to whether it can come from this crate's runtime.
pub(super) enum Verdict<H> {
    Honest(Input<H>),
    /// The worker has broken the protocol before.
    Ignored,
    Violation(WorkerId, Violation),
}

impl<H: ClientAffinity> Supervisor<H> {
    /// Judges a message of a native worker. A Node worker's messages come from Node's own library
    /// and from the worker's program, which may send anything, so that nothing is a breach there.
    pub(super) fn judge(&mut self, input: Input<H>) -> Verdict<H> {
        let (worker, said) = match &input {
            Input::Online { worker } => (*worker, Said::Online),
            Input::ListenRequested { worker, .. } | Input::NoSuchSocket { worker, .. } => {
                (*worker, Said::Listen)
            }
            Input::ListensAlone { worker, .. } => (*worker, Said::ListensAlone),
            Input::Listening { worker, key } => (*worker, Said::Listening(*key)),
            Input::ListenerClosed { worker, key } => (*worker, Said::Close(*key)),
            Input::HasRoom { worker, key } => (*worker, Said::HasRoom(*key)),
            Input::DisconnectRequested { worker } => (*worker, Said::Disconnect),
            _ => return Verdict::Honest(input),
        };
        let Some(entry) = self.workers.get_mut(&worker) else { return Verdict::Honest(input) };
        if entry.kind == WorkerKind::Node {
            return Verdict::Honest(input);
        }
        if entry.conduct.is_broken() {
            return Verdict::Ignored;
        }
        match entry.conduct.judge(said, self.addresses.last_key()) {
            Ok(()) => Verdict::Honest(input),
            Err(violation) => Verdict::Violation(worker, violation),
        }
    }
}

impl Conduct {
    /// Records a grant that is sent to the worker.
    pub(super) fn granted(&mut self, key: Key) {
        let grants = self.grants.entry(key).or_default();
        grants.unclosed += 1;
        grants.unreported += 1;
    }

    /// Removes the record of a grant that could not be sent.
    pub(super) fn not_granted(&mut self, key: Key) {
        self.close(key);
    }

    /// Records that the worker broke the protocol. Returns whether this is the first time.
    pub(super) fn set_broken(&mut self) -> bool {
        !std::mem::replace(&mut self.broken, true)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Judges a message. `last_key` is the last key that any worker was granted.
    pub(super) fn judge(&mut self, said: Said, last_key: Key) -> Result<(), Violation> {
        if said == Said::Online {
            let again = std::mem::replace(&mut self.online, true);
            return if again { Err(out_of_turn(said)) } else { Ok(()) };
        }
        // A request to disconnect changes nothing that is not the worker's own.
        if !self.online && said != Said::Disconnect {
            return Err(out_of_turn(said));
        }
        let honest = match said {
            Said::Online | Said::Listen | Said::ListensAlone | Said::Disconnect => true,
            Said::Listening(key) => self.report(key),
            Said::Close(key) => self.close(key),
            Said::HasRoom(key) => (1..=last_key).contains(&key),
        };
        if honest {
            return Ok(());
        }
        let (message, listener) = (said.name(), said.key().unwrap_or_default());
        Err(Violation::NotGranted { message, listener })
    }

    fn report(&mut self, key: Key) -> bool {
        let grants = self.grants.get_mut(&key).filter(|grants| grants.unreported > 0);
        grants.map(|grants| grants.unreported -= 1).is_some()
    }

    fn close(&mut self, key: Key) -> bool {
        let Some(grants) = self.grants.get_mut(&key) else { return false };
        grants.unclosed -= 1;
        // A listener may be closed before it was reported.
        grants.unreported = grants.unreported.min(grants.unclosed);
        if grants.unclosed == 0 {
            self.grants.remove(&key);
        }
        true
    }
}

impl Said {
    fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Listen => "listen",
            Self::ListensAlone => "listens alone",
            Self::Listening(_) => "listening",
            Self::Close(_) => "close",
            Self::HasRoom(_) => "has room",
            Self::Disconnect => "disconnect",
        }
    }

    fn key(self) -> Option<Key> {
        match self {
            Self::Listening(key) | Self::Close(key) | Self::HasRoom(key) => Some(key),
            Self::Online | Self::Listen | Self::ListensAlone | Self::Disconnect => None,
        }
    }
}

fn out_of_turn(said: Said) -> Violation {
    Violation::OutOfTurn { message: said.name() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Said; 7] = [
        Said::Online,
        Said::Listen,
        Said::ListensAlone,
        Said::Listening(1),
        Said::Close(1),
        Said::HasRoom(1),
        Said::Disconnect,
    ];

    /// A worker that is online and was granted key 1 this many times, of three keys in all.
    fn granted(times: u32) -> Conduct {
        let mut conduct = Conduct::default();
        conduct.judge(Said::Online, 3).unwrap();
        (0..times).for_each(|_| conduct.granted(1));
        conduct
    }

    #[test]
    fn every_message_before_the_first_online_and_a_second_online_are_out_of_turn() {
        for said in ALL {
            let mut conduct = Conduct::default();
            conduct.granted(1);
            let allowed = matches!(said, Said::Online | Said::Disconnect);
            let expected = if allowed { Ok(()) } else { Err(out_of_turn(said)) };
            assert_eq!(conduct.judge(said, 3), expected);
        }
        assert_eq!(granted(0).judge(Said::Online, 3), Err(out_of_turn(Said::Online)));
    }

    #[test]
    fn each_grant_is_reported_once_and_closed_once() {
        for times in [0, 1, 3] {
            for said in [Said::Listening(1), Said::Close(1)] {
                let mut conduct = granted(times);
                for _ in 0..times {
                    assert_eq!(conduct.judge(said, 3), Ok(()));
                }
                let message = said.name();
                let expected = Err(Violation::NotGranted { message, listener: 1 });
                assert_eq!(conduct.judge(said, 3), expected);
            }
        }
    }

    #[test]
    fn a_listener_that_is_closed_is_not_reported_any_more_and_may_be_granted_again() {
        let mut conduct = granted(2);
        assert_eq!(conduct.judge(Said::Close(1), 3), Ok(()));
        assert_eq!(conduct.judge(Said::Listening(1), 3), Ok(()));
        assert!(conduct.judge(Said::Listening(1), 3).is_err(), "one grant is left, and reported");
        assert_eq!(conduct.judge(Said::Close(1), 3), Ok(()));
        assert!(conduct.grants.is_empty());
        conduct.granted(1);
        assert_eq!(conduct.judge(Said::Listening(1), 3), Ok(()));
    }

    #[test]
    fn a_grant_that_was_not_sent_gives_no_right() {
        let mut conduct = granted(1);
        conduct.not_granted(1);
        assert!(conduct.judge(Said::Close(1), 3).is_err());
    }

    #[test]
    fn room_may_be_reported_after_the_end_of_a_listener_and_not_for_one_that_nobody_had() {
        let mut conduct = granted(0);
        for (key, honest) in [(0, false), (1, true), (3, true), (4, false), (Key::MAX, false)] {
            assert_eq!(conduct.judge(Said::HasRoom(key), 3).is_ok(), honest, "{key}");
        }
    }

    #[test]
    fn the_first_breach_is_the_one_that_counts() {
        let mut conduct = granted(0);
        assert!(!conduct.is_broken() && conduct.set_broken());
        assert!(conduct.is_broken() && !conduct.set_broken());
    }
}

//! The life cycle of a child as its parent sees it: which event is emitted, and when.
//!
//! `Spawn` is first. `Disconnect` comes when the channel has ended. `Exit` comes when the process
//! has ended and its messages are read, whatever happens to its pipes and its channel. `Close` is
//! last and comes once: when the process, every piped output and the channel have ended, in any
//! order.
//!
//! Pure.

/// A change that the driver has observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The process has ended.
    Exited,
    /// The channel has ended, whichever side closed it.
    Disconnected,
    /// One of the piped outputs has ended: its last writer or this process has closed it.
    OutputEnded,
}

/// An event to emit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Disconnect,
    Exit,
    Close,
}

/// The parts of a child that have not ended yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifecycle {
    alive: bool,
    connected: bool,
    outputs: u32,
    closed: bool,
}

impl Lifecycle {
    /// Creates the state of a running child with `outputs` piped outputs.
    pub(crate) const fn new(connected: bool, outputs: u32) -> Self {
        Self { alive: true, connected, outputs, closed: false }
    }

    /// Applies `input` and returns the events to emit, in order. Late and repeated inputs change
    /// nothing.
    pub(crate) fn step(&mut self, input: Input) -> impl Iterator<Item = Notice> + use<> {
        let notice = match input {
            Input::Exited if self.alive => {
                self.alive = false;
                Some(Notice::Exit)
            }
            Input::Disconnected if self.connected => {
                self.connected = false;
                Some(Notice::Disconnect)
            }
            Input::OutputEnded => {
                self.outputs = self.outputs.saturating_sub(1);
                None
            }
            Input::Exited | Input::Disconnected => None,
        };
        let over = !self.alive && !self.connected && self.outputs == 0;
        let close = (over && !self.closed).then_some(Notice::Close);
        self.closed |= over;
        notice.into_iter().chain(close)
    }

    pub(crate) const fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.connected
    }

    pub(crate) const fn is_alive(&self) -> bool {
        self.alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Input::{Disconnected as D, Exited as E, OutputEnded as O};

    fn notices(mut life: Lifecycle, inputs: &[Input]) -> Vec<Notice> {
        inputs.iter().flat_map(|input| life.step(*input)).collect()
    }

    #[test]
    fn exit_is_emitted_at_once_and_close_when_everything_has_ended() {
        use Notice::{Close, Disconnect, Exit};
        assert_eq!(notices(Lifecycle::new(false, 0), &[E]), [Exit, Close]);
        assert_eq!(notices(Lifecycle::new(false, 2), &[E, O]), [Exit]);
        assert_eq!(notices(Lifecycle::new(false, 2), &[E, O, O]), [Exit, Close]);
        assert_eq!(notices(Lifecycle::new(false, 2), &[O, O, E]), [Exit, Close]);
        assert_eq!(notices(Lifecycle::new(true, 0), &[D, E]), [Disconnect, Exit, Close]);
        assert_eq!(notices(Lifecycle::new(true, 0), &[E, D]), [Exit, Disconnect, Close]);
        assert_eq!(notices(Lifecycle::new(true, 1), &[E, D, O]), [Exit, Disconnect, Close]);
    }

    #[test]
    fn repeated_inputs_emit_nothing() {
        use Notice::{Close, Disconnect, Exit};
        let inputs = [D, D, E, E, O, O, O, D, E];
        assert_eq!(notices(Lifecycle::new(true, 1), &inputs), [Disconnect, Exit, Close]);
    }

    #[test]
    fn each_part_is_there_until_it_has_ended() {
        let mut life = Lifecycle::new(true, 1);
        let parts = |life: &Lifecycle| (life.is_alive(), life.is_connected(), life.is_closed());
        assert_eq!(parts(&life), (true, true, false));
        for (input, after) in [
            (E, (false, true, false)),
            (D, (false, false, false)),
            (O, (false, false, true)),
            (D, (false, false, true)),
        ] {
            life.step(input).for_each(drop);
            assert_eq!(parts(&life), after, "{input:?}");
        }
        assert!(!Lifecycle::new(false, 0).is_connected());
    }

    #[test]
    fn every_order_emits_each_event_once_and_close_last() {
        let mut orders = vec![vec![]];
        for input in [E, D, O, O] {
            orders = orders
                .iter()
                .flat_map(|order: &Vec<Input>| {
                    (0..=order.len()).map(move |at| {
                        let mut longer = order.clone();
                        longer.insert(at, input);
                        longer
                    })
                })
                .collect();
        }
        for order in orders {
            let notices = notices(Lifecycle::new(true, 2), &order);
            assert_eq!(notices.last(), Some(&Notice::Close), "{order:?}");
            for one in [Notice::Exit, Notice::Disconnect, Notice::Close] {
                assert_eq!(notices.iter().filter(|notice| **notice == one).count(), 1, "{order:?}");
            }
        }
    }
}

//! Random orders in which three threads read and remove messages: no channel stays unread for ever.

mod sync {
    pub(super) use shuttle::sync::Mutex;
    pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
}

/// The same source as in production, with primitives that the model checker schedules.
#[path = "pausing.rs"]
#[allow(dead_code, clippy::duplicate_mod, reason = "the model calls a part, with other primitives")]
mod pausing;

use self::pausing::{ChannelShare, Environment, ProcessShare};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;
use std::sync::Arc;

/// The number of random orders that are tried.
const RUNS: usize = 1000;

/// An owner that counts its wake-ups, in a process that may have one unread handle.
#[derive(Default)]
struct Owner(AtomicUsize);

impl Environment for Owner {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn has_room(handles: usize) -> bool {
        handles < 1
    }
}

fn channels() -> [Arc<ChannelShare<Owner>>; 2] {
    let process = Box::leak(Box::new(ProcessShare::new()));
    [(); 2].map(|()| Arc::new(ChannelShare::new(Owner::default(), process, 10, 10)))
}

/// Checks that `channel` was woken if it was not to be read, once nothing is unread anywhere.
fn check(channel: &Arc<ChannelShare<Owner>>, could_read: bool) {
    assert!(!channel.is_paused(), "nothing is unread anywhere, and nobody was woken");
    let woken = channel.environment.0.load(Ordering::SeqCst);
    assert_eq!(woken, usize::from(!could_read), "one wake-up for one pause");
}

#[test]
fn a_channel_that_waits_for_the_process_and_for_itself_is_read_again() {
    let model = || {
        let [ours, other] = channels();
        ours.add(7, 0);
        other.add(0, 1);
        let reads = thread::spawn({
            let ours = Arc::clone(&ours);
            move || ours.may_read()
        });
        let takes = thread::spawn({
            let ours = Arc::clone(&ours);
            move || ours.remove(7, 0)
        });
        other.remove(0, 1);
        other.add(0, 1);
        takes.join().unwrap();
        other.remove(0, 1);
        check(&ours, reads.join().unwrap());
    };
    shuttle::check_random(model, RUNS);
}

#[test]
fn a_channel_that_is_over_its_own_limit_while_the_process_fills_up_is_read_again() {
    let model = || {
        let [ours, other] = channels();
        ours.add(11, 0);
        let could_read = ours.may_read();
        let fills = thread::spawn(move || {
            other.add(0, 1);
            other.remove(0, 1);
        });
        ours.remove(11, 0);
        fills.join().unwrap();
        check(&ours, could_read);
    };
    shuttle::check_random(model, RUNS);
}

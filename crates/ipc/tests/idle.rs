//! What an idle channel on the loop costs: next to no memory, and no wake-up. Alone in its process,
//! because it looks at the whole of it.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use ipc::Blob;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::time::Duration;

/// What an idle end may cost in resident memory, in bytes: whole pages, with what the allocator
/// keeps. A buffer left behind would be eight times as much. The heap alone is the benchmark's.
const IDLE_BYTES_MAX: usize = 8192;

/// What is sent in this test.
trait Sent: Serialize + DeserializeOwned + Clone + PartialEq + Send + 'static {}

impl Sent for Blob {}
impl Sent for Vec<u8> {}

/// A loop-driven end, with its events.
type End<T> = (ipc::Outlet<T>, crossbeam_channel::Receiver<ipc::Event<T>>);

#[test]
fn an_idle_end_keeps_no_buffer_and_wakes_nobody() {
    // Bytes that are sent from where they lie, and bytes that are encoded one by one.
    let _blobs = cheap(Blob::from(vec![1; 100_000]), 300);
    let _vectors = cheap(vec![1_u8; 100_000], 60);

    // What came before may still wake it once; what is idle does not do so for ever.
    let (_never, silence) = crossbeam_channel::bounded::<()>(0);
    let quiet = (0..10).any(|_| {
        let switches = switches_of_the_loop();
        let _ = silence.recv_timeout(Duration::from_millis(300));
        switches_of_the_loop() == switches
    });
    assert!(quiet, "the loop is woken again and again");
}

/// Holds `count` pairs that have carried `message` both ways, and looks at what they cost.
fn cheap<T: Sent>(message: T, count: usize) -> Vec<(End<T>, End<T>)> {
    // The first ones pay for the loop, and for buffers that all of them share.
    let mut held = used(10, &message);
    let before = resident();
    held.extend(used(count, &message));
    let grown = resident().saturating_sub(before);
    let each = grown / (2 * count);
    assert!(each <= IDLE_BYTES_MAX, "{each} bytes for each end");
    held
}

/// Ends that have carried `message` both ways.
fn used<T: Sent>(count: usize, message: &T) -> Vec<(End<T>, End<T>)> {
    let one = || {
        let (a, b) = ipc::channel::<T, T>().unwrap();
        let (a, b) = (a.events().unwrap(), b.events().unwrap());
        for (from, to) in [(&a, &b), (&b, &a)] {
            from.0.send(message.clone()).unwrap();
            let ipc::Event::Message(received) = to.1.recv().unwrap() else { panic!() };
            assert!(received.decode().unwrap() == *message);
        }
        (a, b)
    };
    (0..count).map(|_| one()).collect()
}

fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// How often the loop's thread gave up the processor to wait.
fn switches_of_the_loop() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let of = |task: std::path::PathBuf| {
        let name = fs::read_to_string(task.join("comm")).ok()?;
        let status = fs::read_to_string(task.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        (name.trim() == "brood-loop").then(|| line.trim().parse::<u64>().unwrap())
    };
    tasks.filter_map(of).sum()
}

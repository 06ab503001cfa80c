//! What an idle channel costs: next to no memory, and on the loop no wake-up. Alone in its process,
//! because it looks at the whole of it.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use ipc::{Blob, Channel};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::time::Duration;

/// What an idle end may cost in resident memory, in bytes: whole pages, with what the allocator
/// keeps. A buffer left behind would be eight times as much. The heap alone is the benchmark's.
const IDLE_BYTES_MAX: usize = 8192;

/// What is sent in this test.
trait Sent: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync + 'static {
    fn bytes(&self) -> usize;
}

impl Sent for Blob {
    fn bytes(&self) -> usize {
        self.len()
    }
}

impl Sent for Vec<u8> {
    fn bytes(&self) -> usize {
        self.len()
    }
}

/// A loop-driven end, with its events.
type End<T> = (ipc::LinkSender<T>, crossbeam_channel::Receiver<ipc::Event<T>>);

#[test]
fn an_idle_end_keeps_no_buffer_and_wakes_nobody() {
    // Bytes that are sent from where they lie, and bytes that are encoded one by one.
    let _blobs = cheap(Blob::from(vec![1; 100_000]), 300, used);
    let _vectors = cheap(vec![1_u8; 100_000], 60, used);
    // The same for ends that block.
    let _long = cheap(Blob::from(vec![1; 1 << 20]), 60, used_by_threads);
    let _vectors = cheap(vec![1_u8; 100_000], 30, used_by_threads);
    let _small = cheap(Blob::from(vec![1; 16]), 40, used_by_threads);

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
fn cheap<T: Sent, P>(message: T, count: usize, used: fn(usize, &T) -> Vec<P>) -> Vec<P> {
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

/// Ends that block and have carried `message` both ways, with many fed at once where it is short.
/// Threads come and go meanwhile: what they kept for themselves goes with them.
fn used_by_threads<T: Sent>(count: usize, message: &T) -> Vec<(Channel<T, T>, Channel<T, T>)> {
    let times = if message.bytes() > 1000 { 1 } else { 1000 };
    let all = |from: &Channel<T, T>, to: &Channel<T, T>| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..times).for_each(|_| from.feed(message.clone()).unwrap());
                from.flush().unwrap();
                from.send(message.clone()).unwrap();
            });
            (0..=times).for_each(|_| assert!(to.recv().unwrap() == *message));
            assert!(to.try_recv().unwrap().is_none());
        });
    };
    let one = || {
        let (a, b) = ipc::channel::<T, T>().unwrap();
        all(&a, &b);
        all(&b, &a);
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

//! The cost of an idle channel: almost no memory, and no wake-up of the loop. This test is alone in
//! its process, because it measures the whole process.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use brood_ipc::{Blob, Channel};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::time::Duration;

/// The resident memory that an idle endpoint may cost, in bytes: whole pages, with the allocator's
/// share. A forgotten buffer would cost eight times as much. The benchmark measures the heap alone.
const IDLE_BYTES_MAX: usize = 8192;

/// A type of message in this test.
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

/// A loop-driven endpoint with its events.
type End<T> = (brood_ipc::LinkSender<T>, crossbeam_channel::Receiver<brood_ipc::Event<T>>);

#[test]
fn an_idle_endpoint_keeps_no_buffer_and_never_wakes_the_loop() {
    // Blobs are sent from their own memory, and vectors are encoded number by number.
    let _blobs = cheap(Blob::from(vec![1; 100_000]), 300, used);
    let _vectors = cheap(vec![1_u8; 100_000], 60, used);
    // The same with blocking endpoints.
    let _long = cheap(Blob::from(vec![1; 1 << 20]), 60, used_by_threads);
    let _vectors = cheap(vec![1_u8; 100_000], 30, used_by_threads);
    let _small = cheap(Blob::from(vec![1; 16]), 40, used_by_threads);

    // Earlier work may still wake the loop once, but idle channels must not wake it again and
    // again.
    let (_never, silence) = crossbeam_channel::bounded::<()>(0);
    let quiet = (0..10).any(|_| {
        let switches = switches_of_the_loop();
        let _ = silence.recv_timeout(Duration::from_millis(300));
        switches_of_the_loop() == switches
    });
    assert!(quiet, "the loop is woken again and again");
}

/// Holds `count` pairs that have carried `message` both ways, and checks their cost.
fn cheap<T: Sent, P>(message: T, count: usize, used: fn(usize, &T) -> Vec<P>) -> Vec<P> {
    // The first pairs pay for the loop and for the shared buffers.
    let mut held = used(10, &message);
    let before = resident();
    held.extend(used(count, &message));
    let grown = resident().saturating_sub(before);
    let each = grown / (2 * count);
    assert!(each <= IDLE_BYTES_MAX, "{each} bytes for each end");
    held
}

/// Makes loop-driven endpoints that have carried `message` both ways.
fn used<T: Sent>(count: usize, message: &T) -> Vec<(End<T>, End<T>)> {
    let one = || {
        let (a, b) = brood_ipc::channel::<T, T>().unwrap();
        let (a, b) = (a.into_events().unwrap(), b.into_events().unwrap());
        for (from, to) in [(&a, &b), (&b, &a)] {
            from.0.send(&message.clone()).unwrap();
            let brood_ipc::Event::Message(received) = to.1.recv().unwrap() else { panic!() };
            assert!(received.decode().unwrap() == *message);
        }
        (a, b)
    };
    (0..count).map(|_| one()).collect()
}

/// Makes blocking endpoints that have carried `message` both ways; of short messages, many at once.
///
/// Threads come and go meanwhile, and their buffers go with them.
fn used_by_threads<T: Sent>(count: usize, message: &T) -> Vec<(Channel<T, T>, Channel<T, T>)> {
    let times = if message.bytes() > 1000 { 1 } else { 1000 };
    let all = |from: &Channel<T, T>, to: &Channel<T, T>| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..times).for_each(|_| from.feed(&message.clone()).unwrap());
                from.flush().unwrap();
                from.send(&message.clone()).unwrap();
            });
            (0..=times).for_each(|_| assert!(to.recv().unwrap() == *message));
            assert!(to.try_recv().unwrap().is_none());
        });
    };
    let one = || {
        let (a, b) = brood_ipc::channel::<T, T>().unwrap();
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

/// Returns the number of times that the loop's thread gave up the processor to wait.
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

//! What an idle channel on the loop costs: next to no memory, and no wake-up. Alone in its process,
//! because it looks at the whole of it.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use ipc::Blob;
use std::fs;
use std::time::Duration;

/// What an idle end may cost in resident memory, in bytes: whole pages, with what the allocator
/// keeps. A buffer left behind would be eight times as much. The heap alone is the benchmark's.
const IDLE_BYTES_MAX: usize = 8192;

/// A loop-driven end, with its events.
type End = (ipc::Outlet<Blob>, crossbeam_channel::Receiver<ipc::Event<Blob>>);

#[test]
fn an_idle_end_keeps_no_buffer_and_wakes_nobody() {
    // The first ones pay for the loop, and for buffers that all of them share.
    let _first = used(20);
    let before = resident();
    let held = used(300);
    let grown = resident().saturating_sub(before);
    let each = grown / (2 * held.len());
    assert!(each <= IDLE_BYTES_MAX, "{each} bytes for each end");

    // What came before may still wake it once; what is idle does not do so for ever.
    let (_never, silence) = crossbeam_channel::bounded::<()>(0);
    let quiet = (0..10).any(|_| {
        let switches = switches_of_the_loop();
        let _ = silence.recv_timeout(Duration::from_millis(300));
        switches_of_the_loop() == switches
    });
    assert!(quiet, "the loop is woken again and again");
}

/// Ends that have carried long messages both ways.
fn used(count: usize) -> Vec<(End, End)> {
    let one = || {
        let (a, b) = ipc::channel::<Blob, Blob>().unwrap();
        let (a, b) = (a.events().unwrap(), b.events().unwrap());
        for (from, to) in [(&a, &b), (&b, &a)] {
            from.0.send(Blob::from(vec![1; 100_000])).unwrap();
            let ipc::Event::Message(message) = to.1.recv().unwrap() else { panic!() };
            assert_eq!(message.decode().unwrap().len(), 100_000);
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

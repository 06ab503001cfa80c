//! The memory and the wake-ups of an idle channel on the loop.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

use super::*;

/// The number of channels.
const CHANNELS: usize = 300;

/// The time over which wake-ups are counted.
const WATCH: Duration = Duration::from_millis(500);

/// Measures the heap of one endpoint on the loop, after long messages in both directions.
pub fn measure(context: &Context) -> Measure {
    let mut measure = Measure::new(
        "Heap of an idle endpoint on the loop (its limit is 4096)",
        Unit::Bytes,
        Better::Lower,
    )
    .along("case", Chart::Bars);
    let ours = Contender::new(Role::Ours, "brood", || {
        let figures = ask().map_err(|error| error.to_string())?;
        if figures[1] > 0.0 {
            return Err(format!("{} wake-ups in {WATCH:?}", figures[1]));
        }
        Ok(vec![figures[0]])
    });
    measure.rows.push(context.compare("ipc", ("idle", 0.0), Better::Lower, vec![ours]));
    measure
}

/// Starts a fresh process that holds the channels. Returns bytes and wake-ups.
fn ask() -> Result<Vec<f64>, Failure> {
    let remote = Remote::start("idle", "")?;
    let mut line = String::new();
    BufReader::new(remote.socket.as_ref().ok_or("taken")?).read_line(&mut line)?;
    Ok(line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

/// Holds channels with both endpoints, and answers on standard input, which is a socket.
pub fn role(_extra: &str) -> Result<(), Failure> {
    // The first channels allocate the loop and everything that all channels share.
    let _first = hold(10)?;
    let before = heap();
    let _held = hold(CHANNELS)?;
    let bytes = heap().saturating_sub(before) as f64 / (2 * CHANNELS) as f64;
    let (_never, silence) = mpsc::channel::<()>();
    // The loop may still be handling the last message.
    let _ = silence.recv_timeout(WATCH / 5);
    let switches = crate::idle::switches().map_err(|error| error.to_string())?;
    let _ = silence.recv_timeout(WATCH);
    // The end of this wait is one of the wake-ups.
    let woken = crate::idle::switches().map_err(|e| e.to_string())?.saturating_sub(switches + 1);
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    Ok(writeln!(socket, "{bytes} {woken}")?)
}

fn hold(count: usize) -> Result<Vec<impl Sized>, Failure> {
    let mut all = Vec::new();
    for _ in 0..count {
        let (a, b) = ipc::channel::<Vec<u8>, Vec<u8>>()?;
        let ends = (a.into_events()?, b.into_events()?);
        ends.0.0.send(&vec![1; 100_000])?;
        ends.1.0.send(&vec![1; 100_000])?;
        ends.0.1.recv()?;
        ends.1.1.recv()?;
        all.push(ends);
    }
    Ok(all)
}

/// Returns the number of allocated bytes.
fn heap() -> usize {
    // SAFETY: the call takes nothing and returns numbers.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

//! Our load generator, and the cost of a server and its children.
//!
//! One thread runs a fixed number of clients. Each client sends its next request after the answer
//! to the last one. On two processors the clients take as much time as the servers. The rate
//! therefore shows both together; the processor time of the servers' processes belongs to the
//! servers alone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stats::quantile;

/// The results of a load.
#[derive(Debug, Default)]
pub struct Load {
    pub requests: u64,
    pub failed: u64,
    pub seconds: f64,
    /// The number of answers by worker.
    pub by_worker: BTreeMap<String, u64>,
    /// The time of a request in nanoseconds, if the generator measures it.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

/// The use of connections by the clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Connections {
    /// One connection for all requests of a client.
    Kept,
    /// A new connection for each request.
    New,
}

/// Loads `address` with `clients` clients until the time is over or there are `most` answers.
pub fn run(
    address: SocketAddr,
    clients: usize,
    (time, most): (Duration, u64),
    connections: Connections,
) -> io::Result<Load> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begin = Instant::now();
    let until = begin + time;
    let mut load = runtime.block_on(async {
        let each = most / clients as u64;
        let clients: Vec<_> = (0..clients)
            .map(|_| tokio::spawn(client(address, (until, each), connections)))
            .collect();
        let (mut all, mut times) = (Load::default(), Vec::new());
        for client in clients {
            let (one, taken) = client.await.map_err(io::Error::other)?;
            times.extend(taken);
            all.requests += one.requests;
            all.failed += one.failed;
            for (worker, count) in one.by_worker {
                *all.by_worker.entry(worker).or_default() += count;
            }
        }
        (all.p50, all.p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
        io::Result::Ok(all)
    })?;
    load.seconds = begin.elapsed().as_secs_f64();
    Ok(load)
}

/// Makes one request on a connection of its own, and returns the body.
pub async fn ask_once(address: SocketAddr) -> io::Result<String> {
    ask(address, &mut None, Connections::New).await
}

/// Runs one client, and returns the nanoseconds of each answer.
async fn client(
    address: SocketAddr,
    (until, most): (Instant, u64),
    connections: Connections,
) -> (Load, Vec<f64>) {
    let (mut load, mut times) = (Load::default(), Vec::new());
    let mut kept = None;
    while load.requests < most {
        let begin = Instant::now();
        if begin >= until {
            break;
        }
        let asked = ask(address, &mut kept, connections);
        // A server that hangs counts as a failure, so that the benchmark ends.
        let asked = tokio::time::timeout(Duration::from_secs(5), asked).await;
        match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(worker) => {
                load.requests += 1;
                times.push(begin.elapsed().as_nanos() as f64);
                *load.by_worker.entry(worker).or_default() += 1;
            }
            Err(_) => {
                load.failed += 1;
                kept = None;
            }
        }
    }
    (load, times)
}

async fn ask(
    address: SocketAddr,
    kept: &mut Option<TcpStream>,
    connections: Connections,
) -> io::Result<String> {
    let request: &[u8] = match connections {
        Connections::Kept => b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n",
        Connections::New => b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n",
    };
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => TcpStream::connect(address).await?,
    };
    stream.write_all(request).await?;
    let mut bytes = Vec::with_capacity(512);
    let body = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(body) = body(&bytes) {
            break body;
        }
    };
    if connections == Connections::Kept {
        *kept = Some(stream);
    }
    Ok(body)
}

/// Returns the body, once it is complete. The servers end it with a line break, and send it in one
/// chunk or with a length.
fn body(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, tail) = text.split_once("\r\n\r\n")?;
    // Node sends no length. A chunked body ends with an empty chunk.
    let chunked = text.contains("chunked");
    let whole = if chunked { tail.ends_with("0\r\n\r\n") } else { tail.ends_with('\n') };
    let line = tail.lines().find(|line| line.starts_with("hello"));
    whole.then(|| line.unwrap_or_default().to_owned())
}

/// Returns the processor time, in nanoseconds, of `root` alone and of `root` with all descendants.
pub fn processor_time(root: u32) -> (f64, f64) {
    let mut family = vec![root];
    let parents = parents();
    let mut at = 0;
    while at < family.len() {
        let parent = family[at];
        family.extend(parents.iter().filter(|pair| pair.1 == parent).map(|pair| pair.0));
        at += 1;
    }
    let times: Vec<f64> = family.iter().map(|&pid| one(pid)).collect();
    (times[0], times.iter().sum())
}

/// Returns the resident memory of one process, in bytes.
pub fn resident(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: f64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096.0)
}

/// Returns the children of a process.
pub fn children(parent: u32) -> Vec<u32> {
    parents().into_iter().filter(|pair| pair.1 == parent).map(|pair| pair.0).collect()
}

/// Returns every process with its parent.
fn parents() -> Vec<(u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        Some((pid, parent))
    })
    .collect()
}

/// Returns the processor time of all threads of a process, as the scheduler counts it.
fn one(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let times = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    times.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_taken_when_it_is_whole() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n";
        assert_eq!(body(format!("{head}hello from").as_bytes()), None);
        let whole = format!("{head}hello from worker 2\n");
        assert_eq!(body(whole.as_bytes()).as_deref(), Some("hello from worker 2"));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello\n\r\n";
        assert_eq!(body(chunked.as_bytes()), None);
        assert_eq!(body(format!("{chunked}0\r\n\r\n").as_bytes()).as_deref(), Some("hello"));
    }

    #[test]
    fn processor_time_grows_with_work() {
        let (before, _) = processor_time(std::process::id());
        let mut sum = 0_u64;
        for i in 0..50_000_000_u64 {
            sum = std::hint::black_box(sum + i);
        }
        let (after, all) = processor_time(std::process::id());
        assert!(after > before && all >= after, "{before} {after} {all} {sum}");
    }
}

//! The load generator `wrk`, where it is installed.
//!
//! `wrk` does not report the share of each worker. Our own generator measures it.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::load::{Connections, Load};

/// Returns whether `wrk` is installed.
pub fn is_installed() -> bool {
    let quiet = Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok()
}

/// Loads `address` on one thread with `clients` clients, and waits for the end.
///
/// # Errors
///
/// `wrk` does not start, or prints an unexpected text.
pub fn run(
    address: SocketAddr,
    clients: usize,
    time: Duration,
    connections: Connections,
) -> Result<Load, String> {
    let mut command = Command::new("wrk");
    // `wrk` accepts whole seconds only.
    let seconds = time.as_secs().max(1);
    command.args(["-t1", "--latency", "--timeout", "5s"]);
    command.args([format!("-c{clients}"), format!("-d{seconds}s")]);
    if connections == Connections::New {
        command.args(["-H", "Connection: close"]);
    }
    let output = command.arg(format!("http://{address}/")).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).ok_or_else(|| format!("wrk said {text:?}"))
}

fn parse(text: &str) -> Option<Load> {
    let mut load = Load::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [count, "requests", "in", time, ..] => {
                load.requests = count.parse().ok()?;
                load.seconds = nanoseconds(time.trim_end_matches(','))? / 1e9;
            }
            ["Socket", "errors:", rest @ ..] => {
                let counts = rest.iter().map(|word| word.trim_end_matches(',').parse::<u64>());
                load.failed += counts.flatten().sum::<u64>();
            }
            ["Non-2xx", .., count] => load.failed += count.parse::<u64>().ok()?,
            ["50%", time] => load.p50 = nanoseconds(time),
            ["99%", time] => load.p99 = nanoseconds(time),
            _ => {}
        }
    }
    (load.seconds > 0.0).then_some(load)
}

fn nanoseconds(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let scale = match &text[split..] {
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        _ => return None,
    };
    Some(text[..split].parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_output_is_understood() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  Latency Distribution\n     50%  616.00us\n     \
                    99%    1.85ms\n  51842 requests in 1.10s, 6.82MB read\n  \
                    Socket errors: connect 0, read 2, write 1, timeout 0\nRequests/sec:  47112.06\n";
        let load = parse(text).unwrap();
        assert_eq!((load.requests, load.failed), (51842, 3));
        assert_eq!((load.p50, load.p99), (Some(616_000.0), Some(1_850_000.0)));
        assert!((load.seconds - 1.1).abs() < 1e-9);
        assert!(parse("unable to connect").is_none());
    }
}

//! A Rust primary for an unmodified Node application.
//!
//! The application calls `listen` as usual. In a worker of a cluster, Node passes the call on to
//! the primary, which opens the port once and dispatches the connections. The primary replaces
//! workers that die, and dispatches the connections that they had not accepted to the others.
//!
//! ```text
//! cargo run --release --example node_cluster -- APP.js [--workers N] [--policy rr|none] [-- ARGS…]
//! ```
//!
//! You will see `listening on http://127.0.0.1:8000 with 2 workers (primary pid …)` for an
//! application on port 8000, and on standard error a line for each event of a worker: `fork 1`,
//! `online 1`, `listening 1 127.0.0.1:8000`, `exit 1 SIGKILL`. Arguments after `--` are for the
//! application. The environment variable `NODE=PATH` selects another Node than the one in `PATH`.
//!
//! SIGTERM or Ctrl-C ends the program after the requests in progress have been answered. A second
//! signal ends it at once.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::io::Write;
use std::process::ExitCode;

use cluster::{Error, Event, Policy, Primary, WorkerOptions};

const USAGE: &str = "usage: node_cluster APP.js [--workers N] [--policy rr|none] [-- ARGS…]";

fn main() -> ExitCode {
    brood::init().expect("process 1 has one thread at this point");
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("node_cluster: {why}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    match supervise(options) {
        Ok(()) => ExitCode::SUCCESS,
        // The end was requested before the start was complete, which is no failure.
        Err(Error::NotRunning) => ExitCode::SUCCESS,
        Err(Error::Interrupted(signal)) => {
            ExitCode::from(128 + u8::try_from(signal.number()).unwrap_or(0))
        }
        Err(error) => {
            write_line(std::io::stderr(), &format!("node_cluster: {error:?}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line, and ignores errors: the server continues after the reader of its log has gone.
fn write_line(mut to: impl Write, line: &str) {
    let _ = writeln!(to, "{line}");
}

fn supervise(options: Options) -> Result<(), Error> {
    let workers = options.workers;
    let mut worker = WorkerOptions::new().exec(options.app).args(options.args);
    if let Some(node) = std::env::var_os("NODE") {
        worker = worker.exec_path(node);
    }
    let primary = Primary::builder()
        .worker(worker)
        .workers(workers)
        .policy(options.policy)
        .shutdown_on_signals()
        .build()?;
    let events = primary.take_events().expect("the first call");
    primary.start();
    std::thread::scope(|scope| {
        let ready = scope.spawn(|| {
            primary.ready()?;
            let address = primary.address().map_or_else(String::new, |at| at.to_string());
            let pid = std::process::id();
            let line =
                format!("listening on http://{address} with {workers} workers (primary pid {pid})");
            write_line(std::io::stdout(), &line);
            Ok(())
        });
        // The loop ends with the last worker.
        for event in events {
            match event {
                Event::Message { .. } => {}
                event => write_line(std::io::stderr(), &event.to_string()),
            }
        }
        ready.join().unwrap_or(Ok(())).and_then(|()| primary.wait())
    })
}

struct Options {
    app: String,
    workers: u32,
    policy: Policy,
    args: Vec<String>,
}

impl Options {
    /// Reads the flags. Returns `None` for `--help`.
    fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let cpus = u32::try_from(os_info::available_parallelism().get()).unwrap_or(u32::MAX);
        let mut options = Self {
            app: String::new(),
            workers: cpus.clamp(2, cluster::Builder::WORKERS_MAX),
            policy: Policy::RoundRobin,
            args: Vec::new(),
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            if arg == "--" {
                options.args = args.collect();
                break;
            }
            if !arg.starts_with('-') && options.app.is_empty() {
                options.app = arg;
                continue;
            }
            let (flag, inline) = match arg.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (arg, None),
            };
            let mut value = || match inline.clone().or_else(|| args.next()) {
                Some(value) => Ok(value),
                None => Err(format!("{flag} needs a value")),
            };
            match flag.as_str() {
                "--workers" => {
                    let text = value()?;
                    let number = text.parse().ok();
                    let fits = number.filter(|it| (1..=cluster::Builder::WORKERS_MAX).contains(it));
                    let most = cluster::Builder::WORKERS_MAX;
                    options.workers = fits.ok_or_else(|| {
                        format!("{flag} must be a number from 1 to {most}, not '{text}'")
                    })?;
                }
                "--policy" => {
                    options.policy = value()?.parse().map_err(|why| format!("{flag}: {why}"))?;
                }
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown argument '{flag}'")),
            }
        }
        if options.app.is_empty() {
            return Err("no application is named".to_owned());
        }
        Ok(Some(options))
    }
}

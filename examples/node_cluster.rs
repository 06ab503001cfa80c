//! A Rust primary for an unmodified Node application.
//!
//! The application calls `listen` as usual. In a worker of a cluster, Node passes the call on to
//! the primary, which opens the port once and dispatches the connections. The primary replaces
//! workers that die, and dispatches the connections that they had not accepted to the others.
//!
//! ```text
//! cargo run --release --example node_cluster -- APP.js [FLAGS] [-- ARGS…]
//! ```
//!
//! | flag | |
//! |---|---|
//! | `--workers N` | number of workers; by default one for each processor, and at least 2 |
//! | `--policy NAME` | `rr`, `none`, `least-loaded`, `sticky` or `reuse-port` |
//! | `--listens no` | the workers open no port: they are ready at once, and not only after 10 s |
//! | `--reload-on-hangup` | SIGHUP replaces all workers, one after the other |
//! | `--relay` | sends every message of a worker to all other workers |
//! | `--ready-ms N` | time for the start of a worker: 30,000 |
//! | `--disconnect-ms N` | time for the requests of a worker that ends, before SIGTERM: 9,000 |
//! | `--terminate-ms N` | time after SIGTERM, before SIGKILL: 18,000 |
//! | `--sigterm-ms N` | SIGTERM already after this time, for an application that handles it |
//! | `--inspect[=[HOST:]PORT]` | an inspector in each worker: from port 9230 or PORT + 1 on |
//!
//! You will see `listening on http://127.0.0.1:8000 with 2 workers (primary pid …)` for an
//! application on port 8000, and on standard error a line for each event of a worker: `fork 1`,
//! `online 1`, `listening 1 127.0.0.1:8000`, `exit 1 SIGKILL`. Arguments after `--` are for the
//! application. The environment variable `NODE=PATH` selects another Node than the one in `PATH`.
//!
//! An application that passes messages between its workers in the branch of its own primary needs
//! `--relay`, because that branch does not run. An application with WebSockets or other long
//! connections should close them on SIGTERM, and then be run with `--sigterm-ms 0`.
//!
//! SIGTERM or Ctrl-C ends the program after the requests in progress have been answered. A second
//! signal ends it at once.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use cluster::{Builder, Error, Event, Policy, Primary, WorkerOptions};

const USAGE: &str = "usage: node_cluster APP.js [--workers N] \
                     [--policy rr|none|least-loaded|sticky|reuse-port] [--listens yes|no] \
                     [--reload-on-hangup] [--relay] [--ready-ms N] [--disconnect-ms N] \
                     [--terminate-ms N] [--sigterm-ms N] [--inspect[=[HOST:]PORT]] [-- ARGS…]";

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
    let primary = options.builder().build()?;
    let events = primary.take_events().expect("the first call");
    primary.start();
    std::thread::scope(|scope| {
        let ready = scope.spawn(|| {
            primary.ready()?;
            let address = primary.address();
            let state =
                address.map_or("running".to_owned(), |at| format!("listening on http://{at}"));
            let pid = std::process::id();
            let line = format!("{state} with {workers} workers (primary pid {pid})");
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
    policy: Option<Policy>,
    listens: Option<bool>,
    reload_on_hangup: bool,
    relay: bool,
    ready: Option<Duration>,
    disconnect: Option<Duration>,
    terminate: Option<Duration>,
    sigterm: Option<Duration>,
    inspect: Option<String>,
    args: Vec<String>,
}

impl Options {
    /// Reads the flags. Returns `None` for `--help`.
    fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let cpus = u32::try_from(os_info::available_parallelism().get()).unwrap_or(u32::MAX);
        let mut options = Self {
            app: String::new(),
            workers: cpus.clamp(2, cluster::Builder::WORKERS_MAX),
            policy: None,
            listens: None,
            reload_on_hangup: false,
            relay: false,
            ready: None,
            disconnect: None,
            terminate: None,
            sigterm: None,
            inspect: None,
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
                    options.workers = number(&flag, &value()?, 1, Builder::WORKERS_MAX)?;
                }
                "--policy" => {
                    let policy = value()?.parse().map_err(|why| format!("{flag}: {why}"))?;
                    options.policy = Some(policy);
                }
                "--listens" => {
                    options.listens = match value()?.as_str() {
                        "yes" => Some(true),
                        "no" => Some(false),
                        other => return Err(format!("{flag} must be yes or no, not '{other}'")),
                    }
                }
                "--reload-on-hangup" if inline.is_none() => options.reload_on_hangup = true,
                "--relay" if inline.is_none() => options.relay = true,
                "--ready-ms" => options.ready = Some(milliseconds(&flag, &value()?)?),
                "--disconnect-ms" => options.disconnect = Some(milliseconds(&flag, &value()?)?),
                "--terminate-ms" => options.terminate = Some(milliseconds(&flag, &value()?)?),
                "--sigterm-ms" => options.sigterm = Some(milliseconds(&flag, &value()?)?),
                "--inspect" => {
                    options.inspect = Some(match inline {
                        Some(at) => format!("{flag}={at}"),
                        None => flag,
                    });
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

    /// Returns the options of the primary. A limit that no flag names has its default.
    fn builder(self) -> Builder {
        let mut worker = WorkerOptions::new().exec(self.app).args(self.args);
        if let Some(node) = std::env::var_os("NODE") {
            worker = worker.exec_path(node);
        }
        if let Some(inspect) = self.inspect {
            worker = worker.exec_argv([inspect]);
        }
        let mut builder =
            Primary::builder().worker(worker).workers(self.workers).shutdown_on_signals();
        if let Some(listens) = self.listens {
            builder = builder.listens(listens);
        }
        if let Some(policy) = self.policy {
            builder = builder.policy(policy);
        }
        if self.reload_on_hangup {
            builder = builder.reload_on_hangup();
        }
        if self.relay {
            builder = builder.relay();
        }
        if let Some(limit) = self.ready {
            builder = builder.ready_within(limit);
        }
        if let Some(limit) = self.disconnect {
            builder = builder.disconnect_within(limit);
        }
        if let Some(limit) = self.terminate {
            builder = builder.terminate_within(limit);
        }
        if let Some(delay) = self.sigterm {
            builder = builder.sigterm_after(delay);
        }
        builder
    }
}

fn number(flag: &str, text: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{flag} must be a number from {least} to {most}, not '{text}'"))
}

fn milliseconds(flag: &str, text: &str) -> Result<Duration, String> {
    number(flag, text, 0, u32::MAX).map(|number| Duration::from_millis(number.into()))
}

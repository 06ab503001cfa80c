//! An HTTP server: several worker processes share one port, and dead workers are replaced.
//!
//! The same program is primary and worker. The primary opens the port, dispatches the connections
//! in turn and starts a new worker in the place of each dead one. The workers answer with axum.
//!
//! ```text
//! cargo run --release --example http_cluster -- [--port 8000 | --unix PATH|@NAME] [--workers N]
//!                                               [--policy rr|none|least-loaded|sticky|reuse-port]
//!                                               [--delay-ms 0] [--no-restart] [--harden]
//! ```
//!
//! You will see `listening on http://127.0.0.1:8000 with 2 workers (primary pid …)`. Then use
//! another terminal:
//!
//! - `curl http://127.0.0.1:8000/` gets an answer from the workers in turn.
//! - `curl http://127.0.0.1:8000/crash` kills the worker that it reaches; the primary replaces the
//!   worker at once.
//! - `kill -HUP PID` of the primary replaces all workers without refusing a connection, and prints
//!   `reloaded`.
//! - With `--harden` a captured worker could do next to nothing but serve. Started by root, the workers
//!   are `nobody`, who must be able to reach this program.
//! - `curl --unix-socket /tmp/app.sock http://localhost/` is the client with `--unix /tmp/app.sock`.
//!
//! Ctrl-C ends the program after the requests in progress have been answered. A second Ctrl-C ends
//! it at once.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use cluster::{
    Address, AsyncListener, AsyncStream, Builder, Error, Event, ListenOptions, Listener, Policy,
    Primary, Restart, Worker, WorkerOptions,
};

const USAGE: &str = "usage: http_cluster [--port PORT | --unix PATH|@NAME] [--workers N] \
                     [--policy rr|none|least-loaded|sticky|reuse-port] [--delay-ms MS] \
                     [--no-restart] [--harden]";

fn main() -> ExitCode {
    brood::init().expect("process 1 has one thread at this point");
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("http_cluster: {why}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    let done = match Worker::current() {
        Some(worker) => serve(&worker, &options),
        None => supervise(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The end was requested before the start was complete, which is no failure.
        Err(Error::Closed | Error::NotRunning) => ExitCode::SUCCESS,
        Err(Error::Interrupted(signal)) => {
            ExitCode::from(128 + u8::try_from(signal.number()).unwrap_or(0))
        }
        // The primary reports an address that cannot be opened, once for all its workers.
        Err(Error::Listen { .. }) if Worker::current().is_some() => ExitCode::FAILURE,
        Err(error) => {
            write_line(std::io::stderr(), &format!("http_cluster: {error:?}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line, and ignores errors: the server continues after the reader of its log has gone.
fn write_line(mut to: impl Write, line: &str) {
    let _ = writeln!(to, "{line}");
}

/// Runs the primary: starts the workers, prints the events, and waits for the end.
fn supervise(options: &Options) -> Result<(), Error> {
    let restart = if options.restart { Restart::Always } else { Restart::Never };
    let mut builder = Primary::builder();
    if options.harden {
        if os_info::user_info().is_ok_and(|user| user.uid == 0) {
            const NOBODY: u32 = 65_534;
            builder = builder.worker(WorkerOptions::new().uid(NOBODY).gid(NOBODY));
        }
        builder = builder.harden();
    }
    let primary = builder
        .workers(options.workers)
        .policy(options.policy)
        .restart(restart)
        .shutdown_on_signals()
        .reload_on_hangup()
        .build()?;
    let events = primary.take_events().expect("the first call");
    primary.start();
    primary.ready()?;
    let address = match primary.address() {
        Some(address @ Address::Tcp { .. }) => format!("http://{address}"),
        address => address.map_or_else(String::new, |address| address.to_string()),
    };
    let (workers, pid) = (options.workers, std::process::id());
    write_line(
        std::io::stdout(),
        &format!("listening on {address} with {workers} workers (primary pid {pid})"),
    );
    // The loop ends with the last worker.
    for event in events {
        match event {
            Event::Message { .. } => {}
            event => write_line(std::io::stderr(), &event.to_string()),
        }
    }
    primary.wait()
}

/// Runs a worker: an ordinary axum server whose listener comes from the primary.
fn serve(worker: &Worker, options: &Options) -> Result<(), Error> {
    let (id, pid) = (worker.id(), std::process::id());
    let delay = Duration::from_millis(options.delay_ms);
    let app = Router::new()
        .route(
            "/",
            get(move || async move {
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                format!("hello from worker {id} (pid {pid})\n")
            }),
        )
        .route("/crash", get(|| async { std::process::abort() as () }));
    let listening = ListenOptions::new();
    match options.unix.clone() {
        None => run(worker, cluster::listen(("127.0.0.1", options.port))?, app),
        Some(address) => run(worker, listening.listen_at::<UnixStream>(address)?, app),
    }
}

fn run<S: AsyncStream>(worker: &Worker, listener: Listener<S>, app: Router) -> Result<(), Error>
where
    AsyncListener<S>: axum::serve::Listener<Addr: std::fmt::Debug>,
{
    let failed = |call| move |source| Error::Os(call, source);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(failed("start tokio"))?.block_on(async {
        let listener = AsyncListener::new(listener)?;
        axum::serve(listener, app)
            .with_graceful_shutdown(worker.draining())
            .await
            .map_err(failed("serve"))
    })
}

struct Options {
    port: u16,
    /// The Unix socket to listen on in the place of a port.
    unix: Option<Address>,
    workers: u32,
    policy: Policy,
    delay_ms: u64,
    restart: bool,
    harden: bool,
}

impl Options {
    /// Reads the flags. Returns `None` for `--help`.
    fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let cpus = u32::try_from(os_info::available_parallelism().get()).unwrap_or(u32::MAX);
        let mut options = Self {
            port: 8000,
            unix: None,
            workers: cpus.clamp(2, Builder::WORKERS_MAX),
            policy: Policy::RoundRobin,
            delay_ms: 0,
            restart: true,
            harden: false,
        };
        let mut args = args;
        while let Some(arg) = args.next() {
            let (flag, inline) = match arg.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (arg, None),
            };
            let mut value = || match inline.clone().or_else(|| args.next()) {
                Some(value) => Ok(value),
                None => Err(format!("{flag} needs a value")),
            };
            match flag.as_str() {
                "--port" => options.port = number(&flag, &value()?, 0, u16::MAX)?,
                "--unix" => {
                    let name = value()?;
                    options.unix = Some(match name.strip_prefix('@') {
                        Some(name) => Address::UnixAbstract(name.as_bytes().to_vec()),
                        None => Address::UnixPath(name.into()),
                    });
                }
                "--workers" => {
                    options.workers = number(&flag, &value()?, 1, Builder::WORKERS_MAX)?;
                }
                "--policy" => {
                    options.policy = value()?.parse().map_err(|why| format!("{flag}: {why}"))?;
                }
                "--delay-ms" => options.delay_ms = number(&flag, &value()?, 0, 3_600_000)?,
                "--harden" if inline.is_none() => options.harden = true,
                "--no-restart" if inline.is_none() => options.restart = false,
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown flag '{flag}'")),
            }
        }
        Ok(Some(options))
    }
}

/// Reads a number between two bounds, both included. The error is a text for the user.
fn number<N>(flag: &str, text: &str, least: N, most: N) -> Result<N, String>
where
    N: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match text.parse() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(format!("{flag} must be a number from {least} to {most}, not '{text}'")),
    }
}

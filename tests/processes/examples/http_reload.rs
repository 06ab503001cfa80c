//! Reloads of the example `http_cluster` under load, as its users see them.

use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use sys::signal::{self, Signal};

use crate::harness::{apply, storm};
use crate::support::http_server::{Client, Server};

/// The outcomes of the clients of one kind.
#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    /// The number of kept-alive connections that the server had closed before their next request.
    closed_idle: AtomicU64,
}

/// Runs 200 reloads in a row under clients of one request and of many, 40 outside of CI.
///
/// A kept-alive connection that the server closes between two requests is no failure: the request
/// finds it closed, without a byte of an answer, and is repeated on a new connection.
#[apply(storm)]
fn reloads_in_a_row_fail_no_request() {
    reload_under_load("rr", if std::env::var_os("CI").is_some() { 200 } else { 40 });
}

#[apply(storm)]
fn reloads_fail_no_request_where_the_workers_accept_by_themselves() {
    reload_under_load("none", 20);
}

fn reload_under_load(policy: &str, reloads: u64) {
    let mut server = Server::start(&["--workers", "2", "--policy", policy]);
    let mut log = BufReader::new(server.child.stderr.take().unwrap());
    let descriptors = open_descriptors(server.pid());
    let stop = AtomicBool::new(false);
    let (short, kept) = (Seen::default(), Seen::default());
    thread::scope(|scope| {
        let end = Stop(&stop);
        for _ in 0..4 {
            scope.spawn(|| one_request_each(&server, &short, &stop));
            scope.spawn(|| many_requests_each(&server, &kept, &stop));
        }
        for _ in 0..reloads {
            signal::kill(server.pid(), Signal::HUP).unwrap();
            wait_for_reload(&mut log);
        }
        drop(end);
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{reloads} reloads: {} short requests, {} kept-alive requests answered, none failed; \
         {} idle connections closed",
        count(&short.answered),
        count(&kept.answered),
        count(&kept.closed_idle)
    );
    assert!(count(&short.answered) > reloads && count(&kept.answered) > reloads);
    assert_eq!(server.workers().len(), 2, "no old worker is left");
    // The last connection may still be on its way to its worker.
    let settled = (0..1000).any(|_| {
        server.get("/");
        open_descriptors(server.pid()) == descriptors
    });
    assert!(settled, "{} descriptors, before {descriptors}", open_descriptors(server.pid()));
    signal::kill(server.pid(), Signal::TERM).unwrap();
    // The thread drains the rest of the log, so that the server does not block on it.
    thread::spawn(move || log.lines().for_each(drop));
    assert!(server.child.wait().unwrap().success());
}

/// Stops the clients on drop, also when the test fails early.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn wait_for_reload(log: &mut BufReader<ChildStderr>) {
    loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the server ended");
        assert!(!line.starts_with("error"), "{line}");
        if line == "reloaded\n" {
            return;
        }
    }
}

fn one_request_each(server: &Server, seen: &Seen, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        assert!(server.get("/").starts_with("hello from worker"));
        seen.answered.fetch_add(1, Ordering::Relaxed);
    }
}

fn many_requests_each(server: &Server, seen: &Seen, stop: &AtomicBool) {
    let mut client: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        let again = client.is_some();
        let mut connected = client.take().unwrap_or_else(|| server.connect());
        match connected.try_get("/", "keep-alive") {
            Some(answer) => {
                assert!(answer.starts_with("hello from worker"), "{answer}");
                seen.answered.fetch_add(1, Ordering::Relaxed);
                client = Some(connected);
            }
            None => {
                assert!(again, "the first request of a connection failed");
                seen.closed_idle.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn open_descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

//! Signals to all processes of a service, as service managers and `pkill` send them.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::Duration;

use child_process::{ExitStatus, Signal, Stdio, Terminal};
use cluster::{Event, Policy, Primary, Restart, Worker, WorkerSignals};
use sys::signal::{SignalWatch, kill};

use super::shutdown::ask_until_the_end;
use crate::harness::{apply, case, role, storm};
use crate::support::http_server::{Client, Server};
use crate::support::pool::Pool;
use crate::support::{Folder, WAIT_MAX, eventually, example, wait};

/// Signals the primary and all of its workers, the primary first or last.
fn signal_all(primary: u32, mut workers: Vec<u32>, signal: Signal, primary_first: bool) {
    let at = if primary_first { 0 } else { workers.len() };
    workers.insert(at, primary);
    // A worker may have ended.
    workers.into_iter().for_each(|pid| drop(kill(pid, signal)));
}

/// Eight requests are under way when all processes get the signal: all are answered.
fn answers_all(signal: Signal, primary_first: bool) {
    let server = Server::start(&["--workers", "2", "--delay-ms", "700"]);
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.ask("/", "close");
        client.wait_until_read();
    }
    let before = server.workers();
    signal_all(server.pid(), before.clone(), signal, primary_first);
    for mut client in clients {
        let answer = client.answer().expect("answered");
        assert!(answer.starts_with("hello from worker "), "{answer}");
    }
    if signal == Signal::HUP {
        eventually("all workers are new", || {
            let after = server.workers();
            (after.len() == 2 && after.iter().all(|pid| !before.contains(pid))).then_some(())
        });
        signal_all(server.pid(), server.workers(), Signal::TERM, primary_first);
    }
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("SIG") && !log.contains("error"), "no worker has crashed:\n{log}");
}

#[apply(case)]
fn a_signal_to_all_processes_of_a_service_cuts_no_request() {
    for signal in [Signal::TERM, Signal::HUP] {
        for primary_first in [true, false] {
            answers_all(signal, primary_first);
        }
    }
}

/// `SIGHUP` to all processes again and again, and at last `SIGTERM`, under sixteen clients.
#[apply(storm)]
fn reloads_and_the_end_by_signals_to_all_processes_lose_nobody() {
    for policy in [Policy::RoundRobin, Policy::ReusePort] {
        let builder = Primary::builder().workers(3).policy(policy);
        let builder = builder.reload_on_hangup().shutdown_on_signals();
        let pool = Pool::of(builder, &["serve_one_by_one", "1"]);
        let rounds = if std::env::var_os("CI").is_some() { 20 } else { 6 };
        let (seen, pool) = ask_until_the_end(pool, |pool| {
            let pids = || pool.primary.workers().iter().map(|it| it.pid()).collect();
            for round in 0..rounds {
                signal_all(std::process::id(), pids(), Signal::HUP, round % 2 == 0);
                pool.next("reload", |event| match event {
                    Event::Error { error, .. } => panic!("{error:?}"),
                    event => matches!(event, Event::Reloaded),
                });
                wait(Duration::from_millis(50));
            }
            signal_all(std::process::id(), pids(), Signal::TERM, rounds % 2 == 0);
        });
        println!("{policy:?}: {} answered, {} dropped", seen.answered, seen.dropped);
        assert_eq!(seen.dropped, 0);
        for event in pool.events() {
            if let Event::Exit { worker, status } = event {
                assert_eq!(status, ExitStatus::Code(0), "{worker:?}");
            }
        }
    }
}

/// One worker alone: `SIGINT` and `SIGHUP` have no effect, `SIGTERM` begins a drain.
#[apply(case)]
fn a_worker_drains_on_sigterm_and_leaves_other_signals_to_its_primary() {
    let builder = Primary::builder().workers(1).restart(Restart::Never).listens(false);
    let steps = ["life", "say=here", "await", "say=still here", "drain"];
    let pool = Pool::of(builder, &steps);
    assert_eq!(pool.said::<String>().1, "here");
    let worker = pool.worker(1);
    for signal in [Signal::INT, Signal::HUP] {
        kill(worker.pid(), signal).expect("it runs");
    }
    worker.send("go on").expect("sent");
    assert_eq!(pool.said::<String>().1, "still here");
    kill(worker.pid(), Signal::TERM).expect("it runs");
    assert_eq!(pool.exit(1), ExitStatus::Code(0));
    assert_eq!(worker.exited_after_disconnect(), Some(true));
}

/// Waits until the process has taken a signal: the kernel makes one signal of two that are pending.
fn wait_until_taken(pid: u32, signal: Signal) {
    eventually("the signal is taken", || {
        // The process may have ended.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        let pending = line.map_or(0, |line| u64::from_str_radix(line.trim(), 16).expect("a mask"));
        (pending & (1 << (signal.number() - 1)) == 0).then_some(())
    });
}

/// A worker that does not end by its first `SIGTERM` ends by the second, by the primary's when its
/// time is up, and by `WorkerProcess::kill`.
#[apply(case)]
fn a_worker_that_does_not_drain_ends_by_a_later_sigterm() {
    for ends in ["second", "primary", "kill"] {
        let limit = Duration::from_millis(if ends == "primary" { 300 } else { 20_000 });
        let builder = Primary::builder().workers(1).restart(Restart::Never).listens(false);
        let builder = builder.disconnect_within(limit);
        let pool = Pool::of(builder, &["life", "say=here", "for-ever"]);
        assert_eq!(pool.said::<String>().1, "here");
        let worker = pool.worker(1);
        kill(worker.pid(), Signal::TERM).expect("it runs");
        wait_until_taken(worker.pid(), Signal::TERM);
        match ends {
            "second" => {
                kill(worker.pid(), Signal::TERM).expect("it runs");
            }
            "kill" => drop(worker.kill(Signal::TERM).expect("it runs")),
            _ => {}
        }
        assert_eq!(pool.exit(1), ExitStatus::Signal(Signal::TERM), "{ends}");
    }
}

/// `late SOCKET MODE`: connects to the socket, waits until the other side closes the connection, and
/// becomes a worker only then.
#[apply(role)]
fn late(args: &[String]) {
    let mut test = UnixStream::connect(&args[0]).expect("the test listens");
    assert_eq!(test.read(&mut [0]).expect("read"), 0);
    let own = (args[1] == "handles").then(|| SignalWatch::new(&[Signal::TERM]).expect("watched"));
    let signals = match args[1].as_str() {
        "untouched" => WorkerSignals::Untouched,
        _ => WorkerSignals::Drain,
    };
    let worker = Worker::current_with(signals).expect("started by a primary");
    if let Some(own) = own {
        assert!(sys::poll::readable(own.as_fd(), Some(WAIT_MAX)).expect("poll"));
        assert_eq!(own.take(), [Signal::TERM]);
        assert!(!worker.draining().has_begun(), "the program handles the signal itself");
    }
    worker.send("here").expect("connected");
    worker.draining().wait();
}

/// Starts a worker that becomes one late; returns the pool, the worker's pid, and the connection whose
/// end the worker waits for.
fn start_late(mode: &str) -> (Pool, u32, UnixStream) {
    let folder = Folder::new("late");
    let path = folder.0.join("socket");
    let listener = UnixListener::bind(&path).expect("bind");
    let builder = Primary::builder().workers(1).restart(Restart::Never).listens(false);
    let pool = Pool::of(builder, &["late", path.to_str().expect("text"), mode]);
    assert!(sys::poll::readable(listener.as_fd(), Some(WAIT_MAX)).expect("poll"), "no worker came");
    let waiting = listener.accept().expect("connected").0;
    match pool.next("fork", |event| matches!(event, Event::Fork { .. })) {
        Event::Fork { worker } => (pool, worker.pid(), waiting),
        _ => unreachable!("not asked for"),
    }
}

/// A signal to all processes of a service may come before a worker has called `Worker::current()`.
#[apply(case)]
fn signals_before_the_runtime_wait_for_it() {
    for (mode, signals, ends) in [
        ("drains", &[Signal::HUP, Signal::INT][..], None),
        ("drains", &[Signal::HUP, Signal::TERM], Some(ExitStatus::Code(0))),
        ("handles", &[Signal::TERM], None),
        ("untouched", &[], None),
        ("untouched", &[Signal::HUP], Some(ExitStatus::Signal(Signal::HUP))),
        ("untouched", &[Signal::TERM], Some(ExitStatus::Signal(Signal::TERM))),
    ] {
        let (pool, pid, waiting) = start_late(mode);
        signals.iter().for_each(|signal| kill(pid, *signal).expect("it runs"));
        match ends {
            Some(status) => {
                let worker = pool.worker(1);
                drop(waiting);
                assert_eq!(pool.exit(1), status, "{mode}, {signals:?}");
                let asked = (status == ExitStatus::Code(0)).then_some(true);
                if asked.is_some() {
                    pool.next("online", |event| matches!(event, Event::Online { .. }));
                }
                assert_eq!(worker.exited_after_disconnect(), asked.or(Some(false)));
            }
            None => {
                drop(waiting);
                assert_eq!(pool.said::<String>().1, "here", "{mode}, {signals:?}");
                pool.end();
            }
        }
    }
}

/// `WorkerProcess::kill` and a second `SIGTERM` end a worker that has not called
/// `Worker::current()`.
#[apply(case)]
fn a_worker_ends_by_its_primary_or_a_second_sigterm_before_the_runtime() {
    for signal in [Signal::TERM, Signal::HUP] {
        let (pool, _, _waiting) = start_late("drains");
        pool.worker(1).kill(signal).expect("it runs");
        assert_eq!(pool.exit(1), ExitStatus::Signal(signal));
    }
    let (pool, pid, _waiting) = start_late("drains");
    kill(pid, Signal::TERM).expect("it runs");
    // The kernel would make one signal of two.
    wait(Duration::from_millis(50));
    kill(pid, Signal::TERM).expect("it runs");
    assert_eq!(pool.exit(1), ExitStatus::Signal(Signal::TERM));
}

/// Returns the mask of this name in `/proc/self/status`, of this process or of a child of it.
fn mask(name: &str, of_child: bool) -> u64 {
    let status = if of_child {
        let mut cat = Command::new("cat");
        let output = cat.arg("/proc/self/status").output().expect("cat runs");
        String::from_utf8(output.stdout).expect("text")
    } else {
        std::fs::read_to_string("/proc/self/status").expect("the status")
    };
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the mask");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a number")
}

/// `signal_masks MODE`: reports which of TERM, INT and HUP are handled and ignored, here and in a
/// child.
#[apply(role)]
fn signal_masks(args: &[String]) {
    let own = match args[0].as_str() {
        "handles" => Some(SignalWatch::new(&[Signal::TERM]).expect("watched")),
        _ => None,
    };
    let signals = match args[0].as_str() {
        "untouched" => WorkerSignals::Untouched,
        _ => WorkerSignals::Drain,
    };
    let worker = Worker::current_with(signals).expect("started by a primary");
    let bits = |name, of_child| {
        let mask = mask(name, of_child);
        [Signal::TERM, Signal::INT, Signal::HUP].map(|it| mask & (1 << (it.number() - 1)) != 0)
    };
    let masks = (bits("SigCgt", false), bits("SigIgn", true));
    if let Some(own) = own {
        kill(std::process::id(), Signal::TERM).expect("sent");
        assert!(sys::poll::readable(own.as_fd(), None).expect("poll"));
        wait(Duration::from_millis(20));
        assert!(!worker.draining().has_begun(), "the program handles the signal itself");
    }
    worker.send(&masks).expect("sent");
    worker.draining().wait();
}

/// Handlers only where the disposition is the default one, and none that children inherit.
#[apply(case)]
fn a_worker_handles_no_signal_that_its_program_handles_or_refuses() {
    for (mode, handled) in
        [("default", [true; 3]), ("handles", [true, true, true]), ("untouched", [false; 3])]
    {
        let pool = Pool::start(1, &["signal_masks", mode]);
        let (caught, ignored): ([bool; 3], [bool; 3]) = pool.said().1;
        assert_eq!((caught, ignored), (handled, [false; 3]), "{mode}");
        pool.end();
    }
}

/// Reads from the terminal until the text appears.
fn read_until(terminal: &mut Terminal, text: &str) {
    let mut seen = String::new();
    while !seen.contains(text) {
        let there = sys::poll::readable(terminal.as_fd(), Some(WAIT_MAX)).expect("poll");
        assert!(there, "no {text:?} in {seen:?}");
        let mut bytes = [0; 1024];
        let count = terminal.read(&mut bytes).expect("read");
        assert_ne!(count, 0, "no {text:?} in {seen:?}");
        seen += &String::from_utf8_lossy(&bytes[..count]);
    }
}

/// `SIGHUP` is a reload while the terminal is there, and the end when it is gone.
#[apply(case)]
fn a_primary_whose_terminal_is_gone_ends_and_does_not_reload() {
    let mut command = child_process::Command::new(example("http_cluster"));
    command.args(["--port", "0", "--workers", "2"]);
    command.stdio([Stdio::pty(), Stdio::pty(), Stdio::pty()]).kill_on_drop(true);
    let mut primary = command.spawn().expect("started");
    let mut terminal = primary.take_terminal().expect("it has one");
    read_until(&mut terminal, "listening on");
    kill(primary.pid(), Signal::HUP).expect("it runs");
    read_until(&mut terminal, "reloaded");
    drop(terminal);
    assert_eq!(primary.wait().expect("ended"), ExitStatus::Code(0));
}

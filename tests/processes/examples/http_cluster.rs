//! The example `http_cluster` from outside, as a user sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sys::pidfd::PidFd;
use sys::signal::{self, Signal};

use crate::harness::{apply, case};
use crate::support::example;
use crate::support::http_server::{Client, PATIENCE, Server};

/// Runs the example to its end; returns code, standard output and standard error.
fn run(flags: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(example("http_cluster")).args(flags).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[apply(case)]
fn a_hundred_requests_over_four_workers_are_25_each() {
    let server = Server::start(&["--workers", "4"]);
    let pid = server.pid();
    assert_eq!(
        server.announced,
        format!("listening on http://{} with 4 workers (primary pid {pid})\n", server.address)
    );
    let mut answers = BTreeMap::new();
    for _ in 0..100 {
        let answer = server.get("/");
        assert!(answer.starts_with("hello from worker ") && answer.ends_with(")\n"), "{answer:?}");
        *answers.entry(answer).or_insert(0) += 1;
    }
    assert_eq!(answers.into_values().collect::<Vec<_>>(), [25, 25, 25, 25]);
    signal::kill(pid, Signal::TERM).unwrap();
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0), "{log}");
    for line in ["fork 1", "online 1", "listening 1 127.0.0.1:", "exit 4 0"] {
        assert!(log.lines().any(|found| found.starts_with(line)), "{line} is not in\n{log}");
    }
}

#[apply(case)]
fn a_kept_alive_connection_stays_with_its_worker() {
    let server = Server::start(&["--workers", "3"]);
    let mut client = server.connect();
    let first = client.get("/", "keep-alive");
    for _ in 0..10 {
        assert_eq!(client.get("/", "keep-alive"), first);
    }
    assert_eq!(client.get("/", "close"), first);
    assert_eq!(client.0.read(&mut [0]).unwrap(), 0, "closed when asked for");
    signal::kill(server.pid(), Signal::INT).unwrap();
    assert_eq!(server.finish().0.code(), Some(0));
}

#[apply(case)]
fn a_crashed_worker_is_replaced_and_the_others_serve_on() {
    let server = Server::start(&["--workers", "2"]);
    let mut client = server.connect();
    client.ask("/crash", "close");
    assert!(client.answer().is_err(), "the worker died without an answer");
    let deadline = Instant::now() + PATIENCE;
    while !server.get("/").starts_with("hello from worker 3 ") {
        assert!(Instant::now() < deadline, "worker 3 never came");
    }
    signal::kill(server.pid(), Signal::TERM).unwrap();
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    assert!(log.contains("exit 1 SIGABRT\n") && log.contains("fork 3\n"), "{log}");
}

#[apply(case)]
fn without_restart_a_dead_worker_stays_dead() {
    let server = Server::start(&["--workers", "2", "--no-restart"]);
    let mut client = server.connect();
    client.ask("/crash", "close");
    assert!(client.answer().is_err(), "the worker died without an answer");
    let deadline = Instant::now() + PATIENCE;
    while server.workers().len() != 1 {
        assert!(Instant::now() < deadline, "{:?}", server.workers());
    }
    let answers: Vec<_> = (0..4).map(|_| server.get("/")).collect();
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    signal::kill(server.pid(), Signal::TERM).unwrap();
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    assert!(!log.contains("fork 3"), "{log}");
}

#[apply(case)]
fn the_shared_listener_serves_too() {
    let server = Server::start(&["--workers", "2", "--policy", "none"]);
    for _ in 0..50 {
        assert!(server.get("/").starts_with("hello from worker "));
    }
    let mut idle = server.connect();
    idle.get("/", "keep-alive");
    signal::kill(server.pid(), Signal::TERM).unwrap();
    let address = server.address;
    assert_eq!(server.finish().0.code(), Some(0));
    TcpListener::bind(address).expect("the port is free again");
}

#[apply(case)]
fn axum_serves_on_unix_sockets_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let name = format!("brood-http-{}", std::process::id());
    let addresses = [
        (path.to_str().unwrap().to_owned(), UnixSocketAddr::from_pathname(&path).unwrap()),
        (format!("@{name}"), UnixSocketAddr::from_abstract_name(&name).unwrap()),
    ];
    for ((named, address), policy) in
        addresses.iter().flat_map(|it| [(it, "rr"), (it, "none"), (it, "reuse-port")])
    {
        let mut server = Command::new(example("http_cluster"))
            .args(["--unix", named, "--workers", "2", "--policy", policy])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut announced = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut announced).unwrap();
        assert!(announced.starts_with(&format!("listening on {named} with 2 ")), "{announced:?}");
        let mut answers = BTreeSet::new();
        for _ in 0..10 {
            let mut client = UnixStream::connect_addr(address).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            answers.insert(answer.lines().last().unwrap().to_owned());
        }
        if policy == "rr" {
            assert_eq!(answers.len(), 2, "both answer: {answers:?}");
        }
        signal::kill(server.id(), Signal::TERM).unwrap();
        assert_eq!(server.wait().unwrap().code(), Some(0));
        assert!(!path.exists(), "the file is gone");
    }
}

#[apply(case)]
fn hardened_workers_serve_under_every_policy() {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if child_process::Sandbox::landlock_version() < 6 {
        eprintln!("SKIPPED: this kernel has no Landlock of version 6");
        return;
    }
    for policy in ["rr", "none", "least-loaded", "sticky", "reuse-port"] {
        let server = Server::start(&["--workers", "2", "--harden", "--policy", policy]);
        for _ in 0..10 {
            assert!(server.get("/").starts_with("hello from worker "), "{policy}");
        }
        for worker in server.workers() {
            let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
            for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
                assert!(status.contains(line), "{policy}, {line}: {status}");
            }
            assert!(!is_root || status.contains("Uid:\t65534\t65534"), "{status}");
        }
        let mut client = server.connect();
        client.ask("/crash", "close");
        assert!(client.answer().is_err(), "the worker died without an answer");
        let deadline = Instant::now() + PATIENCE;
        while server.workers().len() != 2 || !server.get("/").starts_with("hello from worker ") {
            assert!(Instant::now() < deadline, "{policy}: the worker is not replaced");
        }
        signal::kill(server.pid(), Signal::TERM).unwrap();
        let (status, log) = server.finish();
        assert_eq!(status.code(), Some(0), "{policy}: {log}");
    }
}

#[apply(case)]
fn ten_kept_alive_clients_are_released_without_an_error() {
    for policy in ["rr", "none", "reuse-port"] {
        let server = Server::start(&["--workers", "2", "--delay-ms", "100", "--policy", policy]);
        let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.get("/", "keep-alive");
        }
        // Half of the clients wait for an answer at the shutdown, half are idle.
        for client in &mut clients[..5] {
            client.ask("/", "keep-alive");
        }
        clients[..5].iter().for_each(Client::wait_until_read);
        let asked = Instant::now();
        signal::kill(server.pid(), Signal::TERM).unwrap();
        for (number, client) in clients.iter_mut().enumerate() {
            if number < 5 {
                client.answer().unwrap_or_else(|error| panic!("client {number}: {error}"));
            }
            let end = client.0.read(&mut [0]);
            assert_eq!(end.unwrap_or_else(|error| panic!("client {number}: {error}")), 0);
        }
        let (status, log) = server.finish();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(asked.elapsed() < Duration::from_secs(4), "before the deadline of 5 s");
        assert!(!log.contains("SIG"), "no worker had to be signalled:\n{log}");
    }
}

#[apply(case)]
fn a_second_interrupt_stops_at_once_with_130() {
    let server = Server::start(&["--workers", "2", "--delay-ms", "60000"]);
    let mut client = server.connect();
    client.ask("/", "close");
    client.wait_until_read();
    let workers = server.workers();
    signal::kill(server.pid(), Signal::INT).unwrap();
    // A closed port shows that the server has seen the first signal.
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(server.address).is_ok() {
        assert!(Instant::now() < deadline, "still listening");
    }
    let asked = Instant::now();
    signal::kill(server.pid(), Signal::INT).unwrap();
    assert_eq!(server.finish().0.code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(2));
    for worker in workers {
        assert!(PidFd::open(worker).is_err(), "worker {worker} was left behind");
    }
}

#[apply(case)]
fn a_worker_that_does_not_end_is_ended_at_the_deadlines() {
    let server = Server::start(&["--workers", "1", "--delay-ms", "60000"]);
    let mut client = server.connect();
    client.ask("/", "close");
    client.wait_until_read();
    let worker = server.workers()[0];
    signal::kill(worker, Signal::STOP).unwrap();
    signal::kill(server.pid(), Signal::TERM).unwrap();
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    assert!(log.ends_with("exit 1 SIGKILL\n"), "a stopped worker does not see SIGTERM:\n{log}");
}

#[apply(case)]
fn wrong_flags_are_reported_in_one_line_with_code_2() {
    let cases: [(&[&str], &str); 9] = [
        (&["--workers", "0"], "--workers must be a number from 1 to 4096, not '0'"),
        (&["--workers", "many"], "--workers must be a number from 1 to 4096, not 'many'"),
        (&["--workers"], "--workers needs a value"),
        (&["--port", "65536"], "--port must be a number from 0 to 65535, not '65536'"),
        (
            &["--policy", "fair"],
            "--policy: unknown policy 'fair', expected 'rr', 'none', 'least-loaded', \
             'sticky' or 'reuse-port'",
        ),
        (&["--delay-ms", "-1"], "--delay-ms must be a number from 0 to 3600000, not '-1'"),
        (&["--nonsense"], "unknown flag '--nonsense'"),
        (&["--no-restart=yes"], "unknown flag '--no-restart'"),
        (&["stray"], "unknown flag 'stray'"),
    ];
    for (flags, why) in cases {
        let (code, stdout, stderr) = run(flags);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{flags:?}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.starts_with(&format!("http_cluster: {why}; usage: ")), "{stderr}");
    }
    let (code, stdout, stderr) = run(&["--help"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.starts_with("usage: "));
}

/// Checks for one line that names the port, what to do, and the cause.
#[track_caller]
fn assert_names_the_address(stderr: &str, port: &str, cause: &str) {
    let line = stderr.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "{line}");
    let begin = format!("http_cluster: cannot listen on 127.0.0.1:{port} (");
    assert!(line.starts_with(&begin) && line.ends_with(&format!("): {cause}")), "{line}");
}

#[apply(case)]
fn a_port_in_use_is_named_in_one_line_with_code_1() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    for policy in ["rr", "none", "reuse-port"] {
        let (code, stdout, stderr) = run(&["--port", &port, "--policy", policy]);
        assert_eq!((code, stdout.as_str()), (Some(1), ""));
        assert_names_the_address(&stderr, &port, "Address already in use (os error 98)");
    }
}

#[apply(case)]
fn a_port_that_is_not_allowed_is_named_in_one_line_with_code_1() {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first_free.is_ok_and(|port| port.trim().parse::<u32>().unwrap() < 2) {
        eprintln!("SKIPPED: this machine allows every port to every user");
        return;
    }
    // The user `nobody`, who may not bind port 1, runs the program from a folder that this user may
    // enter.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("http_cluster");
    std::fs::copy(example("http_cluster"), &program).unwrap();
    for policy in ["rr", "none", "reuse-port"] {
        let mut command = Command::new(&program);
        command.args(["--port", "1", "--policy", policy]).current_dir("/");
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(65_534);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_names_the_address(&stderr, "1", "Permission denied (os error 13)");
    }
}

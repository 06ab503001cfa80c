//! The examples for Node's cluster from outside, as a user sees them, with Express and Fastify.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use sys::pidfd::PidFd;
use sys::signal::{Signal, kill};

use crate::harness::{apply, case};
use crate::support::example;
use crate::support::node::{node, script};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server that prints its address on standard output; killed if a test fails.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let word = line.split_whitespace().find_map(|word| word.strip_prefix("http://"));
        let Some(address) = word.and_then(|word| word.parse().ok()) else {
            let mut log = String::new();
            child.kill().unwrap();
            child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
            panic!("no address in {line:?}; {log}");
        };
        Self { child, address }
    }

    /// Makes one request on a connection of its own; returns the body.
    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// Checks that each of the workers answers, in any order.
    fn all_answer(&self, workers: u32, beginning: impl Fn(u32) -> String) {
        let mut missing: Vec<_> = (1..=workers).map(&beginning).collect();
        let all = missing.clone();
        for _ in 0..10 * workers {
            let answer = self.get();
            assert!(all.iter().any(|one| answer.starts_with(one)), "{answer}");
            missing.retain(|one| !answer.starts_with(one));
        }
        assert!(missing.is_empty(), "{missing:?}");
    }

    fn get(&self) -> String {
        self.ask("GET", "/", "")
    }

    /// Ends the server by SIGTERM; returns its code and its standard error.
    fn end(mut self) -> (ExitStatus, String) {
        let ended = PidFd::open(self.child.id()).unwrap();
        kill(self.child.id(), Signal::TERM).unwrap();
        assert!(
            sys::poll::readable(ended.as_fd(), Some(PATIENCE)).unwrap(),
            "the server does not end"
        );
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The workers exit with the primary.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn node_cluster(app: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(example("node_cluster"));
    command.arg(app).args(args);
    command
}

#[apply(case)]
fn node_cluster_runs_an_application_and_prints_its_events() {
    if node().is_none() {
        return;
    }
    let app = script("cluster_http.js");
    for policy in ["rr", "none"] {
        let args = ["--workers", "2", "--policy", policy, "--", "0", "127.0.0.1"];
        let server = Server::start(&mut node_cluster(&app, &args));
        let mut answers = BTreeMap::new();
        for _ in 0..10 {
            *answers.entry(server.get()).or_insert(0) += 1;
        }
        // A worker with a pending acknowledgement is skipped.
        let by = |id: &str| answers.get(id).copied().unwrap_or(0);
        assert!(policy != "rr" || by("1").min(by("2")) >= 3, "{answers:?}");
        assert_eq!(by("1") + by("2"), 10, "{answers:?}");
        let address = server.address;
        let (status, log) = server.end();
        assert!(status.success(), "{status}: {log}");
        for line in ["fork 1", "online 2", "disconnect 1", "exit 2 0"] {
            assert!(log.lines().any(|it| it == line), "no {line:?} in {log}");
        }
        assert!(log.contains(&format!("listening 1 {address}\n")), "{log}");
    }
}

#[apply(case)]
fn node_cluster_says_what_is_wrong() {
    let run = |args: &[&str]| -> Output {
        Command::new(example("node_cluster")).args(args).output().unwrap()
    };
    for args in [
        &[][..],
        &["--workers", "2"],
        &["a.js", "--workers", "0"],
        &["a.js", "b.js"],
        &["a.js", "--policy", "fair"],
        &["a.js", "--listens", "maybe"],
        &["a.js", "--relay=all"],
        &["a.js", "--reload-on-hangup=1"],
        &["a.js", "--sigterm-ms", "-1"],
        &["a.js", "--disconnect-ms"],
        &["a.js", "--terminate-ms", "soon"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: "), "{args:?}");
    }
    assert!(run(&["--help"]).status.success());
    if node().is_some() {
        let output = run(&["/nonexistent/app.js", "--workers", "1"]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{log}");
        assert!(
            log.contains("node_cluster: worker 1 ended with code 1 before it was ready"),
            "{log}"
        );
    }
}

/// Workers that open no port run as well: they are replaced on SIGHUP, have inspectors at ports
/// that count up, and get each other's messages.
#[apply(case)]
fn node_cluster_runs_workers_that_do_not_listen() {
    if node().is_none() {
        return;
    }
    let app = script("cluster_jobs.js");
    let flags = "--workers 2 --listens no --reload-on-hangup --relay --inspect=0 --ready-ms 20000 \
                 --disconnect-ms 20000 --terminate-ms 20000 --sigterm-ms 0";
    let mut command = node_cluster(&app, &flags.split_whitespace().collect::<Vec<_>>());
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let pid = child.id();
    let mut log = BufReader::new(stderr).lines().map(|line| line.unwrap());
    let mut lines = BufReader::new(stdout).lines().map(|line| line.unwrap());
    let mut guard = Server { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
    // The workers write to the same standard output.
    let mut seen = Vec::new();
    let mut await_line = |wanted: &str| {
        while !seen.iter().any(|line: &String| line.starts_with(wanted)) {
            seen.push(lines.next().unwrap_or_else(|| panic!("no {wanted:?} in {seen:?}")));
        }
    };
    await_line(&format!("running with 2 workers (primary pid {pid})"));
    await_line("worker 1 has received worker 2");
    await_line("worker 2 has received worker 1");
    kill(pid, Signal::HUP).unwrap();
    let mut log_seen = Vec::new();
    let mut await_log = |wanted: &str| {
        while !log_seen.iter().any(|line: &String| line.starts_with(wanted)) {
            log_seen.push(log.next().unwrap_or_else(|| panic!("no {wanted:?} in {log_seen:?}")));
        }
    };
    for line in ["Debugger listening on ws://127.0.0.1:", "exit 1 0", "exit 2 0", "reloaded"] {
        await_log(line);
    }
    kill(pid, Signal::TERM).unwrap();
    await_log("exit 4 0");
    assert!(guard.child.wait().unwrap().success());
    // Before the check of the ledger, which counts descriptors.
    drop((lines, log));
}

#[apply(case)]
fn rust_worker_serves_under_a_node_primary_and_alone() {
    let Some(node) = node() else { return };
    let mut command = Command::new(node);
    command.arg(script("run_workers.js")).arg(example("rust_worker")).arg("0");
    let server = Server::start(&mut command);
    server.all_answer(2, |id| format!("hello from rust worker {id} (pid "));
    let (status, log) = server.end();
    assert!(status.success(), "{status}: {log}");

    let alone = Server::start(Command::new(example("rust_worker")).arg("0"));
    assert!(alone.get().starts_with("hello from rust worker 0 (pid "));
}

/// Installs Express and Fastify from the registry into a temporary folder, only in CI.
#[apply(case)]
fn express_and_fastify_run_unchanged() {
    if node().is_none() {
        return;
    }
    if std::env::var_os("CI").is_none_or(|value| value != "true") {
        return println!("skipped: Express and Fastify are fetched only with CI=true");
    }
    let folder = tempfile::tempdir().unwrap();
    let installed = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--silent", "express", "fastify"])
        .current_dir(&folder)
        .status()
        .unwrap();
    assert!(installed.success(), "npm install: {installed}");
    for name in ["express", "fastify"] {
        let app = script(&format!("cluster_{name}.js"));
        let mut command = node_cluster(&app, &["--workers", "3", "--", "0"]);
        let server = Server::start(command.env("NODE_PATH", folder.path().join("node_modules")));
        server.all_answer(3, |id| format!("{name} {id}"));
        let numbers: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
        let body = format!("{{\"numbers\":[{}]}}", numbers.join(","));
        assert_eq!(server.ask("POST", "/sum", &body), format!("{name} 1999000"));
        let (status, log) = server.end();
        assert!(status.success(), "{status}: {log}");
    }
}

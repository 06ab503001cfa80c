//! The examples `pool` and `pass_socket` from outside, as a user sees them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::harness::{apply, case};
use crate::support::example;

/// Runs an example to its end; returns its standard output and standard error.
#[track_caller]
fn run(name: &str, args: &[&str]) -> (String, String) {
    let done = Command::new(example(name)).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(done.stdout), text(done.stderr));
    assert!(done.status.success(), "{}\n{stdout}\n{stderr}", done.status);
    (stdout, stderr)
}

/// The number of primes below 600 000, from a table.
const PRIMES: &str = "49098 primes below 600000";

#[track_caller]
fn counts_right(stdout: &str) {
    assert!(stdout.contains(PRIMES), "{stdout}");
    assert!(stdout.contains("times as fast as one process"), "{stdout}");
    let full = format!("[{}] 12/12", "#".repeat(40));
    assert!(stdout.contains(&full), "{stdout}");
}

#[apply(case)]
fn the_pool_counts_right_and_prints_its_speed_up() {
    let (stdout, stderr) = run("pool", &["--below", "600000", "--workers", "3"]);
    counts_right(&stdout);
    assert_eq!(stderr, "");
}

#[apply(case)]
fn more_workers_than_processors_make_the_pool_no_faster_than_its_processors() {
    for workers in ["1", "24"] {
        let (stdout, _) = run("pool", &["--below", "600000", "--workers", workers]);
        counts_right(&stdout);
        let words: Vec<&str> = stdout.split_whitespace().collect();
        let times = words.iter().position(|word| *word == "times").unwrap();
        let speed_up: f64 = words[times - 1].parse().unwrap();
        let processors = std::thread::available_parallelism().unwrap().get();
        let most = processors.min(workers.parse().unwrap()) as f64;
        // The figure has two decimals.
        assert!(speed_up > 0.0 && speed_up <= most + 0.01, "{workers} workers: {stdout}");
    }
}

#[apply(case)]
fn a_worker_of_the_pool_killed_in_the_middle_costs_its_own_range_only() {
    let (stdout, stderr) = run("pool", &["--below", "600000", "--workers", "3", "--kill"]);
    counts_right(&stdout);
    let seen: Vec<&str> = stderr.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(seen.len(), 1, "{stderr}");
    assert!(seen[0].starts_with("worker ") && seen[0].contains("SIGKILL"), "{stderr}");
    assert!(seen[0].contains("goes to another worker"), "{stderr}");
}

#[apply(case)]
fn a_pool_says_what_is_wrong_with_its_arguments() {
    for args in [
        &["--below"][..],
        &["--workers", "0"],
        &["--workers", "x"],
        &["--faster"],
        &["--workers", "4097"],
        &["--workers", "18446744073709551615"],
        &["--below", "-1"],
        &["--below", "18446744073709551615"],
    ] {
        let done = Command::new(example("pool")).args(args).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(said.contains("usage: pool"), "{args:?}: {said}");
    }
}

#[apply(case)]
fn sockets_are_passed_and_the_child_answers_them() {
    let (stdout, stderr) = run("pass_socket", &["5"]);
    assert_eq!(stderr, "");
    let (first, rest) = stdout.split_once('\n').unwrap();
    let child = first.rsplit(' ').next().unwrap();
    for number in 1..=5 {
        let line = format!("connection {number} was answered by process {child}");
        assert!(rest.contains(&line), "{stdout}");
    }
    let replies = rest.lines().filter(|line| line.contains("hello 127.0.0.1:"));
    let by_child = replies.filter(|line| line.ends_with(&format!("here is process {child}")));
    assert_eq!(by_child.count(), 5, "{stdout}");
}

#[apply(case)]
fn a_socket_of_another_program_is_passed_as_well() {
    let mut parent =
        Command::new(example("pass_socket")).arg("0").stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = std::io::BufReader::new(parent.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, child) = (words[2].trim_end_matches(','), words[words.len() - 1]);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"hi").unwrap();
    let mut reply = String::new();
    // The child has closed before it read the request; its answer arrives nevertheless.
    let _ = stream.read_to_string(&mut reply);
    let hello = format!("hello {}", stream.local_addr().unwrap());
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(reply.starts_with(&hello), "{reply}");
    assert!(reply.trim_end().ends_with(child), "{reply}");
}

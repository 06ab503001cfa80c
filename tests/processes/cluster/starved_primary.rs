//! A primary without a free descriptor, while it reads queues back or dispatches to Node workers.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use child_process::{Child, ChildOutput, ChildStdin, Command, ExitStatus, Signal, Stdio};
use cluster::{Event, Primary, Worker};
use sys::rlimit;

use crate::harness::{apply, case, role};
use crate::support::node_cluster::{Cluster, application, connect_and_read_id};
use crate::support::pool::{Pool, each_connection_was_given_to_a_worker};
use crate::support::{OrLeave, WAIT_MAX, current_exe, eventually, wait};

/// `accept_when_told`: listens, and accepts nothing until a message arrives; then it sends its number
/// on each connection.
#[apply(role)]
fn accept_when_told(_args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let messages = worker.take_messages().expect("taken once");
    let listener = cluster::listen("127.0.0.1:0").or_leave();
    messages.recv().expect("a message");
    for accepted in listener.incoming() {
        let (mut stream, _peer) = accepted.expect("accept");
        let _ = write!(stream, "{}", worker.id().get());
    }
}

/// Every connection in the queue of a dead worker is served, although the primary has no descriptor
/// for any of them when the worker ends.
#[apply(case)]
fn a_primary_without_descriptors_loses_nothing_that_it_reads_back() {
    const CLIENTS: usize = 8;
    let delay = Duration::from_millis(20);
    let builder = Primary::builder().workers(1).restart_burst(0, Duration::from_secs(1));
    let pool = Pool::of(builder.restart_delay(delay, 4 * delay), &["accept_when_told"]);
    let address = pool.ready_tcp();
    let clients: Vec<TcpStream> =
        (0..CLIENTS).map(|_| TcpStream::connect_timeout(&address, WAIT_MAX).unwrap()).collect();
    eventually("all are in the queue", || {
        (pool.primary.counters().dispatched == CLIENTS as u64).then_some(())
    });
    let (soft, _) = rlimit::descriptors().expect("a limit");
    // Descriptors 0 to 2 stay open, so that no number is free, whichever descriptors are closed.
    rlimit::set_descriptors(3).expect("lower");
    pool.worker(1).kill(Signal::KILL).expect("kill");
    assert_eq!(pool.exit(1), ExitStatus::Signal(Signal::KILL));
    for _ in 0..3 {
        pool.next("a start that fails", |event| matches!(event, Event::Error { .. }));
    }
    assert_eq!(pool.primary.counters().closed_overflow, 0);
    rlimit::set_descriptors(soft).expect("raise");
    let (id, _) = pool.listening_tcp();
    pool.worker(id).send(&0_u32).expect("send");
    for mut client in clients {
        client.set_read_timeout(Some(WAIT_MAX)).expect("a valid timeout");
        let mut said = String::new();
        client.read_to_string(&mut said).expect("an answer");
        assert_eq!(said, id.to_string());
    }
    each_connection_was_given_to_a_worker(&pool.primary);
    pool.end();
}

/// A client in a process of its own, which needs no descriptor of the primary.
struct Client {
    process: Child,
    stdin: ChildStdin,
    lines: std::io::Lines<BufReader<ChildOutput>>,
}

impl Client {
    fn start(address: SocketAddr) -> Self {
        let mut command = Command::new(current_exe());
        command.args(["role", "greet_on_command", &address.to_string()]);
        let process = command.stdio([Stdio::pipe(), Stdio::pipe(), Stdio::inherit()]).spawn();
        let mut process = process.expect("spawn");
        let stdin = process.take_stdin().expect("piped");
        let lines = BufReader::new(process.take_stdout().expect("piped")).lines();
        Self { process, stdin, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }
}

/// `greet_on_command ADDRESS`: connects after a line on standard input, prints `connected`, and then
/// the first line that it receives.
#[apply(role)]
fn greet_on_command(args: &[String]) {
    std::io::stdin().read_line(&mut String::new()).expect("reported");
    let stream = TcpStream::connect(args[0].as_str()).expect("connect");
    println!("connected");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a greeting");
    print!("{line}");
}

/// The primary keeps a copy of each connection that a Node worker has not answered. Without a
/// descriptor for the copy, the client waits, and no worker is taken for dead.
#[apply(case)]
fn a_primary_without_a_descriptor_for_the_copy_sends_the_connection_to_node_later() {
    let Some(builder) = application("cluster_net.js", &["0"]) else { return };
    let cluster = Cluster::start(builder.workers(2));
    let address = cluster.address();
    let mut client = Client::start(address);
    let (soft, _) = rlimit::descriptors().expect("a limit");
    let free = File::open("/dev/null").expect("open");
    let number = u64::try_from(sys::fd::number(free.as_fd())).expect("a number");
    // One number is free: the connection gets it, and the copy gets none.
    rlimit::set_descriptors(number + 1).expect("lower");
    drop(free);
    client.stdin.write_all(b"go\n").expect("reported");
    assert_eq!(client.line(), "connected");
    eventually("the connection is accepted", || {
        (cluster.primary.counters().accepted == 1).then_some(())
    });
    // The primary tries again all the while.
    wait(Duration::from_millis(200));
    let counters = cluster.primary.counters();
    assert_eq!((counters.dispatched, counters.waiting, counters.closed()), (0, 1, 0));
    rlimit::set_descriptors(soft).expect("raise");
    assert!(["1", "2"].contains(&client.line().as_str()));
    assert_eq!(client.process.wait().expect("ended"), ExitStatus::Code(0));
    let all: Vec<_> = (0..4).map(|_| connect_and_read_id(address)).collect();
    let served_by: BTreeSet<u32> = all.iter().map(|(id, _)| *id).collect();
    assert_eq!(served_by, BTreeSet::from([1, 2]), "both workers still serve");
    drop(all);
    cluster.end();
}

//! Workers that do not accept because they have enough to do: that is no hang.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use cluster::{Event, Policy, Primary, Worker};

use crate::harness::{apply, case, role};
use crate::node::primary::NodePrimary;
use crate::support::pool::Pool;
use crate::support::{OrLeave, WAIT_MAX, wait};

/// `two_at_a_time HOW`: greets a client with its number, and accepts no third one while two are
/// there. Meanwhile it pauses its listener, sends messages, or lets other connections go.
#[apply(role)]
fn two_at_a_time(args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let listener = cluster::listen("127.0.0.1:0").or_leave();
    let (freed, free) = crossbeam_channel::unbounded();
    let (how, id) = (args[0].as_str(), worker.id().get());
    if how == "closes" {
        // Connections come and go at another port.
        let other = cluster::listen("127.0.0.1:0").or_leave();
        thread::spawn(move || other.incoming().for_each(drop));
    }
    let mut held = 0;
    loop {
        if held == 2 {
            if how == "pauses" {
                listener.pause();
            }
            worker.send(&"full").expect("sent");
            while free.recv_timeout(Duration::from_millis(50)).is_err() {
                if how == "talks" {
                    worker.send(&"busy").expect("sent");
                }
            }
            held -= 1;
            if how == "pauses" {
                listener.resume();
            }
        }
        let Ok((mut stream, _)) = listener.accept() else { return };
        held += 1;
        let freed = freed.clone();
        thread::spawn(move || {
            let _ = writeln!(stream, "{id}");
            let _ = stream.read(&mut [0; 8]);
            drop(stream);
            let _ = freed.send(());
        });
    }
}

/// Connects a client; the first byte that it reads is the worker's number.
fn client(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect_timeout(&address, WAIT_MAX).expect("connect");
    client.set_read_timeout(Some(WAIT_MAX)).expect("set");
    client
}

fn number(mut client: &TcpStream) -> u8 {
    let mut line = [0; 2];
    client.read_exact(&mut line).expect("a line");
    line[0] - b'0'
}

fn is_full(pool: &Pool, id: u32) {
    while pool.said_by::<String>(id) != "full" {}
}

/// A worker that is full keeps its connections for much longer than the limit, and then serves the
/// client that waited.
#[apply(case)]
fn a_worker_that_does_not_accept_is_not_killed_while_it_says_that_it_lives() {
    for (how, policy) in [
        ("pauses", Policy::RoundRobin),
        ("pauses", Policy::ReusePort),
        ("pauses", Policy::Sticky),
        ("talks", Policy::RoundRobin),
        ("closes", Policy::RoundRobin),
    ] {
        let limit = Duration::from_millis(400);
        let builder = Primary::builder().workers(1).policy(policy).unresponsive_after(limit);
        let pool = Pool::of(builder, &["two_at_a_time", how]);
        let address = pool.ready_tcp();
        let other = (how == "closes").then(|| pool.listening_tcp().1);
        let first = [client(address), client(address)];
        assert_eq!(first.each_ref().map(number), [1, 1]);
        is_full(&pool, 1);
        let waiting = client(address);
        for _ in 0..30 {
            wait(Duration::from_millis(60));
            drop(other.map(client));
        }
        drop(first);
        assert_eq!(number(&waiting), 1, "{how} {policy:?}");
        drop(waiting);
        for event in pool.events() {
            assert!(!matches!(event, Event::Unresponsive { .. } | Event::Exit { .. }), "{event:?}");
        }
        pool.end();
    }
}

/// A client whose worker pauses goes to another one, and the worker gets its share when it resumes.
#[apply(case)]
fn a_paused_worker_leaves_its_clients_to_others() {
    for policy in [Policy::RoundRobin, Policy::ReusePort, Policy::LeastLoaded] {
        let pool =
            Pool::of(Primary::builder().workers(2).policy(policy), &["two_at_a_time", "pauses"]);
        let address = pool.ready_tcp();
        let mut clients: Vec<_> = (0..3).map(|_| client(address)).collect();
        let numbers: Vec<_> = clients.iter().map(number).collect();
        let full = if numbers.iter().filter(|it| **it == 1).count() == 2 { 1 } else { 2 };
        is_full(&pool, full.into());
        clients.push(client(address));
        assert_eq!(number(&clients[3]), 3 - full, "{policy:?}: {numbers:?}");
        is_full(&pool, (3 - full).into());
        // All are full: the next client waits.
        let waiting = client(address);
        wait(Duration::from_millis(200));
        let leaves = numbers.iter().position(|it| *it == full).expect("one of its clients");
        drop(clients.remove(leaves));
        assert_eq!(number(&waiting), full, "{policy:?}");
        drop((clients, waiting));
        pool.end();
    }
}

/// The same below a Node primary.
#[apply(case)]
fn a_paused_worker_of_a_node_primary_leaves_its_clients_to_others() {
    let role = ["two_at_a_time", "pauses"];
    let Some(primary) = NodePrimary::start("rr", "json", &role) else { return };
    let address = primary.workers(2);
    let clients: Vec<_> = (0..4).map(|_| client(address)).collect();
    let mut numbers: Vec<_> = clients.iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 1, 2, 2]);
    let waiting = client(address);
    wait(Duration::from_millis(200));
    drop(clients);
    assert!([1, 2].contains(&number(&waiting)));
    drop(waiting);
    primary.end(2);
}

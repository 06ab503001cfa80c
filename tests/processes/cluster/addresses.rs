//! Addresses that workers share, reuse or cannot have.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use cluster::{Address, BoundSocket, ListenOptions, Policy, Primary, Worker};

use crate::harness::{apply, case, role};
use crate::support::pool::Pool;
use crate::support::udp;
use crate::support::{OrLeave, WAIT_MAX, eventually};

fn me() -> Worker {
    Worker::current().expect("started by a primary")
}

/// `try_tcp ADDRESS` and `try_udp ADDRESS`: sends the outcome; tries again after each message.
#[apply(role)]
fn try_tcp(args: &[String]) {
    try_again(|| cluster::listen(args[0].as_str()));
}

#[apply(role)]
fn try_udp(args: &[String]) {
    try_again(|| udp::bind(args[0].as_str(), &ListenOptions::new()));
}

fn try_again<T>(open: impl Fn() -> Result<T, cluster::Error>) {
    let worker = me();
    let messages = worker.take_messages().expect("taken once");
    let mut held = None;
    loop {
        let opened = open();
        worker.send(opened.as_ref().map_or_else(cluster::Error::code, |_| "OK")).expect("send");
        held = opened.ok().or(held);
        while messages.recv_timeout(Duration::from_millis(5)).is_err() {
            if worker.draining().has_begun() {
                return;
            }
        }
    }
}

/// An address in use is an error in the worker that asked, with every policy; the same worker can
/// listen there as soon as the address is free.
#[apply(case)]
#[node_test("test-cluster-eaddrinuse", "test-cluster-shared-handle-bind-error")]
fn eaddrinuse() {
    for policy in [Policy::RoundRobin, Policy::Shared, Policy::ReusePort] {
        let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = holder.local_addr().expect("address").to_string();
        let builder = Primary::builder().workers(1).listens(false).policy(policy);
        let pool = Pool::of(builder, &["try_tcp", &address]);
        assert_eq!(pool.said_by::<String>(1), "EADDRINUSE");
        drop(holder);
        pool.worker(1).send(&()).expect("send");
        assert_eq!(pool.said_by::<String>(1), "OK");
        pool.end();
    }
}

/// The second of two primaries cannot bind the address of the first.
#[apply(case)]
#[node_test("test-cluster-bind-twice")]
fn bind_twice() {
    let first = Pool::start(1, &["try_tcp", "127.0.0.1:0"]);
    let address = first.listening_tcp().1.to_string();
    let second = Pool::start(1, &["try_tcp", &address]);
    assert_eq!(second.said_by::<String>(1), "EADDRINUSE");
    second.end();
    first.end();
}

/// A foreign address and a UDP port in use are errors.
#[apply(case)]
#[node_test("test-dgram-cluster-bind-error")]
fn dgram_cluster_bind_error() {
    let holder = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let taken = holder.local_addr().expect("address").to_string();
    for (address, code) in [(taken.as_str(), "EADDRINUSE"), ("192.0.2.1:0", "EADDRNOTAVAIL")] {
        for role in ["try_udp", "try_tcp"] {
            if (role, code) == ("try_tcp", "EADDRINUSE") {
                continue;
            }
            let pool = Pool::start(1, &[role, address]);
            assert_eq!(pool.said_by::<String>(1), code, "{role}");
            pool.end();
        }
    }
}

/// `open_close`: opens, closes and reopens streams and datagram sockets on port 0.
#[apply(role)]
fn open_close(_args: &[String]) {
    let worker = me();
    for _ in 0..2 {
        let listeners = [(); 2].map(|()| cluster::listen("127.0.0.1:0").or_leave());
        assert_ne!(listeners[0].address(), listeners[1].address(), "each request another port");
        drop(listeners);
        let sockets = [(); 2].map(|()| udp::bind("127.0.0.1:0", &ListenOptions::new()).or_leave());
        assert_ne!(sockets[0].address(), sockets[1].address(), "each request another port");
    }
    cluster::listen("127.0.0.1:0").or_leave();
    udp::bind("127.0.0.1:0", &ListenOptions::new()).or_leave();
    worker.send(&()).expect("send");
    worker.draining().wait();
}

/// The primary keeps the sockets of port 0 apart while three workers open and close them at once.
#[apply(case)]
#[node_test(
    "test-cluster-child-index-net",
    "test-cluster-child-index-dgram",
    "test-dgram-cluster-close-in-listening"
)]
fn child_index() {
    let pool = Pool::start(3, &["open_close"]);
    (0..3).for_each(|_| pool.said::<()>().1);
    pool.end();
}

/// `udp_twice`: binds two sockets of one worker to one port, with and without `reuse_address`.
#[apply(role)]
fn udp_twice(_args: &[String]) {
    let worker = me();
    let first = udp::bind("127.0.0.1:0", &ListenOptions::new()).or_leave();
    let here = first.local_addr().expect("address");
    let refused = udp::bind(here, &ListenOptions::new()).expect_err("held already");
    assert_eq!(refused.code(), "EADDRINUSE");
    let again = ListenOptions::new().reuse_address(true);
    let second = udp::bind(here, &again).expect("bind again");
    drop(first);
    second.send_to(b"x", here).expect("send");
    assert_eq!(second.recv(&mut [0; 4]).expect("recv"), 1);
    worker.send(&()).expect("send");
    worker.draining().wait();
}

/// The second socket is refused, or shares the first where the worker asks for that.
#[apply(case)]
#[node_test("test-cluster-dgram-reuse", "known_issues/test-dgram-bind-shared-ports-after-port-0")]
fn dgram_reuse() {
    let pool = Pool::start(1, &["udp_twice"]);
    pool.said_by::<()>(1);
    pool.end();
}

/// With `None` a worker closes and listens again while the other worker keeps the port.
#[apply(case)]
#[node_test("test-cluster-server-restart-none")]
fn server_restart_none() {
    let builder = Primary::builder().workers(2).listens(false).policy(Policy::Shared);
    let pool = Pool::of(builder, &["listen_again"]);
    for _ in 0..2 {
        pool.listening_tcp();
    }
    pool.worker(2).send(&()).expect("send");
    let said: BTreeSet<u32> = (0..2).map(|_| pool.said::<()>().0).collect();
    assert_eq!(said, BTreeSet::from([1, 2]));
    pool.end();
}

/// `refuse`: worker 1 accepts nothing, and closes its listener after a message.
#[apply(role)]
fn refuse(_args: &[String]) {
    let worker = me();
    let messages = worker.take_messages().expect("taken once");
    let listener = cluster::listen("127.0.0.1:0").or_leave();
    if worker.id().get() == 1 {
        messages.recv().expect("reported");
        drop(listener);
        return worker.draining().wait();
    }
    for accepted in listener.incoming() {
        let (mut stream, _peer) = accepted.expect("accept");
        let _ = stream.write_all(b"2");
    }
}

/// The connections in the queue of a closed listener are dispatched to the other worker; no client
/// is cut off, and no descriptor stays open.
#[apply(case)]
#[node_test("test-cluster-worker-handle-close", "test-cluster-rr-handle-close")]
fn worker_handle_close() {
    let pool = Pool::of(Primary::builder().workers(2), &["refuse"]);
    pool.primary.ready().expect("ready");
    let (_, address) = pool.listening_tcp();
    let mut clients: Vec<_> =
        (0..20).map(|_| TcpStream::connect_timeout(&address, WAIT_MAX).expect("connect")).collect();
    eventually("all are dispatched", || (pool.primary.counters().dispatched >= 20).then_some(()));
    pool.worker(1).send(&()).expect("send");
    for client in &mut clients {
        client.set_read_timeout(Some(WAIT_MAX)).expect("a valid timeout");
        let mut said = String::new();
        client.read_to_string(&mut said).expect("an answer");
        assert_eq!(said, "2");
    }
    let counters = pool.primary.counters();
    assert!(counters.reclaimed >= 1, "{counters:?}");
    assert_eq!(counters.dispatched - counters.reclaimed, 20, "{counters:?}");
    pool.end();
}

/// `inherited_udp`: reads ten datagrams from the inherited socket of the primary.
#[apply(role)]
fn inherited_udp(_args: &[String]) {
    let worker = me();
    let given = Address::Inherited("dns".to_owned());
    let socket: BoundSocket<UdpSocket> = ListenOptions::new().bind_datagram(given).or_leave();
    for _ in 0..10 {
        socket.recv(&mut [0; 8]).expect("recv");
    }
    worker.send(&()).expect("send");
    worker.draining().wait();
}

/// Four workers share an inherited UDP socket of the primary, and read ten datagrams each.
#[apply(case)]
#[node_test("test-cluster-dgram-bind-fd")]
fn dgram_bind_fd() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let address = socket.local_addr().expect("address");
    let builder = Primary::builder().workers(4).listens(false).socket("dns", socket);
    let pool = Pool::of(builder, &["inherited_udp"]);
    (0..4).for_each(|_| drop(pool.listening()));
    let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
    for _ in 0..40 {
        sender.send_to(b"hello", address).expect("send");
    }
    (0..4).for_each(|_| pool.said::<()>().1);
    pool.end();
}

/// With `None` and an open connection, both workers end with code 0 and release the socket.
#[apply(case)]
#[node_test("test-cluster-shared-leak")]
fn shared_leak() {
    let builder = Primary::builder().workers(2).policy(Policy::Shared);
    let pool = Pool::of(builder, &["serve_number", "127.0.0.1:0"]);
    pool.primary.ready().expect("ready");
    let (_, address) = pool.listening_tcp();
    let open = TcpStream::connect_timeout(&address, WAIT_MAX).expect("connect");
    pool.end();
    drop(open);
    TcpListener::bind(address).expect("the port is free again");
}

//! Connections that outlive the drain of their worker: WebSockets, streams, and requests on their way.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::routing::get;
use child_process::ExitStatus;
use cluster::{AsyncListener, Error, Policy, Primary, Worker};
use tokio::io::AsyncRead;

use super::accepting::write_all;
use super::shutdown::ask_until_the_end;
use crate::harness::{apply, case, role, storm};
use crate::support::pool::Pool;
use crate::support::{OrLeave, WAIT_MAX, storm_time, wait};

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("tokio starts").block_on(work);
}

/// `serve_websockets [closes]`: echoes, and with `closes` says goodbye when the worker drains.
#[apply(role)]
fn serve_websockets(args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let listener = cluster::listen("127.0.0.1:0").or_leave();
    let closes = !args.is_empty();
    let upgrade = move |upgrade: WebSocketUpgrade| async move {
        upgrade.on_upgrade(move |socket| echo(socket, worker, closes))
    };
    let app = Router::new().route("/ws", get(upgrade)).route("/", get(|| async { "plain" }));
    block_on(async {
        let listener = AsyncListener::new(listener).expect("watched");
        listener.serve(app).await.expect("served");
    });
}

async fn echo(mut socket: WebSocket, worker: Worker, closes: bool) {
    let mut draining = worker.draining();
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(message @ Message::Text(_))) => socket.send(message).await.expect("sent"),
                _ => return,
            },
            () = &mut draining, if closes => {
                let away = CloseFrame { code: 1001, reason: "moved".into() };
                socket.send(Message::Close(Some(away))).await.expect("sent");
                return;
            }
        }
    }
}

/// A client with an open WebSocket.
struct Socket(TcpStream);

impl Socket {
    fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect_timeout(&address, WAIT_MAX).expect("connect");
        stream.set_read_timeout(Some(WAIT_MAX)).expect("set");
        let request = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n\
            upgrade: websocket\r\nsec-websocket-version: 13\r\n\
            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{answer:?}");
        Self(stream)
    }

    /// Sends `hi`, masked with zeros, and waits for the echo.
    fn echoes(&mut self) -> bool {
        self.0.write_all(b"\x81\x82\0\0\0\0hi").expect("sent");
        let mut frame = [0; 4];
        self.0.read_exact(&mut frame).is_ok() && frame == *b"\x81\x02hi"
    }
}

/// The handler says goodbye at the drain: every client gets a close frame, no worker is ended by a
/// signal, and plain requests are answered by the new workers.
#[apply(case)]
fn a_websocket_gets_a_close_frame_at_a_reload() {
    let pool = Pool::of(Primary::builder().workers(2), &["serve_websockets", "closes"]);
    let address = pool.ready_tcp();
    let mut sockets: Vec<_> = (0..4).map(|_| Socket::open(address)).collect();
    assert!(sockets.iter_mut().all(Socket::echoes));
    let start = Instant::now();
    pool.primary.reload().expect("reloaded");
    assert!(start.elapsed() < Duration::from_secs(5), "no deadline has passed");
    for mut socket in sockets {
        let mut rest = Vec::new();
        socket.0.read_to_end(&mut rest).expect("the end");
        assert_eq!(rest, b"\x88\x07\x03\xe9moved");
    }
    for id in [1, 2] {
        assert_eq!(pool.exit(id), ExitStatus::Code(0));
    }
    pool.end();
}

/// A handler that does not look at the drain keeps its connection for `disconnect_within`.
#[apply(case)]
fn a_websocket_lives_for_as_long_as_its_worker_may() {
    let limit = Duration::from_millis(1500);
    let builder = Primary::builder().workers(1).disconnect_within(limit);
    let pool = Pool::of(builder, &["serve_websockets"]);
    let address = pool.ready_tcp();
    let mut socket = Socket::open(address);
    assert!(socket.echoes());
    thread::scope(|scope| {
        let start = Instant::now();
        let reload = scope.spawn(|| pool.primary.reload().expect("reloaded"));
        while start.elapsed() < Duration::from_millis(1000) {
            assert!(socket.echoes(), "cut after {:?}", start.elapsed());
            wait(Duration::from_millis(50));
        }
        reload.join().expect("no panic");
        assert!(start.elapsed() >= Duration::from_millis(1400), "{:?}", start.elapsed());
    });
    assert_eq!(pool.exit(1), ExitStatus::Signal(child_process::Signal::TERM));
    pool.end();
}

/// `count_open`: reports how many connections are open, before and after the drain, and leaves when
/// the last one is closed.
#[apply(role)]
fn count_open(_: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let listener = cluster::listen("127.0.0.1:0").or_leave();
    let mut kept: Vec<_> = (0..3).map(|_| listener.accept().expect("accept").0).collect();
    let stream = kept.pop().expect("three").into_inner();
    worker.send(&worker.open()).expect("sent");
    assert!(matches!(listener.accept(), Err(Error::Closed)));
    worker.draining().wait();
    assert_eq!(worker.all_closed().wait_timeout(Duration::from_millis(10)), 2);
    let readers: Vec<_> = kept
        .into_iter()
        .map(|mut stream| thread::spawn(move || stream.read(&mut [0; 8]).expect("read")))
        .collect();
    worker.send(&worker.open()).expect("sent");
    worker.all_closed().wait();
    assert_eq!(worker.open(), 0);
    worker.send(&worker.open()).expect("the channel is open for a moment");
    drop(stream);
    readers.into_iter().for_each(|reader| assert_eq!(reader.join().expect("no panic"), 1));
}

/// A blocking program waits for its open connections.
#[apply(case)]
fn a_worker_counts_its_open_connections_and_waits_for_the_last() {
    for policy in [Policy::RoundRobin, Policy::LeastLoaded, Policy::Shared, Policy::ReusePort] {
        let pool = Pool::of(Primary::builder().workers(1).policy(policy), &["count_open"]);
        let address = pool.ready_tcp();
        let mut clients: Vec<_> =
            (0..3).map(|_| TcpStream::connect(address).expect("connect")).collect();
        assert_eq!(pool.said_by::<usize>(1), 2);
        pool.worker(1).disconnect();
        assert_eq!(pool.said_by::<usize>(1), 2);
        clients.iter_mut().for_each(|client| client.write_all(b"x").expect("written"));
        assert_eq!(pool.said_by::<usize>(1), 0, "{policy:?}");
        assert_eq!(pool.exit(1), ExitStatus::Code(0));
    }
}

/// `serve_by_own_loop`: an accept loop of its own. At the end of its listener it drops every
/// connection from which it has read nothing, as a graceful shutdown of hyper does.
#[apply(role)]
fn serve_by_own_loop(_: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let Ok(listener) = cluster::listen("127.0.0.1:0") else { return };
    let body = worker.id().get().to_string();
    block_on(async {
        let listener = AsyncListener::new(listener).expect("watched");
        let (closing, closed) = tokio::sync::watch::channel(());
        let mut tasks = Vec::new();
        loop {
            let mut stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(Error::Closed) => break,
                Err(error) => panic!("accept: {error}"),
            };
            let (mut closed, body) = (closed.clone(), body.clone());
            tasks.push(tokio::spawn(async move {
                let mut bytes = [0; 1024];
                let mut buffer = tokio::io::ReadBuf::new(&mut bytes);
                let read = std::future::poll_fn(|context| {
                    std::pin::Pin::new(&mut stream).poll_read(context, &mut buffer)
                });
                tokio::select! {
                    read = read => read.expect("read"),
                    _ = closed.changed() => return,
                }
                tokio::task::yield_now().await;
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                write_all(&mut stream, answer.as_bytes()).await;
            }));
            tasks.retain(|task| !task.is_finished());
        }
        drop(closing);
        for task in tasks {
            task.await.expect("no panic");
        }
    });
}

/// One reload after the other under sixteen clients: no request on its way is cancelled.
#[apply(storm)]
fn a_storm_of_reloads_cancels_no_request_of_an_own_accept_loop() {
    for policy in [Policy::RoundRobin, Policy::Shared, Policy::ReusePort] {
        let builder = Primary::builder().workers(3).policy(policy);
        let pool = Pool::of(builder, &["serve_by_own_loop"]);
        let time = storm_time(2, 5);
        let mut reloads = std::sync::atomic::AtomicU32::new(0);
        let (seen, _pool) = ask_until_the_end(pool, |pool| {
            let start = Instant::now();
            while start.elapsed() < time {
                pool.primary.reload().expect("reloaded");
                reloads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            pool.primary.shutdown();
        });
        let reloads = reloads.get_mut();
        println!(
            "{policy:?}: {reloads} reloads, {} answered, {} dropped",
            seen.answered, seen.dropped
        );
        assert_eq!(seen.dropped, 0);
        assert!(*reloads >= 2, "the storm was too weak to prove anything");
    }
}

//! Ports that outlive their listeners: whatever way workers end, leave or close, no client is
//! refused while another worker can come, and none waits when none comes.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use child_process::ExitStatus;
use cluster::{Address, Builder, Error, Event, ListenOptions, Policy, Primary, Worker};

use crate::harness::{apply, case, role, storm};
use crate::support::http::{self, Asked, Outcome};
use crate::support::pool::{Pool, each_connection_has_one_end};
use crate::support::{WAIT_MAX, storm_time, wait};

const POLICIES: [Policy; 5] =
    [Policy::RoundRobin, Policy::LeastLoaded, Policy::Sticky, Policy::ReusePort, Policy::Shared];

/// The ways in which a worker ends after it has served enough.
const WAYS: [&str; 5] = ["return", "error", "panic", "exit", "leave"];

/// Many restarts at once, none of which is delayed.
fn restless(workers: u32) -> Builder {
    Primary::builder().workers(workers).restart_burst(100_000, Duration::from_micros(1))
}

/// `ends_after REQUESTS WAY START_MS`: listens after START_MS, answers this number of requests with
/// its number, and ends in this WAY, or with `mixed` in one of all ways.
#[apply(role)]
fn ends_after(args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let requests: usize = args[0].parse().expect("a number");
    let id = worker.id().get();
    let way = match args[1].as_str() {
        "mixed" => WAYS[id as usize % WAYS.len()],
        way => way,
    };
    wait(Duration::from_millis(args[2].parse().expect("a number")));
    // The cluster may end meanwhile.
    let Ok(listener) = cluster::listen("127.0.0.1:0") else { return };
    for (served, accepted) in listener.incoming().enumerate() {
        let (stream, _) = accepted.expect("accept");
        http::answer(stream, &id.to_string(), Duration::ZERO).expect("the client waits");
        if served + 1 != requests {
            continue;
        }
        match way {
            "return" => return,
            "error" => break,
            "panic" => {
                std::panic::set_hook(Box::new(|_| {}));
                panic!("a bug");
            }
            "exit" => std::process::exit(0),
            _ => worker.disconnect(),
        }
    }
    if way == "error" {
        // As `main` does with an error that it returns.
        drop(listener);
        std::process::exit(1);
    }
}

/// Asks until the time has passed, from several threads. Returns the number of answers.
#[track_caller]
fn ask_for(time: Duration, clients: u32, address: SocketAddr, what: &str) -> u64 {
    let until = Instant::now() + time;
    let client = || {
        let mut answered = 0;
        while Instant::now() < until {
            match http::get(address) {
                Asked { outcome: Outcome::Answered { .. }, .. } => answered += 1,
                asked => panic!("{what}, after {answered} answers: {asked:?}"),
            }
        }
        answered
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().expect("all are answered")).sum()
    })
}

fn end(pool: Pool) {
    let primary = pool.into_primary();
    primary.shutdown();
    primary.wait().expect("ended without a failure");
    each_connection_has_one_end(&primary);
}

/// A worker ends in an orderly way, and its `Listener` is closed before its process is gone. Clients
/// wait for the next worker.
#[apply(case)]
fn no_client_is_refused_when_the_last_listener_ends() {
    for policy in POLICIES {
        for (way, workers) in WAYS.iter().zip([1, 2, 1, 2, 1]) {
            let role = ["ends_after", "3", way, "60"];
            let pool = Pool::of(restless(workers).policy(policy), &role);
            let address = pool.ready_tcp();
            let what = format!("{policy:?} {way} x {workers}");
            let answered = ask_for(Duration::from_millis(300), 2, address, &what);
            println!("{what}: {answered} answered");
            assert!(answered > 3, "{what}: more than one worker answered");
            end(pool);
        }
    }
}

/// Workers end in step and at random, in all ways: 0 lost, 0 hung.
fn lose_no_client(policy: Policy) {
    let pool = Pool::of(restless(3).policy(policy), &["ends_after", "40", "mixed", "20"]);
    let address = pool.ready_tcp();
    let time = storm_time(2, 8);
    let answered = ask_for(time, 6, address, &format!("{policy:?}"));
    let ended = pool.events().filter(|event| matches!(event, Event::Exit { .. })).count();
    println!("{policy:?}: {answered} answered by workers of which {ended} ended");
    assert!(ended > 10, "{ended}");
    end(pool);
}

#[apply(storm)]
fn workers_that_end_in_all_ways_lose_no_client_in_rotation() {
    lose_no_client(Policy::RoundRobin);
}

#[apply(storm)]
fn workers_that_end_in_all_ways_lose_no_client_by_load() {
    lose_no_client(Policy::LeastLoaded);
}

#[apply(storm)]
fn workers_that_end_in_all_ways_lose_no_client_with_affinity() {
    lose_no_client(Policy::Sticky);
}

#[apply(storm)]
fn workers_that_end_in_all_ways_lose_no_client_with_their_own_sockets() {
    lose_no_client(Policy::ReusePort);
}

#[apply(storm)]
fn workers_that_end_in_all_ways_lose_no_client_on_a_shared_socket() {
    lose_no_client(Policy::Shared);
}

/// `echoes_datagrams PATH`: sends each datagram back, and returns after one that says `end`.
#[apply(role)]
fn echoes_datagrams(args: &[String]) {
    let path = std::path::PathBuf::from(&args[0]);
    let bound = ListenOptions::new().bind_datagram(path.as_path());
    let socket: cluster::BoundSocket<UnixDatagram> = bound.expect("bind");
    let mut buffer = [0; 64];
    while let Ok((count, from)) = socket.recv_from(&mut buffer) {
        if &buffer[..count] == b"end" {
            return;
        }
        let from = from.as_pathname().expect("a path").to_owned();
        socket.send_to(&buffer[..count], from).expect("send");
    }
}

/// A datagram socket outlives its workers as well: what they have not read waits for the next one.
#[apply(case)]
fn no_datagram_is_lost_when_the_last_worker_ends() {
    let folder = std::env::temp_dir().join(format!("brood-{}-datagrams", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (server, own) = (folder.join("server"), folder.join("own"));
    let path = server.to_str().expect("text");
    let builder = restless(1).listens_after(Duration::from_secs(60));
    let pool = Pool::of(builder, &["echoes_datagrams", path]);
    pool.primary.ready().expect("bound");
    let client = UnixDatagram::bind(&own).expect("bind");
    client.set_read_timeout(Some(WAIT_MAX)).expect("set");
    for round in 0..5 {
        client.send_to(b"end", &server).expect("send");
        let asked = format!("{round}");
        for _ in 0..3 {
            client.send_to(asked.as_bytes(), &server).expect("the socket stays");
        }
        for _ in 0..3 {
            let mut answer = [0; 8];
            let count = client.recv(&mut answer).expect("an answer");
            assert_eq!(&answer[..count], asked.as_bytes());
        }
    }
    end(pool);
    std::fs::remove_dir_all(&folder).expect("removed");
}

/// `opens_two_ports LATE_MS LAST`: listens on one port at once and on a second one after LATE_MS.
/// Workers with a number above LAST never open the second one.
#[apply(role)]
fn opens_two_ports(args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let id = worker.id().get();
    let serve = |listener: cluster::Listener| {
        for accepted in listener.incoming() {
            let (stream, _) = accepted.expect("accept");
            drop(http::answer(stream, &id.to_string(), Duration::ZERO));
        }
    };
    let Ok(health) = cluster::listen("127.0.0.1:0") else { return };
    thread::scope(|scope| {
        scope.spawn(|| serve(health));
        wait(Duration::from_millis(args[0].parse().expect("a number")));
        if id <= args[1].parse().expect("a number") {
            if let Ok(late) = cluster::listen("127.0.0.1:0") {
                serve(late);
            }
        }
    });
}

/// Waits until this number of workers listen on two ports; returns both.
fn two_ports(pool: &Pool, workers: usize) -> [SocketAddr; 2] {
    let first = pool.listening_tcp().1;
    let mut seconds = Vec::new();
    while seconds.len() < workers {
        let (_, address) = pool.listening_tcp();
        if address != first {
            seconds.push(address);
        }
    }
    [first, seconds[0]]
}

/// A port that workers open late is served through reloads and crashes, without a gap.
fn keeps_the_late_port(workers: u32) {
    let builder = restless(workers).ready_within(WAIT_MAX);
    let pool = Pool::of(builder, &["opens_two_ports", "1300", "1000000"]);
    pool.primary.ready().expect("ready");
    let ports = two_ports(&pool, workers as usize);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = ports
            .iter()
            .map(|port| {
                let over = &over;
                scope.spawn(move || {
                    let mut answered = 0;
                    while !over.load(Ordering::Relaxed) {
                        answered += ask_for(Duration::from_millis(50), 1, *port, "two ports");
                    }
                    answered
                })
            })
            .collect();
        let until = Instant::now() + storm_time(1, 15);
        let mut reloads = 0;
        while reloads == 0 || Instant::now() < until {
            pool.primary.reload().expect("all listen on both");
            reloads += 1;
        }
        over.store(true, Ordering::Relaxed);
        for client in clients {
            println!("{reloads} reloads, {} answered", client.join().expect("all answered"));
        }
    });
    // After a crash of all the clients wait for the late port.
    pool.events().for_each(drop);
    for worker in pool.primary.workers() {
        worker.kill(child_process::Signal::KILL).expect("kill");
    }
    for _ in 0..workers {
        pool.next("exit", |event| matches!(event, Event::Exit { .. }));
    }
    ask_for(Duration::from_millis(100), 1, ports[1], "after a crash");
    end(pool);
}

#[apply(storm)]
fn a_port_that_one_worker_opens_late_is_kept_by_reloads_and_a_crash() {
    keeps_the_late_port(1);
}

#[apply(storm)]
fn a_port_that_two_workers_open_late_is_kept_by_reloads_and_a_crash() {
    keeps_the_late_port(2);
}

/// A release that does not open a port of the earlier one is refused by name, until the user says
/// that this port is done.
#[apply(case)]
fn a_reload_names_the_port_that_is_missing_and_keeps_the_workers() {
    for policy in [Policy::RoundRobin, Policy::ReusePort, Policy::Shared] {
        let builder = Primary::builder().workers(1).policy(policy);
        let builder = builder.ready_within(Duration::from_secs(3));
        let pool = Pool::of(builder, &["opens_two_ports", "0", "1"]);
        pool.primary.ready().expect("ready");
        let [first, second] = two_ports(&pool, 1);
        let error = pool.primary.reload().expect_err("worker 2 has one port");
        let said = error.to_string();
        assert!(said.contains(&format!("worker 2, which does not listen on {second};")), "{said}");
        let Error::NotReady(not_ready) = error else { panic!("{error:?}") };
        assert_eq!(not_ready.workers[0].missing, [Address::from(second)]);
        for port in [first, second] {
            let answer = http::ask(port).expect("connected").answer();
            // Where the new worker has the socket as well, it accepts until it has ended.
            let may_be_new = policy != Policy::RoundRobin && port == first;
            assert!(answer == "1" || (may_be_new && answer == "2"), "{policy:?}: {answer}");
        }
        assert_eq!(pool.exit(2), ExitStatus::Code(0), "{policy:?}");
        for port in [first, second] {
            assert_eq!(http::ask(port).expect("connected").answer(), "1", "{policy:?}");
        }
        pool.primary.close_address(&second.into());
        pool.next("end of the address", |event| matches!(event, Event::AddressClosed { .. }));
        pool.primary.reload().expect("one port is enough");
        assert_eq!(http::ask(first).expect("connected").answer(), "3", "{policy:?}");
        let refused = http::ask(second).expect_err("the port is closed");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        end(pool);
    }
}

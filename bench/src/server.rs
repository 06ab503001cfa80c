//! The servers of topic `cluster`, each a role of this program.
//!
//! `bench role server KIND WORKERS` serves `hello from worker ID pid PID` over axum on a free port
//! of the loopback and prints the port once every worker listens.

#[path = "server/bare.rs"]
mod bare;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use cluster::{AsyncListener, Policy, Primary, Worker, WorkerOptions};

/// The name of the role.
pub const ROLE: &str = "server";

/// The descriptor number of the shared listener in a worker.
const SHARED: i32 = 3;

type Done = Result<(), Box<dyn std::error::Error>>;

pub fn role() {
    let args: Vec<String> = std::env::args().skip(3).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let served = match args.as_slice() {
        ["brood", workers] => brood(workers, Policy::RoundRobin),
        ["brood-none", workers] => brood(workers, Policy::Shared),
        ["brood-reuse-port", workers] => brood(workers, Policy::ReusePort),
        ["brood-node", workers, script] => brood_node(workers, script),
        ["threads", workers] => threads(workers),
        ["shared", workers] => shared(workers),
        ["shared-worker", id] => shared_worker(id),
        ["bare", workers] => bare::primary(workers),
        ["bare-worker", id] => bare::worker(id),
        ["reuse-port", workers] => reuse_port(workers),
        ["reuse-port-worker", id, port] => reuse_port_worker(id, port),
        _ => Err("no such server".into()),
    };
    if let Err(error) = served {
        eprintln!("bench server {args:?}: {error}");
        std::process::exit(1);
    }
}

fn app(id: &str) -> Router {
    let body = format!("hello from worker {id} pid {}\n", std::process::id());
    Router::new().route("/", get(move || std::future::ready(body.clone())))
}

fn one_thread(serve: impl Future<Output = Done>) -> Done {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve)
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Runs the server of brood, whose primary dispatches the connections.
fn brood(workers: &str, policy: Policy) -> Done {
    if let Some(worker) = Worker::current() {
        let listener = cluster::listen(loopback(0))?;
        return one_thread(async {
            let listener = AsyncListener::new(listener)?;
            let app = app(&worker.id().get().to_string());
            Ok(axum::serve(listener, app).with_graceful_shutdown(worker.draining()).await?)
        });
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    supervise(
        Primary::builder()
            .workers(workers.parse()?)
            .policy(policy)
            .worker(WorkerOptions::new().args(args)),
    )
}

/// Runs the server of brood with Node workers. The script is a worker of the primary that starts
/// it.
fn brood_node(workers: &str, script: &str) -> Done {
    supervise(
        Primary::builder().worker(WorkerOptions::new().exec(script)).workers(workers.parse()?),
    )
}

fn supervise(builder: cluster::Builder) -> Done {
    let primary = builder.shutdown_on_signals().build()?;
    primary.start();
    primary.ready()?;
    let address = primary.address().ok_or("no address")?.to_string();
    println!("{}", address.rsplit(':').next().unwrap_or_default());
    primary.wait()?;
    Ok(())
}

/// Runs one process, with as many threads as the others have workers.
fn threads(workers: &str) -> Done {
    let threads = workers.parse()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(loopback(0)).await?;
        println!("{}", listener.local_addr()?.port());
        Ok(axum::serve(listener, app("0")).await?)
    })
}

/// Runs processes that share one listening socket and nothing else.
fn shared(workers: &str) -> Done {
    let listener = TcpListener::bind(loopback(0))?;
    listener.set_nonblocking(true)?;
    let children: Result<Vec<_>, Box<dyn std::error::Error>> = (0..workers.parse::<u32>()?)
        .map(|id| {
            let mut command = child_process::Command::new(std::env::current_exe()?);
            command.args(["role", ROLE, "shared-worker", &id.to_string()]);
            command.descriptor(SHARED, listener.try_clone()?);
            start(&mut command)
        })
        .collect();
    println!("{}", listener.local_addr()?.port());
    wait(children?)
}

fn shared_worker(id: &str) -> Done {
    // SAFETY: the parent has placed the listener there, and nothing else here uses that number.
    let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(SHARED) });
    one_thread(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        println!("ready");
        Ok(axum::serve(listener, app(id)).await?)
    })
}

/// Runs processes with a listening socket each, among which the kernel chooses.
fn reuse_port(workers: &str) -> Done {
    // This socket is bound and never listens. It reserves the port.
    let holder = tokio::net::TcpSocket::new_v4()?;
    holder.set_reuseport(true)?;
    holder.bind(loopback(0))?;
    let port = holder.local_addr()?.port();
    let children: Result<Vec<_>, Box<dyn std::error::Error>> = (0..workers.parse::<u32>()?)
        .map(|id| {
            let mut command = child_process::Command::new(std::env::current_exe()?);
            let (id, port) = (id.to_string(), port.to_string());
            command.args(["role", ROLE, "reuse-port-worker", &id, &port]);
            start(&mut command)
        })
        .collect();
    println!("{port}");
    wait(children?)
}

fn reuse_port_worker(id: &str, port: &str) -> Done {
    let address = loopback(port.parse()?);
    one_thread(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        let listener = socket.listen(1024)?;
        println!("ready");
        Ok(axum::serve(listener, app(id)).await?)
    })
}

/// Starts a worker, and waits until it listens.
fn start(
    command: &mut child_process::Command,
) -> Result<child_process::Child, Box<dyn std::error::Error>> {
    use child_process::{Signal, Stdio};
    // The worker ends when the server is killed.
    command.parent_death_signal(Signal::KILL);
    command.stdin(Stdio::null()).stdout(Stdio::pipe()).stderr(Stdio::inherit());
    let mut child = command.spawn()?;
    let output = child.take_stdout().ok_or("no pipe")?;
    BufReader::new(output).read_line(&mut String::new())?;
    Ok(child)
}

fn wait(children: Vec<child_process::Child>) -> Done {
    for child in children {
        while child.wait_timeout(Duration::from_secs(3600))?.is_none() {}
    }
    Ok(())
}

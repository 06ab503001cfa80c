//! Dispatch by system calls alone: accept, a message with the descriptor, close.
//!
//! The server has no code of brood. It polls no worker before it dispatches a connection, counts,
//! times and reclaims nothing, and does not notice the death of a worker. The server is therefore
//! the minimum cost of dispatching in rotation, and its extra cost over a shared listener is the
//! kernel's.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use axum::serve::Listener;
use sys::scm::{self, RecvFlags};
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use super::{Done, ROLE, SHARED, app, loopback, one_thread, start};

/// A message as long as a record of brood.
const RECORD: [u8; 32] = [1; 32];

pub fn primary(workers: &str) -> Done {
    let listener = TcpListener::bind(loopback(0))?;
    let (mut queues, mut children) = (Vec::new(), Vec::new());
    for id in 0..workers.parse::<u32>()? {
        let (write, read) = sys::socket::pair_seqpacket()?;
        let mut command = child_process::Command::new(std::env::current_exe()?);
        command.args(["role", ROLE, "bare-worker", &id.to_string()]).descriptor(SHARED, read);
        children.push(start(&mut command)?);
        queues.push(write);
    }
    println!("{}", listener.local_addr()?.port());
    for queue in queues.iter().cycle() {
        // Both calls block until they succeed.
        let (connection, _) = sys::socket::accept(listener.as_fd())?;
        scm::send_blocking(queue.as_fd(), &[IoSlice::new(&RECORD)], &[connection.as_fd()])?;
    }
    Ok(())
}

#[allow(deprecated, reason = "the successor is `unsafe`; the queue owns one descriptor for good")]
pub fn worker(id: &str) -> Done {
    // SAFETY: the parent has placed the queue there, and nothing else here uses that number.
    let queue = unsafe { OwnedFd::from_raw_fd(SHARED) };
    one_thread(async {
        let queue = Queue(AsyncFd::new(queue)?);
        println!("ready");
        Ok(axum::serve(queue, app(id)).await?)
    })
}

struct Queue(AsyncFd<OwnedFd>);

impl Queue {
    async fn take(&self) -> io::Result<TcpStream> {
        let flags = RecvFlags { dont_wait: true, peek: false };
        let take = |queue: &AsyncFd<OwnedFd>| {
            scm::recv(queue.get_ref().as_fd(), &mut RECORD.clone(), 1, flags)
        };
        loop {
            if let Ok(received) = self.0.readable().await?.try_io(take) {
                let connection = received?.fds.pop().ok_or(io::ErrorKind::UnexpectedEof)?;
                return TcpStream::from_std(connection.into());
            }
        }
    }
}

impl Listener for Queue {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        match self.take().await {
            Ok(stream) => (stream, loopback(0)),
            // The primary has ended.
            Err(_) => std::process::exit(0),
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(loopback(0))
    }
}

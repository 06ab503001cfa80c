//! The example `http_cluster` as a running server, and a client of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use sys::pidfd::PidFd;
use sys::signal::{self, Signal};

use crate::support::example;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A running `http_cluster`; killed with its workers if a test fails.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) announced: String,
}

impl Server {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut child = Command::new(example("http_cluster"))
            .args(["--port", "0"])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut announced = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut announced).unwrap();
        let address = announced
            .split_whitespace()
            .find_map(|word| word.strip_prefix("http://"))
            .unwrap_or_else(|| panic!("no address in {announced:?}"))
            .parse()
            .unwrap();
        Self { child, address, announced }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(BufReader::new(stream))
    }

    /// Makes one request on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> String {
        self.connect().get(path, "close")
    }

    pub(crate) fn workers(&self) -> Vec<u32> {
        // The kernel lists a child under the thread that spawned it.
        std::fs::read_dir(format!("/proc/{}/task", self.pid()))
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
            .flat_map(|pids| {
                pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Waits for the exit; returns the code and the standard error.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        let ended = PidFd::open(self.pid()).unwrap();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert!(sys::poll::readable(std::os::fd::AsFd::as_fd(&ended), Some(PATIENCE)).unwrap());
        (self.child.wait().unwrap(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for worker in self.workers() {
                let _ = signal::kill(worker, Signal::KILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A client with one connection.
pub(crate) struct Client(pub(crate) BufReader<TcpStream>);

impl Client {
    pub(crate) fn get(&mut self, path: &str, connection: &str) -> String {
        self.ask(path, connection);
        self.answer().unwrap()
    }

    /// As [`get`](Self::get); returns `None` when the connection ends before a byte of the answer.
    pub(crate) fn try_get(&mut self, path: &str, connection: &str) -> Option<String> {
        self.try_ask(path, connection).ok()?;
        match self.0.fill_buf() {
            Ok([]) => None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Ok(_) | Err(_) => Some(self.answer().unwrap()),
        }
    }

    pub(crate) fn ask(&mut self, path: &str, connection: &str) {
        self.try_ask(path, connection).unwrap();
    }

    fn try_ask(&mut self, path: &str, connection: &str) -> std::io::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: {connection}\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes())
    }

    /// Waits until the server has read the whole request. HTTP allows a server that closes an idle
    /// connection to drop a request that it has not read.
    pub(crate) fn wait_until_read(&self) {
        let (ours, theirs) = (self.0.get_ref().local_addr().unwrap(), self.0.get_ref().peer_addr());
        let port = |address: SocketAddr| format!(":{:04X}", address.port());
        let (ours, theirs) = (port(ours), port(theirs.unwrap()));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
            let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let line = lines.find(|it| it[1].ends_with(&theirs) && it[2].ends_with(&ours)).unwrap();
            if line[4].ends_with(":00000000") {
                return;
            }
            assert!(Instant::now() < deadline, "unread: {line:?}");
        }
    }

    pub(crate) fn answer(&mut self) -> std::io::Result<String> {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(String::from_utf8(body).unwrap())
    }
}

//! The servers under load, as child processes.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::load;
use crate::server;

/// The maximum time from the start of a server until it serves.
const START_MAX: Duration = Duration::from_secs(30);

/// A running server. Dropping the value ends the server and its workers.
#[derive(Debug)]
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
}

/// Builds the program `servers`, because `cargo run` builds only the program that it runs.
fn build_servers() -> Result<(), String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "-q", "--locked", "--bin", "servers", "--manifest-path"]);
    cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.status().map_err(|error| format!("cargo: {error}"))?;
    if built.success() { Ok(()) } else { Err("`servers` could not be built".to_owned()) }
}

impl Server {
    /// Starts this program in the role of a server of this kind.
    pub fn native(kind: &str, workers: u32, more: &[&str]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let workers = workers.to_string();
        Self::start(Command::new(program).args(["role", server::ROLE, kind, &workers]).args(more))
    }

    /// Starts the same server in a program without the benchmarks.
    pub fn lean(kind: &str, workers: u32) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let program = program.with_file_name("servers");
        static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
        BUILT.get_or_init(build_servers).clone()?;
        Self::start(Command::new(program).args(["role", server::ROLE, kind, &workers.to_string()]))
    }

    /// Starts any program that prints its port once it serves.
    pub fn start(command: &mut Command) -> Result<Self, String> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let output = child.stdout.take().expect("it was piped");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Self { child, address };
        let starts = sys::poll::readable(output.as_fd(), Some(START_MAX));
        if !starts.map_err(|error| error.to_string())? {
            return Err(format!("it did not start within {START_MAX:?}"));
        }
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
        let port = line.trim().parse().map_err(|_| format!("it did not start: {line:?}"))?;
        server.address.set_port(port);
        Ok(server)
    }

    /// Wraps a server that was started elsewhere, in a process group of its own.
    pub fn of(child: Child, address: SocketAddr) -> Self {
        Self { child, address }
    }

    /// Kills the oldest worker, and sends requests until a new worker answers.
    ///
    /// The oldest worker is chosen so that each slot has its turn and no back-off begins.
    pub fn replace_one(&self) -> Result<Vec<f64>, String> {
        let before = load::children(self.child.id());
        let victim = *before.iter().min().ok_or("it has no workers")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let begin = Instant::now();
        sys::signal::kill(victim, sys::signal::Signal::KILL).map_err(|error| error.to_string())?;
        while begin.elapsed() < Duration::from_secs(10) {
            // A connection that the killed worker had accepted fails. The failure is not measured
            // here.
            let answer = runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(1), load::ask_once(self.address)).await
            });
            let Ok(Ok(answer)) = answer else { continue };
            let pid = answer.rsplit(' ').next().and_then(|pid| pid.parse().ok());
            if pid.is_some_and(|pid: u32| !before.contains(&pid)) {
                return Ok(vec![begin.elapsed().as_nanos() as f64]);
            }
        }
        Err("no replacement within 10 s".to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.id();
        if let Some(term) = sys::signal::Signal::from_name("SIGTERM") {
            let _ = sys::signal::kill(pid, term);
        }
        let ended = sys::pidfd::PidFd::open(pid)
            .and_then(|child| sys::poll::readable(child.as_fd(), Some(Duration::from_secs(5))));
        if !ended.unwrap_or(false) {
            let _ = sys::signal::kill_group(pid, sys::signal::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

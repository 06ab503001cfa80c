//! nginx as a contender, with its own configuration in a temporary folder.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::server::Server;
use crate::load;

/// The maximum time from the start of nginx to its first answer.
const START_MAX: Duration = Duration::from_secs(10);

/// The folder of a running nginx. Dropping the value removes the folder; the server must have
/// ended.
#[derive(Debug)]
pub struct Nginx(PathBuf);

impl Nginx {
    /// Starts nginx with `workers` workers, and waits for its first answer.
    pub fn start(workers: u32) -> Result<(Self, Server), String> {
        let text = |error: std::io::Error| error.to_string();
        let version = Command::new("nginx").arg("-v").stderr(Stdio::null()).status();
        version.map_err(|error| format!("not installed ({error})"))?;
        let folder = std::env::temp_dir().join(format!("bench-nginx-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(text)?;
        let nginx = Self(folder);
        // The port is free now. If another program takes it before nginx does, nginx is absent with
        // that reason.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let address = free.map_err(text)?;
        let file = nginx.0.join("nginx.conf");
        fs::write(&file, configuration(workers, address)).map_err(text)?;
        let child = Command::new("nginx")
            .args(["-p".as_ref(), nginx.0.as_os_str(), "-c".as_ref(), file.as_os_str()])
            .args(["-e", "error.log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(text)?;
        let mut server = Server::of(child, address);
        let begin = Instant::now();
        while begin.elapsed() < START_MAX {
            if server.child.try_wait().map_err(text)?.is_some() {
                let log = fs::read_to_string(nginx.0.join("error.log")).unwrap_or_default();
                return Err(format!("nginx ended at once: {}", log.trim()));
            }
            if answers(address) {
                return Ok((nginx, server));
            }
        }
        Err(format!("nginx did not answer within {START_MAX:?}"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn answers(address: SocketAddr) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime.map(|runtime| {
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(1), load::ask_once(address)).await
        })
    });
    matches!(asked, Ok(Ok(Ok(_))))
}

/// Returns the fastest configuration: no log, no file, and no limit on the age of connections.
fn configuration(workers: u32, address: SocketAddr) -> String {
    // SAFETY: the call has no arguments and cannot fail.
    let user = if unsafe { libc::geteuid() } == 0 { "user root;" } else { "" };
    format!(
        "{user}
worker_processes {workers};
daemon off;
pid nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen {address};
        location / {{ return 200 \"hello from worker $pid pid $pid\\n\"; }}
    }}
}}
"
    )
}

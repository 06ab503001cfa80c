//! An HTTP server in Rust as a worker of a Node primary, beside Node workers or alone.
//!
//! A Node program forks the server like a script, with another executable:
//!
//! ```js
//! const cluster = require('cluster');
//! process.execPath = 'target/release/examples/rust_worker';
//! cluster.setupPrimary({ exec: '8000', execArgv: [] });
//! cluster.fork();
//! ```
//!
//! ```text
//! rust_worker [PORT]        (default 8000)
//! ```
//!
//! You will see that `curl http://127.0.0.1:8000/` prints `hello from rust worker 1 (pid …)`.
//! `worker.disconnect()` in the primary ends the worker after the requests in progress have been
//! answered. The program also runs by hand, as a single server, and as a worker of a Rust primary.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::process::ExitCode;

use axum::Router;
use axum::routing::get;
use cluster::{AsyncListener, Error, Worker};

fn main() -> ExitCode {
    brood::init().expect("process 1 has one thread at this point");
    let port = match std::env::args().nth(1).map(|text| text.parse::<u16>()) {
        None => 8000,
        Some(Ok(port)) => port,
        Some(Err(_)) => {
            eprintln!("usage: rust_worker [PORT]");
            return ExitCode::from(2);
        }
    };
    match serve(port) {
        // The primary ended the worker before it listened.
        Ok(()) | Err(Error::Closed) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rust_worker: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn serve(port: u16) -> Result<(), Error> {
    let worker = Worker::current();
    let id = worker.as_ref().map_or(0, |worker| worker.id().get());
    let pid = std::process::id();
    let hello = move || async move { format!("hello from rust worker {id} (pid {pid})\n") };
    let app = Router::new().route("/", get(hello));
    let listener = cluster::listen(("127.0.0.1", port))?;
    if worker.is_none() {
        println!("listening on http://{} alone", listener.address());
    }
    let failed = |call| move |source| Error::Os(call, source);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(failed("start tokio"))?.block_on(async {
        let server = axum::serve(AsyncListener::new(listener)?, app);
        match worker {
            Some(worker) => server.with_graceful_shutdown(worker.draining()).await,
            None => server.await,
        }
        .map_err(failed("serve"))
    })
}

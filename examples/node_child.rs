//! A Rust program as the child of a Node program: what `child_process.fork` starts.
//!
//! ```text
//! $ cat parent.js
//! const { fork } = require('child_process');
//! const child = fork('-', [], { execPath: 'target/debug/examples/node_child', execArgv: [] });
//! child.on('message', (message) => { console.log(message); child.disconnect(); });
//! child.send({ hello: 'rust' });
//! $ node parent.js
//! { hello: 'rust' }
//! ```
//!
//! It sends every message back. A `net.Socket` that comes with one is answered with
//! `hello from rust` and closed, and so is every connection that a `net.Server` accepts from then
//! on. The message `"server"` makes it send a listening TCP server, `"exit"` makes it disconnect
//! and exit with 0. Its arguments do not matter.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example speaks to its user")]

use std::error::Error;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use child_process::{Event, Parent, parent};
use ipc::advanced::{Item, Value};
use ipc::{AnyHandle, Message, Serialization};
use serde_json::Value as Json;

const HELLO: &[u8] = b"hello from rust\n";

fn main() -> ExitCode {
    let Some(parent) = parent() else {
        eprintln!(
            "node_child: this program is forked by a Node program; see the head of its source"
        );
        return ExitCode::from(2);
    };
    for event in parent.events() {
        match event {
            Event::Message(message) => match answer(parent, message) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => eprintln!("node_child: {error}"),
            },
            Event::Error(error) => eprintln!("node_child: {error}"),
            _ => {}
        }
    }
    ExitCode::SUCCESS
}

/// False when that was the last one.
fn answer(parent: &Parent, mut message: Message) -> Result<bool, Box<dyn Error>> {
    if let Some(handle) = message.take_handle() {
        greet(handle)?;
    }
    // V8's format says more than JSON: it is sent back as it came.
    if message.serialization() == Serialization::Advanced {
        let value: Value = message.decode()?;
        let word = match value.root() {
            Item::String(text) => text.to_str(),
            _ => None,
        };
        return say(parent, word.as_deref(), value);
    }
    let value: Json = message.decode()?;
    say(parent, value.as_str().map(str::to_owned).as_deref(), value)
}

fn say<T>(parent: &Parent, word: Option<&str>, value: T) -> Result<bool, Box<dyn Error>>
where
    T: serde::Serialize,
{
    match word {
        Some("server") => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            parent.send_with_handle("server", listener).map_err(|failed| failed.error)?;
        }
        Some("exit") => {
            parent.disconnect()?;
            return Ok(false);
        }
        _ => send(parent, value)?,
    }
    Ok(true)
}

/// Waits while Node reads more slowly than it writes.
fn send<T: serde::Serialize>(parent: &Parent, mut value: T) -> Result<(), ipc::Error> {
    loop {
        match parent.send(value) {
            Ok(_) => return Ok(()),
            Err(failed) if matches!(failed.error, ipc::Error::Full) => value = failed.value,
            Err(failed) => return Err(failed.error),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Everything that comes from Node is non-blocking: a short answer fits, a server is waited for.
fn greet(handle: AnyHandle) -> std::io::Result<()> {
    match handle {
        AnyHandle::TcpStream(mut socket) => socket.write_all(HELLO),
        AnyHandle::UnixStream(mut socket) => socket.write_all(HELLO),
        AnyHandle::TcpListener(listener) => {
            serve(listener, |listener| listener.accept().map(|(it, _)| it))
        }
        AnyHandle::UnixListener(listener) => {
            serve(listener, |listener| listener.accept().map(|(it, _)| it))
        }
        _ => Ok(()),
    }
}

/// Greets whoever comes, on a thread that lives as long as the program.
fn serve<L, S>(
    listener: L,
    accept: impl Fn(&L) -> std::io::Result<S> + Send + 'static,
) -> std::io::Result<()>
where
    L: AsFd + Send + 'static,
    S: Write,
{
    thread::Builder::new().spawn(move || {
        while sys::poll::readable(listener.as_fd(), None).unwrap_or(false) {
            // Somebody else may have been faster: Node still has the server, too.
            if let Ok(mut socket) = accept(&listener) {
                let _ = socket.write_all(HELLO);
            }
        }
    })?;
    Ok(())
}

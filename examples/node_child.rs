//! A Rust program as the child of a Node program that calls `child_process.fork`.
//!
//! Build the example with `cargo build --example node_child` and run a Node program that forks it:
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
//! You will see that the child sends every message back. It answers a `net.Socket` that comes with
//! a message with `hello from rust` and closes the socket. It does the same for every connection to
//! a `net.Server` that comes with a message. After the message `"server"` the child sends a
//! listening TCP server; after `"exit"` it disconnects and exits with 0. Arguments are ignored.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

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
    brood::init().expect("process 1 has one thread at this point");
    let Some(parent) = parent() else {
        eprintln!(
            "node_child: this program is forked by a Node program; see the head of its source"
        );
        return ExitCode::from(2);
    };
    for event in parent.take_events().expect("taken once") {
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

/// Answers one message. Returns false after the last one.
fn answer(parent: &Parent, mut message: Message) -> Result<bool, Box<dyn Error>> {
    if let Some(handle) = message.take_handle() {
        greet(handle)?;
    }
    // V8's format has more types than JSON, so the value is sent back without conversion.
    if message.serialization() == Serialization::Advanced {
        let value: Value = message.decode()?;
        let word = match value.root() {
            Item::String(text) => text.to_str(),
            _ => None,
        };
        return reply(parent, word.as_deref(), value);
    }
    let value: Json = message.decode()?;
    reply(parent, value.as_str().map(str::to_owned).as_deref(), value)
}

/// Performs the command `word`, or sends the value back. Returns false after the last message.
fn reply<T>(parent: &Parent, word: Option<&str>, value: T) -> Result<bool, Box<dyn Error>>
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
        _ => send(parent, &value)?,
    }
    Ok(true)
}

/// Sends a value. Waits while the channel is full, because Node reads more slowly than it writes.
fn send<T: serde::Serialize>(parent: &Parent, value: &T) -> Result<(), ipc::Error> {
    loop {
        match parent.send(value) {
            Ok(_) => return Ok(()),
            Err(ipc::Error::Full) => thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error),
        }
    }
}

/// Answers the connection, or all connections of the server.
///
/// Handles from Node are non-blocking. The short answer fits into the socket's buffer, and a server
/// needs a wait for its next connection.
fn greet(handle: AnyHandle) -> std::io::Result<()> {
    match handle {
        AnyHandle::TcpStream(mut socket) => socket.write_all(HELLO),
        AnyHandle::UnixStream(mut socket) => socket.write_all(HELLO),
        AnyHandle::TcpListener(listener) => {
            serve(listener, |listener| listener.accept().map(|(socket, _)| socket))
        }
        AnyHandle::UnixListener(listener) => {
            serve(listener, |listener| listener.accept().map(|(socket, _)| socket))
        }
        _ => Ok(()),
    }
}

/// Answers every connection, on a thread that lives as long as the program.
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
            // Node still has the server, too, and may have accepted the connection first.
            if let Ok(mut socket) = accept(&listener) {
                let _ = socket.write_all(HELLO);
            }
        }
    })?;
    Ok(())
}

//! A Rust program that forks a Node script and exchanges messages with it, in JSON or V8's format.
//!
//! ```text
//! cargo run --example node_parent -- SCRIPT [--serialization json|advanced]
//! ```
//!
//! Each line of standard input is a JSON value, which the program sends to the script. You will see
//! each message from the script as a JSON line on standard output. A message with a handle is
//! printed as `{"message":…,"handle":{"$handle":"tcp-socket"}}` (or `tcp-server`, `udp`,
//! `unix-socket`, `unix-server`); the program answers a connection with `hello from rust` and
//! closes it. The end of standard input disconnects the channel. The last line on standard error is
//! `exit CODE` or `exit SIGNAL`, and the exit code is that of the script.
//!
//! ```text
//! $ cat double.js
//! process.on('message', (number) => process.send(number * 2));
//! $ printf '21\n1.5\n' | cargo run -q --example node_parent -- double.js
//! 42
//! 3
//! exit 0
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::error::Error;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use child_process::{Child, Event, ExitStatus, Fork, Module};
use crossbeam_channel::{Receiver, bounded, never, select};
use ipc::advanced::{Entry, Item, Key, Node, NodeId, Text, Value};
use ipc::{AnyHandle, Message, Serialization};
use serde_json::{Map, Value as Json, json};

/// The maximum length of an array with gaps that is printed as an array; longer ones become
/// objects.
const GAPS_MAX: u32 = 65_536;

const USAGE: &str = "usage: node_parent SCRIPT [--serialization json|advanced]";

fn main() -> ExitCode {
    brood::init().expect("process 1 has one thread at this point");
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (script, serialization) = match args[..] {
        [script] | [script, "--serialization", "json"] => (script, Serialization::Json),
        [script, "--serialization", "advanced"] => (script, Serialization::Advanced),
        _ => {
            eprintln!("node_parent: {USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(script, serialization) {
        Ok(ExitStatus::Code(code)) => {
            eprintln!("exit {code}");
            ExitCode::from(code as u8)
        }
        Ok(ExitStatus::Signal(signal)) => {
            eprintln!("exit {signal}");
            ExitCode::from(128_u8.wrapping_add(signal.number() as u8))
        }
        Ok(status) => {
            eprintln!("exit {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("node_parent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(script: &str, serialization: Serialization) -> Result<ExitStatus, Box<dyn Error>> {
    let mut fork = Fork::new(Module::node(script));
    let child = fork.serialization(serialization).spawn()?;
    let events = child.take_events().expect("taken once");
    let mut lines = lines();
    // The line that did not fit into the channel, because the script reads more slowly than this
    // program.
    let mut unsent: Option<Json> = None;
    loop {
        if let Some(value) = unsent.take() {
            unsent = send(&child, value);
        }
        let open = if unsent.is_none() { &lines } else { &never() };
        select! {
            recv(open) -> line => match line {
                Ok(value) => unsent = send(&child, value),
                Err(_) => {
                    lines = never();
                    // The call fails when the script has disconnected first.
                    let _ = child.disconnect();
                }
            },
            recv(events) -> event => match event? {
                Event::Message(message) => show(message)?,
                Event::Error(error) => eprintln!("node_parent: {error}"),
                Event::Close(status) => return Ok(status),
                _ => {}
            },
            default(if unsent.is_some() { Duration::from_millis(5) } else { Duration::MAX }) => {}
        }
    }
}

/// Returns a channel with the values of standard input.
fn lines() -> Receiver<Json> {
    let (sender, receiver) = bounded(0);
    thread::spawn(move || {
        for (number, line) in (1..).zip(std::io::stdin().lock().lines()) {
            let Ok(line) = line else { return };
            match serde_json::from_str(&line) {
                // The send fails once the script has ended, when the value is of no use.
                Ok(value) => drop(sender.send(value)),
                Err(error) => eprintln!("node_parent: line {number} is no JSON: {error}"),
            }
        }
    });
    receiver
}

/// Sends a value. Returns the value when the channel is full.
fn send(child: &Child, value: Json) -> Option<Json> {
    match child.send(&value) {
        Ok(_) => None,
        Err(ipc::Error::Full) => Some(value),
        Err(error) => {
            eprintln!("node_parent: not sent: {error}");
            None
        }
    }
}

/// Prints a message, and answers the connection that came with it.
fn show(mut message: Message) -> std::io::Result<()> {
    let handle = message.take_handle();
    let value = match message.serialization() {
        Serialization::Json => message.decode::<Json>(),
        _ => message.decode::<Value>().map(|value| to_json(&value, value.root(), &mut Vec::new())),
    };
    let value = match value {
        Ok(value) => value,
        Err(error) => {
            eprintln!("node_parent: {error}");
            return Ok(());
        }
    };
    let line = match &handle {
        None => value,
        Some(handle) => json!({"message": value, "handle": {"$handle": handle.name()}}),
    };
    writeln!(std::io::stdout(), "{line}")?;
    // The write fails when the client has closed the connection, which is no error here.
    let _ = match handle {
        Some(AnyHandle::TcpStream(mut socket)) => socket.write_all(b"hello from rust\n"),
        Some(AnyHandle::UnixStream(mut socket)) => socket.write_all(b"hello from rust\n"),
        _ => Ok(()),
    };
    Ok(())
}

/// Converts a JavaScript value to JSON, with a readable text for values that JSON lacks.
///
/// `parents` are the objects that contain the value.
fn to_json(value: &Value, item: &Item, parents: &mut Vec<NodeId>) -> Json {
    let id = match item {
        Item::Undefined | Item::Null => return Json::Null,
        Item::Bool(value) => return json!(value),
        Item::Int(number) => return json!(number),
        Item::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            return json!(*number as i64);
        }
        Item::Double(number) => return json!(number),
        Item::BigInt(number) => {
            return number.to_i128().map_or(Json::Null, |number| json!(format!("{number}n")));
        }
        Item::String(text) => return json!(text.to_string()),
        Item::Object(id) => *id,
    };
    if parents.contains(&id) {
        return json!("[circular]");
    }
    parents.push(id);
    let json = node_to_json(value, value.node(id), parents);
    parents.pop();
    json
}

fn node_to_json(value: &Value, node: &Node, parents: &mut Vec<NodeId>) -> Json {
    let text = |text: &Option<Text>| text.as_ref().map(ToString::to_string);
    match node {
        // An array with gaps, or an array that V8 does not know to be without gaps.
        Node::Sparse { length, entries } if *length <= GAPS_MAX => {
            let mut items = vec![Json::Null; *length as usize];
            for Entry { key, item } in entries {
                if let Key::Index(at) = key {
                    if let Some(slot) = items.get_mut(*at as usize) {
                        *slot = to_json(value, item, parents);
                    }
                }
            }
            items.into()
        }
        Node::Object(entries) | Node::Sparse { entries, .. } => {
            let fields = entries
                .iter()
                .map(|entry| (entry.key.to_string(), to_json(value, &entry.item, parents)));
            Json::Object(fields.collect::<Map<_, _>>())
        }
        Node::Array { items, .. } => {
            let items = items.iter().map(|item| item.as_ref().unwrap_or(&Item::Null));
            items.map(|item| to_json(value, item, parents)).collect()
        }
        Node::Map(pairs) => pairs
            .iter()
            .map(|(key, item)| json!([to_json(value, key, parents), to_json(value, item, parents)]))
            .collect(),
        Node::Set(items) => items.iter().map(|item| to_json(value, item, parents)).collect(),
        Node::Date(number) | Node::Number(number) => {
            to_json(value, &Item::Double(*number), parents)
        }
        Node::RegExp { source, .. } => json!(format!("/{source}/")),
        Node::Boolean(value) => json!(value),
        Node::String(text) => json!(text.to_string()),
        Node::BigInt(number) => to_json(value, &Item::BigInt(number.clone()), parents),
        Node::Error { kind, message, stack, .. } => {
            json!({"name": kind.name(), "message": text(message), "stack": text(stack)})
        }
        Node::ArrayBuffer(bytes) | Node::View { bytes, .. } => {
            json!({"type": "Buffer", "data": bytes})
        }
        Node::Host(item) => to_json(value, item, parents),
        _ => Json::Null,
    }
}

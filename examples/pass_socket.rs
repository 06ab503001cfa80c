//! A parent that accepts TCP connections and passes each to a child, inside a typed message.
//!
//! ```text
//! cargo run --example pass_socket -- [CONNECTIONS]
//! ```
//!
//! You will see the address, and one line per connection that the child has answered. The example
//! connects to itself `CONNECTIONS` times (default 3) and ends. With 0 it waits for your
//! connections (`nc 127.0.0.1 PORT`) and does not end.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;

use child_process::{Event, Fork, Module};
use ipc::Handle;
use serde::{Deserialize, Serialize};

/// A message of the parent. The socket is a field like any other.
#[derive(Serialize, Deserialize)]
struct Visitor {
    number: u32,
    from: SocketAddr,
    stream: Handle<TcpStream>,
}

/// The answer of the child.
#[derive(Serialize, Deserialize)]
struct Served {
    number: u32,
    pid: u32,
}

fn main() -> ExitCode {
    brood::init().expect("process 1 has one thread at this point");
    child_process::run_modules(&[("greeter", greeter)]);
    let count = match std::env::args().nth(1).map(|text| text.parse()) {
        None => 3,
        Some(Ok(count)) => count,
        Some(Err(_)) => {
            eprintln!(
                "pass_socket: CONNECTIONS must be a number; \
                       usage: pass_socket [CONNECTIONS]"
            );
            return ExitCode::from(2);
        }
    };
    match accept_and_pass(count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pass_socket: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the parent: accepts connections, passes them to the child, and prints the answers.
fn accept_and_pass(count: u32) -> Result<(), Box<dyn Error>> {
    let child = Fork::new(Module::current_exe("greeter")).spawn()?;
    let events = child.take_events().expect("taken once");
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    println!("listening on {address}, serving from process {}", child.pid());
    let clients = thread::spawn(move || (0..count).try_for_each(|_| visit(address)));
    for (stream, number) in listener.incoming().zip(1..) {
        let stream = stream?;
        let from = stream.peer_addr()?;
        // The stream belongs to the child once `send` returns: the parent keeps no copy.
        child.send(&Visitor { number, from, stream: Handle::new(stream) })?;
        let message = events.iter().find_map(|event| match event {
            Event::Message(message) => Some(message),
            _ => None,
        });
        let served: Served = message.ok_or("the child is gone")?.decode()?;
        println!("connection {} was answered by process {}", served.number, served.pid);
        if number == count {
            break;
        }
    }
    clients.join().map_err(|_| "a client failed")??;
    child.disconnect()?;
    child.wait()?;
    Ok(())
}

fn visit(address: SocketAddr) -> std::io::Result<()> {
    let mut reply = String::new();
    TcpStream::connect(address)?.read_to_string(&mut reply)?;
    print!("  a client received: {reply}");
    Ok(())
}

/// Runs the child: answers every connection that it receives.
fn greeter() {
    let parent = child_process::parent().expect("this module is only ever forked");
    for event in parent.take_events().expect("taken once") {
        let Event::Message(message) = event else { continue };
        let Ok(visitor) = message.decode::<Visitor>() else { continue };
        let pid = std::process::id();
        let mut stream = visitor.stream.into_inner();
        // The write fails when the client has closed the connection, which is no error here.
        let _ = writeln!(stream, "hello {}, here is process {pid}", visitor.from);
        if parent.send(&Served { number: visitor.number, pid }).is_err() {
            break;
        }
    }
}

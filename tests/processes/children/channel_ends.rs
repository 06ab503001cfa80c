//! Channels whose other side has ended: nothing is left, nothing waits, and nothing is lost that a
//! later listener may still want.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use child_process::{Child, Command, Event, ExitStatus, Fork, Module, Signal, parent_with};
use ipc::{Blob, Error, Handle, Options, Serialization};

use crate::harness::{apply, case, module, role};
use crate::support::node::{node, script, serializations};
use crate::support::{WAIT_MAX, current_exe, eventually, wait};

const MIB: usize = 1 << 20;

/// The sizes of a message that nobody reads, in bytes: from none to one that fills the longest frame.
const SIZES: [usize; 5] = [0, 10, MIB, 3 * MIB, 63 * MIB];

/// A time for the queue at an exit that no case survives.
const NEVER: Duration = Duration::from_secs(3600);

/// The act of a parent before its child ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Nothing,
    Disconnect,
    Kill,
}

/// `ends_unread`: sends this many bytes, and ends without reading.
#[apply(module)]
fn ends_unread() {
    let bytes: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    if bytes > 0 {
        parent_with(Options::new()).unwrap().send(&Blob::from(vec![1; bytes])).unwrap();
    }
}

/// A child that sends this many bytes at most, and ends without reading.
fn ends_unread_after(bytes: usize) -> Fork {
    let mut fork = Fork::new(Module::current_exe("ends_unread"));
    fork.arg(bytes.to_string()).channel_options(Options::new().exit_flush(NEVER));
    fork
}

/// As [`ends_unread_after`], in Node; `None` without Node.
fn script_ends_unread_after(bytes: usize, codec: Serialization) -> Option<Fork> {
    let mut fork = Fork::new(script("ends_unread.cjs"));
    fork.exec_path(node()?).arg(bytes.to_string());
    fork.channel_options(Options::new().exit_flush(NEVER).serialization(codec));
    Some(fork)
}

fn descriptors() -> usize {
    sys::fd::open_descriptors().unwrap().len()
}

fn ends(child: Child, before: Before, is_waited_for: bool) {
    match before {
        Before::Nothing => {}
        // The channel of a child that has ended is closed already.
        Before::Disconnect => drop(child.disconnect()),
        Before::Kill => drop(child.kill(Signal::KILL).unwrap()),
    }
    if is_waited_for {
        child.wait().unwrap();
    }
}

#[track_caller]
fn leaves_nothing(mut start: impl FnMut(usize) -> Fork, sizes: &[usize]) {
    let open = descriptors();
    for &bytes in sizes {
        for before in [Before::Nothing, Before::Disconnect, Before::Kill] {
            for is_waited_for in [false, true] {
                for sent_by_the_child in [0, 10_000] {
                    let child = start(sent_by_the_child).spawn().unwrap();
                    let _ = child.send(&Blob::from(vec![0; bytes]));
                    ends(child, before, is_waited_for);
                }
            }
        }
    }
    eventually("no descriptor is left", || (descriptors() <= open).then_some(()));
}

#[apply(case)]
fn a_dropped_child_that_ends_without_reading_leaves_nothing() {
    leaves_nothing(ends_unread_after, &SIZES);
}

#[apply(case)]
fn a_dropped_node_child_that_ends_without_reading_leaves_nothing() {
    let start = |bytes| script_ends_unread_after(bytes, Serialization::Json);
    if start(0).is_some() {
        leaves_nothing(|bytes| start(bytes).unwrap(), &[3 * MIB]);
    }
}

#[apply(case)]
fn a_socket_that_a_grandchild_holds_keeps_no_channel_of_a_dropped_child() {
    let open = descriptors();
    // The shell knows no close-on-exec, so that its own child has the channel as well.
    let mut fork = Fork::new(Module::program("/bin/sh"));
    fork.silent(true).args(["-c", "sleep 60 & echo $!"]);
    let mut child = fork.spawn().unwrap();
    child.send(&Blob::from(vec![0; 3 * MIB])).unwrap();
    let mut pid = String::new();
    let mut output = child.take_stdout().unwrap();
    child.wait().unwrap();
    while !pid.ends_with('\n') {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        pid.push(char::from(byte[0]));
    }
    drop((child, output));
    eventually("no descriptor is left", || (descriptors() <= open).then_some(()));
    sys::signal::kill(pid.trim().parse().unwrap(), Signal::KILL).unwrap();
}

#[apply(case)]
fn the_end_of_a_program_does_not_wait_for_children_that_have_ended() {
    for (kept, node) in [("kept", "rust"), ("dropped", "rust"), ("kept", "node")] {
        let mut command = Command::new(current_exe());
        command.args(["role", "leaves_messages_unread", kept, node]).timeout(WAIT_MAX);
        let said = command.output().unwrap();
        assert!(said.status.success(), "{kept}, {node}: {}", said.stderr_text());
    }
}

/// `leaves_messages_unread KEPT NODE`: ends after its children have, with much queued for them.
#[apply(role)]
fn leaves_messages_unread(args: &[String]) {
    let start = || match args[1].as_str() {
        "rust" => Some(ends_unread_after(0)),
        _ => script_ends_unread_after(0, Serialization::Json),
    };
    for _ in 0..2 {
        let Some(mut fork) = start() else { return };
        let child = fork.spawn().unwrap();
        let _ = child.send(&Blob::from(vec![0; 3 * MIB]));
        child.wait().unwrap();
        if args[0] == "kept" {
            std::mem::forget(child);
        }
    }
}

/// Checks that a child that has ended is known to be gone although nobody listens.
#[track_caller]
fn is_gone(child: &Child) {
    assert!(!child.is_connected());
    assert!(matches!(child.send("x").unwrap_err(), Error::Closed));
    assert!(matches!(child.disconnect(), Err(child_process::Error::NoChannel)));
    eventually("nothing is queued", || (child.queued_bytes() == 0).then_some(()));
}

/// Returns the kinds of the events of a child, to the last.
fn story(child: &Child) -> Vec<String> {
    let events = child.take_events().unwrap();
    let mut seen = Vec::new();
    loop {
        match events.recv_timeout(WAIT_MAX).unwrap() {
            Event::Message(message) => seen.push(format!("{} bytes", message.bytes().len() / 1000)),
            Event::Close(_) => return seen,
            Event::Exit(_) => seen.push("exit".to_owned()),
            other => seen.push(format!("{other:?}")),
        }
    }
}

#[apply(case)]
fn a_listener_that_comes_after_the_end_gets_every_message_and_then_the_end() {
    let mut forks = vec![ends_unread_after(20_000)];
    let scripts = serializations().into_iter();
    forks.extend(scripts.filter_map(|codec| script_ends_unread_after(20_000, codec)));
    for mut fork in forks {
        // A timeout puts the child on the loop before there is a listener.
        for timeout in [None, Some(NEVER)] {
            if let Some(timeout) = timeout {
                fork.timeout(timeout);
            }
            let child = fork.spawn().unwrap();
            child.wait().unwrap();
            is_gone(&child);
            wait(Duration::from_millis(20));
            assert_eq!(story(&child), ["Spawn", "20 bytes", "Disconnect", "exit"]);
        }
    }
}

#[apply(case)]
fn handles_for_a_child_that_has_ended_are_closed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = || {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(WAIT_MAX)).unwrap();
        (client, listener.accept().unwrap().0)
    };
    let is_ended = |mut client: TcpStream| {
        assert_eq!(client.read(&mut [0]).expect("the connection is closed in time"), 0);
    };
    let child = Fork::new(Module::current_exe("waits_unread")).spawn().unwrap();
    child.send(&Blob::from(vec![0; MIB])).unwrap();
    let (client, served) = connection();
    child.send(&Handle::new(served)).unwrap();
    child.kill(Signal::KILL).unwrap();
    is_ended(client);
    child.wait().unwrap();
    is_gone(&child);
    let Some(mut fork) = script_ends_unread_after(0, Serialization::Json) else { return };
    let child = fork.args(["", "wait"]).spawn().unwrap();
    child.send(&Blob::from(vec![0; MIB])).unwrap();
    let connections = [connection(), connection()].map(|(client, served)| {
        child.send_with_handle("yours", served).unwrap();
        client
    });
    child.kill(Signal::KILL).unwrap();
    connections.into_iter().for_each(is_ended);
    child.wait().unwrap();
    is_gone(&child);
}

/// `waits_unread`: reads nothing until it is killed.
#[apply(module)]
fn waits_unread() {
    wait(NEVER);
}

#[apply(case)]
fn a_child_whose_parent_has_died_is_told_so_without_a_listener_and_ends_at_once() {
    let mut command = Command::new(current_exe());
    // The pipe ends when the child ends, too.
    command.args(["role", "dies_as_a_parent"]).timeout(WAIT_MAX);
    let said = command.output().unwrap();
    assert_eq!(said.stdout_text(), "closed\n", "{}", said.stderr_text());
    assert_eq!(said.status, ExitStatus::Signal(Signal::KILL));
}

/// `dies_as_a_parent`: forks `only_sends`, and is killed without having read.
#[apply(role)]
fn dies_as_a_parent(_args: &[String]) {
    let child = Fork::new(Module::current_exe("only_sends")).spawn().unwrap();
    // The greeting is written before the messages, so that many of them have been.
    wait(Duration::from_millis(100));
    std::mem::forget(child);
    sys::signal::kill(std::process::id(), Signal::KILL).unwrap();
}

/// `only_sends`: sends until its parent is gone, and prints so.
#[apply(module)]
fn only_sends() {
    let parent = parent_with(Options::new().exit_flush(NEVER)).unwrap();
    let piece = Blob::from(vec![0; 100_000]);
    eventually("the parent is gone", || match parent.send(&piece) {
        Ok(_) | Err(Error::Full) => None,
        Err(error) => {
            assert!(matches!(error, Error::Closed), "{error:?}");
            Some(())
        }
    });
    assert!(!parent.is_connected());
    println!("closed");
}

#[apply(case)]
fn an_error_of_a_channel_before_the_first_listener_is_told_to_every_listener() {
    let codec = Serialization::Advanced;
    let Some(mut fork) = script_ends_unread_after(0, codec) else { return };
    // A message, and a length that Node does not know.
    fork.arg("00000004ff0f4902ffffffff");
    let child = fork.spawn().unwrap();
    child.wait().unwrap();
    is_gone(&child);
    let (sender, errors) = crossbeam_channel::unbounded();
    let seen = story(&child);
    assert_eq!(seen[..2], ["Spawn", "0 bytes"], "{seen:?}");
    assert!(seen[2].starts_with("Error("), "{seen:?}");
    assert_eq!(seen[3..], ["Disconnect", "exit"], "{seen:?}");
    child.on_error(move |error| sender.send(error.code()).unwrap());
    assert_eq!(errors.recv_timeout(WAIT_MAX).unwrap(), "EBADMSG");
}

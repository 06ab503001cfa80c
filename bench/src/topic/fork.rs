//! Topic `fork`: the time from fork to the first message of the child, by resident memory.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use child_process::{Event, Fork, Module};
use serde_json::json;

use super::ballast::{Ballast, sizes};
use crate::context::{Contender, Context, time_each};
use crate::node::Script;
use crate::report::{Chart, Measure, Role, Topic, Unit};
use crate::stats::Better;

/// The module that the child of brood runs.
pub const MODULE: &str = "first-message";
/// The role of the child of `std::process`.
pub const ROLE: &str = "first-byte";

/// The descriptor number at which the child of `std::process` has its socket.
const NUMBER: i32 = 3;

pub fn run(context: &Context) -> Topic {
    let mut measure = Measure::new("Fork to the first message", Unit::Nanoseconds, Better::Lower)
        .along("resident MiB", Chart::Lines { log_x: false, log_y: true });
    let script = super::script_file("fork", include_str!("../peers/fork.js"));
    let mut node = context.node.as_ref().map_err(Clone::clone).and_then(|node| {
        let file = script.as_ref().map_err(ToString::to_string)?;
        node.start_file(file, &[("BENCH_FILE", file)])
    });
    let mut ballast = Ballast::default();
    for mib in sizes(context) {
        ballast.hold(mib);
        node = node.and_then(|mut script| {
            script.ask(&json!({ "hold": mib }))?;
            Ok(script)
        });
        let label = format!("{mib} MiB");
        let contenders = contenders(context, &mut node);
        let row = context.compare("fork", (&label, mib as f64), Better::Lower, contenders);
        measure.rows.push(row);
    }
    ballast.hold(0);
    drop(node);
    if let Ok(file) = script {
        let _ = std::fs::remove_file(file);
    }
    Topic {
        name: "fork".to_owned(),
        title: "A child with a channel".to_owned(),
        notes: vec![
            "The time from the call until the parent has received the first message of the child. \
             The child runs the same program as the parent: this one for the native contenders, \
             Node for Node. The child of `std::process` gets a bare socket in `pre_exec` and \
             writes one byte, without frames, handshake and events."
                .to_owned(),
        ],
        measures: vec![measure],
    }
}

fn contenders<'a>(context: &Context, node: &'a mut Result<Script, String>) -> Vec<Contender<'a>> {
    let times = context.pick(5, 10);
    vec![
        Contender::new(Role::Ours, "brood fork", move || {
            collect(times, || ours().map_err(|error| error.to_string()))
        }),
        Contender::new(Role::Peer, "std::process, bare socket", move || {
            collect(times, || bare().map_err(|error| error.to_string()))
        }),
        Contender::new(Role::Limit, "spawn to exit of /bin/true", move || {
            time_each(times, || {
                let mut command = child_process::Command::new("/bin/true");
                let null = child_process::Stdio::null;
                command.stdio([null(), null(), null()]).spawn()?.wait().map(drop)
            })
        }),
        match node {
            Ok(script) => Contender::new(Role::Peer, "Node fork", move || {
                script.ask(&json!({ "fork": times }))
            }),
            Err(why) => Contender::absent(Role::Peer, "Node fork", why.clone()),
        },
    ]
}

fn collect(
    times: usize,
    mut once: impl FnMut() -> Result<f64, String>,
) -> Result<Vec<f64>, String> {
    (0..times).map(|_| once()).collect()
}

fn ours() -> Result<f64, Box<dyn std::error::Error>> {
    let begin = Instant::now();
    let child = Fork::new(Module::current_exe(MODULE)).spawn()?;
    let mut time = Err("the child ended without a message".into());
    for event in child.take_events().expect("taken once") {
        match event {
            Event::Message(message) => {
                message.decode::<String>()?;
                time = Ok(begin.elapsed().as_nanos() as f64);
                child.disconnect()?;
            }
            Event::Close(_) => break,
            _ => {}
        }
    }
    time
}

/// Runs the child of brood: sends one message, and ends with its channel.
pub fn module() {
    let parent = child_process::parent().expect("it was forked");
    let events = parent.take_events().expect("taken once");
    parent.send("here").expect("the parent listens");
    for event in events {
        if matches!(event, Event::Disconnect) {
            break;
        }
    }
}

fn bare() -> std::io::Result<f64> {
    let begin = Instant::now();
    let (mut here, there) = UnixStream::pair()?;
    let number = there.as_raw_fd();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["role", ROLE]).stdin(Stdio::null());
    let place = move || {
        // SAFETY: takes two integers; async-signal-safe.
        match unsafe { libc::dup2(number, NUMBER) } {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: the closure makes one async-signal-safe call and allocates nothing.
    unsafe { command.pre_exec(place) };
    let mut child = command.spawn()?;
    drop(there);
    here.read_exact(&mut [0])?;
    let time = begin.elapsed().as_nanos() as f64;
    drop(here);
    child.wait()?;
    Ok(time)
}

/// Runs the child of `std::process`: writes one byte, and ends with the socket.
pub fn role() {
    // SAFETY: the parent has put a socket there, and nothing else here uses that number.
    let mut socket = unsafe { UnixStream::from_raw_fd(NUMBER) };
    let _ = socket.write_all(b"x");
    let _ = socket.read(&mut [0]);
}

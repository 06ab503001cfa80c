//! The time until the exits of many children that end at once have been received.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use child_process::{Child, Event, Stdio};
use sys::spawn::{Descriptor, Plan, Source};

use crate::context::{Contender, Context};
use crate::report::{Measure, Role, Unit};
use crate::stats::Better;

/// The input that the children read until its end.
type Input = (OwnedFd, OwnedFd);

pub fn measure(context: &Context) -> Measure {
    let count = context.pick(200, 1000);
    let title = "From the end of all children to the last exit seen";
    let mut measure = Measure::new(title, Unit::Nanoseconds, Better::Lower);
    let contenders = vec![
        Contender::new(Role::Ours, "brood, events", move || events(count)),
        Contender::new(Role::Ours, "brood, wait", move || waits(count)),
        Contender::new(Role::Peer, "tokio::process", move || tokio_waits(count)),
        Contender::new(Role::Limit, "waitid", move || raw(count)),
    ];
    let label = format!("{count} children");
    let place = (label.as_str(), f64::from(count));
    measure.rows.push(context.compare("idle, the end", place, Better::Lower, contenders));
    measure
}

fn pipe() -> Result<Input, String> {
    let (reader, writer) = io::pipe().map_err(|error| error.to_string())?;
    Ok((reader.into(), writer.into()))
}

fn ours(count: u32, reader: &OwnedFd) -> Result<Vec<Child>, String> {
    let start = |_| {
        let mut command = child_process::Command::new("/bin/cat");
        let input = reader.try_clone().map_err(|error| error.to_string())?;
        command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        command.spawn().map_err(|error| error.to_string())
    };
    (0..count).map(start).collect()
}

fn since(begin: Instant) -> Vec<f64> {
    vec![begin.elapsed().as_nanos() as f64]
}

fn events(count: u32) -> Result<Vec<f64>, String> {
    let (reader, writer) = pipe()?;
    let children = ours(count, &reader)?;
    let events: Vec<_> = children.iter().filter_map(Child::take_events).collect();
    let begin = Instant::now();
    drop(writer);
    for events in &events {
        let exit = events.iter().any(|event| matches!(event, Event::Exit(_)));
        if !exit {
            return Err("a child without an exit".to_owned());
        }
    }
    Ok(since(begin))
}

fn waits(count: u32) -> Result<Vec<f64>, String> {
    let (reader, writer) = pipe()?;
    let children = ours(count, &reader)?;
    let begin = Instant::now();
    drop(writer);
    for child in &children {
        child.wait().map_err(|error| error.to_string())?;
    }
    Ok(since(begin))
}

fn tokio_waits(count: u32) -> Result<Vec<f64>, String> {
    let (reader, writer) = pipe()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let run = runtime.map_err(|error| error.to_string())?.block_on(async {
        let start = |_| {
            let mut command = tokio::process::Command::new("/bin/cat");
            let null = std::process::Stdio::null;
            command.stdin(reader.try_clone()?).stdout(null()).stderr(null()).kill_on_drop(true);
            command.spawn()
        };
        let mut children = (0..count).map(start).collect::<io::Result<Vec<_>>>()?;
        let begin = Instant::now();
        drop(writer);
        for child in &mut children {
            child.wait().await?;
        }
        io::Result::Ok(since(begin))
    });
    run.map_err(|error| error.to_string())
}

fn raw(count: u32) -> Result<Vec<f64>, String> {
    let text = |error: io::Error| error.to_string();
    let (reader, writer) = pipe()?;
    let null = File::options().write(true).open("/dev/null").map_err(text)?;
    let mut plan = Plan::new(vec![c"/bin/cat".into()], vec![c"cat".into()]);
    plan.descriptors = vec![
        Descriptor { number: 0, source: Source::Fd(reader.as_fd()) },
        Descriptor { number: 1, source: Source::Fd(null.as_fd()) },
        Descriptor { number: 2, source: Source::Fd(null.as_fd()) },
    ];
    let start = |_| sys::spawn::spawn(&plan).map(|started| started.pid);
    let pids = (0..count).map(start).collect::<Result<Vec<_>, _>>();
    let pids = pids.map_err(|error| error.to_string())?;
    let begin = Instant::now();
    drop(writer);
    for pid in pids {
        // SAFETY: plain data, which the call fills.
        let mut exit: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: a child of ours that no other thread waits for, and a writable place.
        let code = unsafe { libc::waitid(libc::P_PID, pid, &mut exit, libc::WEXITED) };
        if code == -1 {
            return Err(text(io::Error::last_os_error()));
        }
    }
    Ok(since(begin))
}

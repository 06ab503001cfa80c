//! Topic `ipc`: messages between two processes. Round trips, streams, large payloads, descriptors.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ipc::{Channel, Options};
use ipc_channel::ipc as peer;
use serde::{Deserialize, Serialize};

mod idle;
mod large;
mod passed;
mod place;
mod remote;
mod script;
mod sizes;

use place::Place;
pub use remote::role;

use crate::context::{Contender, Context};
use crate::report::{Chart, Measure, Role, Topic, Unit};
use crate::stats::Better;

/// The role of the other process.
pub const ROLE: &str = "message-peer";

/// The length of our frame of a [`Ping`]. Raw contenders move the same number of bytes.
const RAW: usize = 72;

type Failure = Box<dyn std::error::Error>;

/// A payload of 64 bytes. The first number is 1 when the sender wants an answer.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Ping([u64; 8]);

/// The other process, and our endpoint of its channel.
struct Remote {
    child: Child,
    socket: Option<UnixStream>,
}

impl Remote {
    /// Starts the process on a core of its own, where there are two.
    fn start(kind: &str, extra: &str) -> Result<Remote, Failure> {
        Remote::start_on(Place::Apart, kind, extra)
    }

    fn start_on(place: Place, kind: &str, extra: &str) -> Result<Remote, Failure> {
        let (ours, theirs) = UnixStream::pair()?;
        let core = place.remote_core()?.to_string();
        let child = Command::new(std::env::current_exe()?)
            .args(["role", ROLE, kind, extra, &core])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok(Remote { child, socket: Some(ours) })
    }

    fn channel<S, R>(&mut self, awake: bool) -> Result<Channel<S, R>, Failure> {
        let socket = self.socket.take().ok_or("taken")?;
        Ok(Channel::from_fd(socket, options(awake))?)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn options(awake: bool) -> Options {
    Options::new().adaptive_wait(awake).queued_bytes_max(64 << 20)
}

pub fn run(context: &Context) -> Topic {
    Topic {
        name: "ipc".to_owned(),
        title: "Messages between two processes".to_owned(),
        notes: vec![
            "The other process runs this program, too. Each of the two processes has a core of its \
             own unless the row says otherwise, because the placement by the kernel changes a \
             round trip fivefold. Raw contenders move the same bytes over a `UnixStream`, without \
             types, frames or checks."
                .to_owned(),
        ],
        measures: vec![
            round_trips(context),
            stream(context),
            stream_each(context),
            large::measure(context),
            sizes::round_trips(context),
            sizes::one_way(context),
            passed::descriptors(context),
            passed::memory(context),
            script::measure(context),
            idle::measure(context),
        ],
    }
}

/// Returns a contender with the state `made`, or an absent contender with the reason.
fn contender<'a, T: 'a>(
    role: Role,
    name: &str,
    made: Result<T, Failure>,
    mut round: impl FnMut(&mut T) -> Result<Vec<f64>, Failure> + 'a,
) -> Contender<'a> {
    match made {
        Ok(mut state) => Contender::new(role, name, move || {
            let _here = place::hold();
            round(&mut state).map_err(|e| e.to_string())
        }),
        Err(why) => Contender::absent(role, name, why.to_string()),
    }
}

fn per_each(times: usize, act: impl FnOnce() -> Result<(), Failure>) -> Result<Vec<f64>, Failure> {
    let begin = Instant::now();
    act()?;
    Ok(vec![begin.elapsed().as_nanos() as f64 / times as f64])
}

fn rate(amount: f64, act: impl FnOnce() -> Result<(), Failure>) -> Result<Vec<f64>, Failure> {
    let begin = Instant::now();
    act()?;
    Ok(vec![amount / begin.elapsed().as_secs_f64()])
}

fn ours_echo(place: Place, awake: bool) -> Result<(Remote, Channel<Ping, Ping>), Failure> {
    let mut remote = Remote::start_on(place, "echo", if awake { "awake" } else { "" })?;
    let channel = remote.channel(awake)?;
    Ok((remote, channel))
}

type PeerChannels = (Remote, peer::IpcSender<Ping>, peer::IpcReceiver<Ping>);

fn peer_remote(place: Place, kind: &str) -> Result<PeerChannels, Failure> {
    let (server, name) =
        peer::IpcOneShotServer::<(peer::IpcSender<Ping>, peer::IpcReceiver<Ping>)>::new()?;
    let remote = Remote::start_on(place, kind, &name)?;
    let (_, (sender, receiver)) = server.accept()?;
    Ok((remote, sender, receiver))
}

fn round_trips(context: &Context) -> Measure {
    let mut measure =
        Measure::new("Round trip of 64 typed bytes", Unit::Nanoseconds, Better::Lower)
            .along("case", Chart::Bars);
    for (label, place, busy) in [
        ("two free cores", Place::Apart, false),
        ("one core", Place::Together, false),
        ("beside a busy process", Place::Apart, true),
    ] {
        // The busy process runs on the core of the other process.
        let busy = busy.then(|| Remote::start_on(place, "burn", ""));
        let contenders = trips(context, place);
        measure.rows.push(context.compare("ipc", (label, 0.0), Better::Lower, contenders));
        drop(busy);
    }
    measure
}

fn trips(context: &Context, place: Place) -> Vec<Contender<'static>> {
    let times = context.pick(2_000, 10_000);
    let trip = move |channel: &Channel<Ping, Ping>| {
        per_each(times, || {
            for _ in 0..times {
                channel.send(&Ping([1; 8]))?;
                channel.recv()?;
            }
            Ok(())
        })
    };
    let ends = ours_echo(place, false);
    let asleep = contender(Role::Ours, "brood, asleep", ends, move |ends| trip(&ends.1));
    let ends = ours_echo(place, true);
    let awake = contender(Role::Ours, "brood, adaptive", ends, move |ends| trip(&ends.1));
    let remote = Remote::start_on(place, "raw-echo", "");
    let raw = contender(Role::Peer, "UnixStream", remote, move |remote| {
        let mut stream = remote.socket.as_ref().ok_or("taken")?;
        let mut bytes = [1; RAW];
        per_each(times, || {
            for _ in 0..times {
                stream.write_all(&bytes)?;
                stream.read_exact(&mut bytes)?;
            }
            Ok(())
        })
    });
    let ends = peer_remote(place, "peer-echo");
    let ipc = contender(Role::Peer, "ipc-channel", ends, move |ends| {
        per_each(times, || {
            for _ in 0..times {
                ends.1.send(Ping([1; 8]))?;
                ends.2.recv()?;
            }
            Ok(())
        })
    });
    vec![asleep, awake, raw, ipc]
}

/// Sends `times` pings. The last one asks for an answer.
fn pings<E: Into<Failure>>(
    times: usize,
    mut send: impl FnMut(Ping) -> Result<(), E>,
) -> Result<(), Failure> {
    for left in (0..times).rev() {
        send(Ping([u64::from(left == 0); 8])).map_err(Into::into)?;
    }
    Ok(())
}

fn stream(context: &Context) -> Measure {
    let times = context.pick(200_000, 1_000_000);
    let amount = times as f64;
    let mut measure = Measure::new(
        "One way, 64 typed bytes, many per system call",
        Unit::PerSecond,
        Better::Higher,
    )
    .along("case", Chart::Bars);
    let ours = Remote::start("sink", "").and_then(|mut remote| {
        let channel = remote.channel::<Ping, Ping>(true)?;
        Ok((remote, channel))
    });
    let feed = contender(Role::Ours, "brood, feed", ours, move |ends| {
        rate(amount, || {
            pings(times, |ping| ends.1.feed(&ping))?;
            ends.1.flush()?;
            ends.1.recv()?;
            Ok(())
        })
    });
    let ours = Remote::start("sink", "").and_then(|mut remote| {
        let channel = remote.channel::<Ping, Ping>(true)?;
        Ok((remote, channel.into_events()?))
    });
    let link = contender(Role::Ours, "brood, on the loop", ours, move |ends| {
        let (sender, events) = &ends.1;
        rate(amount, || {
            pings(times, |ping| {
                while let Err(error) = sender.send(&ping) {
                    match error {
                        ipc::Error::Full => std::thread::yield_now(),
                        error => return Err(error),
                    }
                }
                Ok(())
            })?;
            events.recv()?;
            Ok(())
        })
    });
    let ipc =
        contender(Role::Peer, "ipc-channel", peer_remote(Place::Apart, "peer-sink"), move |ends| {
            rate(amount, || {
                pings(times, |ping| ends.1.send(ping))?;
                ends.2.recv()?;
                Ok(())
            })
        });
    let all = vec![feed, link, ipc];
    measure.rows.push(context.compare("ipc", ("64 bytes", 0.0), Better::Higher, all));
    measure
}

fn stream_each(context: &Context) -> Measure {
    let times = context.pick(100_000, 300_000);
    let amount = times as f64;
    let mut measure =
        Measure::new("One way, 64 typed bytes, one call each", Unit::PerSecond, Better::Higher)
            .along("case", Chart::Bars);
    let ours = Remote::start("sink", "").and_then(|mut remote| {
        let channel = remote.channel::<Ping, Ping>(true)?;
        Ok((remote, channel))
    });
    let each = contender(Role::Ours, "brood, send", ours, move |ends| {
        rate(amount, || {
            pings(times, |ping| ends.1.send(&ping))?;
            ends.1.recv()?;
            Ok(())
        })
    });
    let raw = contender(Role::Peer, "UnixStream", Remote::start("raw-sink", ""), move |remote| {
        let mut stream = remote.socket.as_ref().ok_or("taken")?;
        rate(amount, || {
            for left in (0..times).rev() {
                stream.write_all(&[u8::from(left == 0); RAW])?;
            }
            stream.read_exact(&mut [0])?;
            Ok(())
        })
    });
    let all = vec![each, raw];
    measure.rows.push(context.compare("ipc", ("64 bytes", 0.0), Better::Higher, all));
    measure
}

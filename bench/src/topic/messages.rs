//! Messages between two processes: round trips, streams, large payloads, descriptors.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ipc::{Channel, Options};
use ipc_channel::ipc as peer;
use serde::{Deserialize, Serialize};

mod far;
mod idle;
mod large;
mod passed;
mod place;
mod script;
mod sizes;

pub use far::role;
use place::Place;

use crate::context::{Contender, Context};
use crate::report::{Chart, Measure, Role, Topic, Unit};
use crate::stats::Better;

/// The role of the other process.
pub const ROLE: &str = "message-peer";

/// What our frame of a [`Ping`] is long: raw contenders move as many bytes.
const RAW: usize = 72;

type Failure = Box<dyn std::error::Error>;

/// 64 bytes of payload; the first says when to answer.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Ping([u64; 8]);

/// The other process and our end of its channel.
struct Far {
    child: Child,
    socket: Option<UnixStream>,
}

impl Far {
    /// On a core of its own, where there are two.
    fn start(kind: &str, extra: &str) -> Result<Far, Failure> {
        Far::start_on(Place::Apart, kind, extra)
    }

    fn start_on(place: Place, kind: &str, extra: &str) -> Result<Far, Failure> {
        let (ours, theirs) = UnixStream::pair()?;
        let core = place.far()?.to_string();
        let child = Command::new(std::env::current_exe()?)
            .args(["role", ROLE, kind, extra, &core])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok(Far { child, socket: Some(ours) })
    }

    fn channel<S, R>(&mut self, awake: bool) -> Result<Channel<S, R>, Failure> {
        let socket = self.socket.take().ok_or("taken")?;
        Ok(Channel::from_fd(socket.into(), options(awake))?)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn options(awake: bool) -> Options {
    Options { adaptive_wait: awake, queued_bytes_max: 64 << 20, ..Options::default() }
}

pub fn run(context: &Context) -> Topic {
    Topic {
        name: "ipc".to_owned(),
        title: "Messages between two processes".to_owned(),
        notes: vec![
            "The other process is this program again, each of the two on a core of its own unless \
             the row says otherwise: where the kernel places them changes a round trip fivefold. \
             Raw contenders move the same bytes over a `UnixStream`, without types, frames or \
             checks."
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

/// A contender whose round is made once its other process stands.
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

fn ours_echo(place: Place, awake: bool) -> Result<(Far, Channel<Ping, Ping>), Failure> {
    let mut far = Far::start_on(place, "echo", if awake { "awake" } else { "" })?;
    let channel = far.channel(awake)?;
    Ok((far, channel))
}

type PeerEnds = (Far, peer::IpcSender<Ping>, peer::IpcReceiver<Ping>);

fn peer_far(place: Place, kind: &str) -> Result<PeerEnds, Failure> {
    let (server, name) =
        peer::IpcOneShotServer::<(peer::IpcSender<Ping>, peer::IpcReceiver<Ping>)>::new()?;
    let far = Far::start_on(place, kind, &name)?;
    let (_, (sender, receiver)) = server.accept()?;
    Ok((far, sender, receiver))
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
        // It computes on the core of the other process.
        let busy = busy.then(|| Far::start_on(place, "burn", ""));
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
                channel.send(Ping([1; 8]))?;
                channel.recv()?;
            }
            Ok(())
        })
    };
    let ends = ours_echo(place, false);
    let asleep = contender(Role::Ours, "brood, asleep", ends, move |ends| trip(&ends.1));
    let ends = ours_echo(place, true);
    let awake = contender(Role::Ours, "brood, adaptive", ends, move |ends| trip(&ends.1));
    let far = Far::start_on(place, "raw-echo", "");
    let raw = contender(Role::Peer, "UnixStream", far, move |far| {
        let mut stream = far.socket.as_ref().ok_or("taken")?;
        let mut bytes = [1; RAW];
        per_each(times, || {
            for _ in 0..times {
                stream.write_all(&bytes)?;
                stream.read_exact(&mut bytes)?;
            }
            Ok(())
        })
    });
    let ends = peer_far(place, "peer-echo");
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

/// Sends `times` pings, the last of which asks for an answer.
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
    let ours = Far::start("sink", "").and_then(|mut far| {
        let channel = far.channel::<Ping, Ping>(true)?;
        Ok((far, channel))
    });
    let feed = contender(Role::Ours, "brood, feed", ours, move |ends| {
        rate(amount, || {
            pings(times, |ping| ends.1.feed(ping).map_err(ipc::Error::from))?;
            ends.1.flush()?;
            ends.1.recv()?;
            Ok(())
        })
    });
    let ours = Far::start("sink", "").and_then(|mut far| {
        let channel = far.channel::<Ping, Ping>(true)?;
        Ok((far, channel.events()?))
    });
    let link = contender(Role::Ours, "brood, on the loop", ours, move |ends| {
        let (outlet, events) = &ends.1;
        rate(amount, || {
            pings(times, |ping| {
                while let Err(failed) = outlet.send(ping) {
                    match failed.error {
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
        contender(Role::Peer, "ipc-channel", peer_far(Place::Apart, "peer-sink"), move |ends| {
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
    let ours = Far::start("sink", "").and_then(|mut far| {
        let channel = far.channel::<Ping, Ping>(true)?;
        Ok((far, channel))
    });
    let each = contender(Role::Ours, "brood, send", ours, move |ends| {
        rate(amount, || {
            pings(times, |ping| ends.1.send(ping).map_err(ipc::Error::from))?;
            ends.1.recv()?;
            Ok(())
        })
    });
    let raw = contender(Role::Peer, "UnixStream", Far::start("raw-sink", ""), move |far| {
        let mut stream = far.socket.as_ref().ok_or("taken")?;
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

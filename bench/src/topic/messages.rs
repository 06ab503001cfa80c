//! Messages between two processes: round trips, streams, large payloads, descriptors.

use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ipc::{Blob, Channel, Handle, Options, SharedMemory};
use ipc_channel::ipc as peer;
use serde::{Deserialize, Serialize};
use sys::scm;

mod far;

pub use far::role;

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

#[derive(Serialize, Deserialize)]
enum Large {
    More(Blob),
    Last(Blob),
}

/// The other process and our end of its channel.
struct Far {
    child: Child,
    socket: Option<UnixStream>,
}

impl Far {
    fn start(kind: &str, extra: &str) -> Result<Far, Failure> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(std::env::current_exe()?)
            .args(["role", ROLE, kind, extra])
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
            "The other process is this program again. Raw contenders move the same bytes over a \
             `UnixStream`, without types, frames or checks."
                .to_owned(),
        ],
        measures: vec![
            round_trips(context),
            stream(context),
            stream_each(context),
            large(context),
            descriptors(context),
            memory(context),
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
        Ok(mut state) => {
            Contender::new(role, name, move || round(&mut state).map_err(|e| e.to_string()))
        }
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

fn ours_echo(awake: bool) -> Result<(Far, Channel<Ping, Ping>), Failure> {
    let mut far = Far::start("echo", if awake { "awake" } else { "" })?;
    let channel = far.channel(awake)?;
    Ok((far, channel))
}

type PeerEnds = (Far, peer::IpcSender<Ping>, peer::IpcReceiver<Ping>);

fn peer_far(kind: &str) -> Result<PeerEnds, Failure> {
    let (server, name) =
        peer::IpcOneShotServer::<(peer::IpcSender<Ping>, peer::IpcReceiver<Ping>)>::new()?;
    let far = Far::start(kind, &name)?;
    let (_, (sender, receiver)) = server.accept()?;
    Ok((far, sender, receiver))
}

fn round_trips(context: &Context) -> Measure {
    let times = context.pick(2_000, 10_000);
    let mut measure =
        Measure::new("Round trip of 64 typed bytes", Unit::Nanoseconds, Better::Lower)
            .along("case", Chart::Bars);
    let trip = move |channel: &Channel<Ping, Ping>| {
        per_each(times, || {
            for _ in 0..times {
                channel.send(Ping([1; 8]))?;
                channel.recv()?;
            }
            Ok(())
        })
    };
    let asleep =
        contender(Role::Ours, "brood, asleep", ours_echo(false), move |ends| trip(&ends.1));
    let awake =
        contender(Role::Ours, "brood, adaptive", ours_echo(true), move |ends| trip(&ends.1));
    let raw = contender(Role::Peer, "UnixStream", Far::start("raw-echo", ""), move |far| {
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
    let ipc = contender(Role::Peer, "ipc-channel", peer_far("peer-echo"), move |ends| {
        per_each(times, || {
            for _ in 0..times {
                ends.1.send(Ping([1; 8]))?;
                ends.2.recv()?;
            }
            Ok(())
        })
    });
    let all = vec![asleep, awake, raw, ipc];
    measure.rows.push(context.compare("ipc", ("64 bytes", 0.0), Better::Lower, all));
    measure
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
    let ipc = contender(Role::Peer, "ipc-channel", peer_far("peer-sink"), move |ends| {
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

fn large(context: &Context) -> Measure {
    let mut measure = Measure::new("One way, large payloads", Unit::BytesPerSecond, Better::Higher)
        .along("bytes", Chart::Bars);
    for (label, length, times) in [("1 MiB", 1 << 20, 64), ("16 MiB", 16 << 20, 8)] {
        let amount = (length * times) as f64;
        let ours = Far::start("large-sink", "").and_then(|mut far| {
            let channel = far.channel::<Large, Ping>(true)?;
            Ok((far, channel, Blob::from(vec![1_u8; length])))
        });
        let blob = contender(Role::Ours, "brood", ours, move |ends| {
            rate(amount, || {
                for _ in 1..times {
                    ends.1.send(Large::More(ends.2.clone())).map_err(ipc::Error::from)?;
                }
                ends.1.send(Large::Last(ends.2.clone())).map_err(ipc::Error::from)?;
                ends.1.recv()?;
                Ok(())
            })
        });
        let far = Far::start("raw-large", &(length * times).to_string());
        let bytes = vec![1_u8; length];
        let raw = contender(Role::Peer, "UnixStream", far, move |far| {
            let mut stream = far.socket.as_ref().ok_or("taken")?;
            rate(amount, || {
                for _ in 0..times {
                    stream.write_all(&bytes)?;
                }
                stream.read_exact(&mut [0])?;
                Ok(())
            })
        });
        let made = (|| {
            let (server, name) =
                peer::IpcOneShotServer::<(peer::IpcBytesSender, peer::IpcReceiver<Ping>)>::new()?;
            let far = Far::start("peer-large", &format!("{name}\n{times}"))?;
            Ok((far, server.accept()?.1, vec![1_u8; length]))
        })();
        let ipc = contender(Role::Peer, "ipc-channel, bytes", made, move |(_, ends, bytes)| {
            rate(amount, || {
                for _ in 0..times {
                    ends.0.send(bytes)?;
                }
                ends.1.recv()?;
                Ok(())
            })
        });
        let all = vec![blob, raw, ipc];
        let place = (label, length as f64);
        measure.rows.push(context.compare("ipc", place, Better::Higher, all));
    }
    measure
}

/// Handles, and whether an answer is wanted.
type Passed = (bool, Vec<Handle<OwnedFd>>);

fn descriptors(context: &Context) -> Measure {
    let mut measure = Measure::new("Descriptors passed", Unit::PerSecond, Better::Higher)
        .along("per message", Chart::Bars);
    for (count, times) in [(1, context.pick(2_000, 10_000)), (16, context.pick(500, 2_000))] {
        let amount = (count * times) as f64;
        let ours = Far::start("handle-sink", "").and_then(|mut far| {
            let channel = far.channel::<Passed, Ping>(true)?;
            Ok((far, channel, OwnedFd::from(UnixStream::pair()?.0)))
        });
        let handles = contender(Role::Ours, "brood", ours, move |ends| {
            rate(amount, || {
                for left in (0..times).rev() {
                    let handles: Result<_, std::io::Error> =
                        (0..count).map(|_| ends.2.try_clone().map(Handle::new)).collect();
                    ends.1.send((left == 0, handles?)).map_err(ipc::Error::from)?;
                }
                ends.1.recv()?;
                Ok(())
            })
        });
        let made = Far::start("raw-handles", "")
            .and_then(|far| Ok((far, OwnedFd::from(UnixStream::pair()?.0))));
        let raw = contender(Role::Peer, "sendmsg", made, move |(far, fd)| {
            let mut stream = far.socket.as_ref().ok_or("taken")?;
            rate(amount, || {
                for left in (0..times).rev() {
                    let own: Result<Vec<_>, _> = (0..count).map(|_| fd.try_clone()).collect();
                    let own = own?;
                    let lent: Vec<BorrowedFd<'_>> = own.iter().map(AsFd::as_fd).collect();
                    let bytes = [u8::from(left == 0)];
                    scm::send_blocking(stream.as_fd(), &[IoSlice::new(&bytes)], &lent)?;
                }
                stream.read_exact(&mut [0])?;
                Ok(())
            })
        });
        let label = count.to_string();
        let place = (label.as_str(), count as f64);
        let all = vec![handles, raw];
        measure.rows.push(context.compare("ipc", place, Better::Higher, all));
    }
    measure
}

fn memory(context: &Context) -> Measure {
    let times = context.pick(500, 2_000);
    let mut measure = Measure::new(
        "16 MiB of shared memory handed over, and its first page read",
        Unit::Nanoseconds,
        Better::Lower,
    )
    .along("case", Chart::Bars);
    let ours = Far::start("memory-sink", "").and_then(|mut far| {
        let channel = far.channel::<(bool, SharedMemory), Ping>(true)?;
        Ok((far, channel, SharedMemory::with(16 << 20, |bytes| bytes.fill(1))?))
    });
    let shared = contender(Role::Ours, "brood, shared memory", ours, move |ends| {
        per_each(times, || {
            for left in (0..times).rev() {
                let memory = ends.2.try_clone()?;
                ends.1.send((left == 0, memory)).map_err(ipc::Error::from)?;
            }
            ends.1.recv()?;
            Ok(())
        })
    });
    let ours = Far::start("handle-sink", "").and_then(|mut far| {
        let channel = far.channel::<Passed, Ping>(true)?;
        Ok((far, channel, OwnedFd::from(UnixStream::pair()?.0)))
    });
    let any = contender(Role::Peer, "brood, any descriptor", ours, move |ends| {
        per_each(times, || {
            for left in (0..times).rev() {
                let handle = Handle::new(ends.2.try_clone()?);
                ends.1.send((left == 0, vec![handle])).map_err(ipc::Error::from)?;
            }
            ends.1.recv()?;
            Ok(())
        })
    });
    measure.rows.push(context.compare("ipc", ("16 MiB", 0.0), Better::Lower, vec![shared, any]));
    measure
}

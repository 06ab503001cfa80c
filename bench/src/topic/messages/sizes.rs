//! Round trips and one-way streams by the size of a message.

use std::sync::Arc;

use ipc::Blob;

use super::large::{self, Bulk};
use super::*;

/// The lengths of messages, and their labels.
const SIZES: [(&str, usize); 6] = [
    ("16 B", 16),
    ("256 B", 256),
    ("4 KiB", 4 << 10),
    ("64 KiB", 64 << 10),
    ("1 MiB", 1 << 20),
    ("16 MiB", 16 << 20),
];

/// The number of bytes that a round moves, and the maximum number of messages.
const BYTES: usize = 64 << 20;
const MESSAGES_MAX: usize = 4_000;

fn times(context: &Context, length: usize) -> usize {
    let bytes = context.pick(BYTES / 2, BYTES);
    (bytes / length).clamp(1, context.pick(MESSAGES_MAX / 4, MESSAGES_MAX))
}

fn along(title: &str, unit: Unit, better: Better) -> Measure {
    Measure::new(title, unit, better)
        .along("message bytes", Chart::Lines { log_x: true, log_y: true })
}

pub fn one_way(context: &Context) -> Measure {
    let title = "One way, by size, one call for each message";
    let mut measure = along(title, Unit::BytesPerSecond, Better::Higher);
    for (label, length) in SIZES {
        let times = times(context, length);
        let bulk = Bulk::of(length);
        let all = vec![
            large::ours(length, times),
            large::raw("UnixStream", length, length, times),
            large::peer_typed("ipc-channel", "peer-bulk", bulk, (length, times)),
        ];
        let place = (label, length as f64);
        measure.rows.push(context.compare("ipc, one way", place, Better::Higher, all));
    }
    measure
}

pub fn round_trips(context: &Context) -> Measure {
    let mut measure = along("Round trip, by size", Unit::Nanoseconds, Better::Lower);
    for (label, length) in SIZES {
        let times = times(context, length).div_ceil(4);
        let all = vec![ours(length, times), raw(length, times), of_peer(length, times)];
        let place = (label, length as f64);
        measure.rows.push(context.compare("ipc, round trip", place, Better::Lower, all));
    }
    measure
}

fn ours(length: usize, times: usize) -> Contender<'static> {
    let ends = Remote::start("blob-echo", "").and_then(|mut remote| {
        let channel = remote.channel::<Blob, Blob>(true)?;
        Ok((remote, channel, Blob::from(vec![1_u8; length])))
    });
    contender(Role::Ours, "brood", ends, move |ends| {
        per_each(times, || {
            for _ in 0..times {
                ends.1.send(&ends.2.clone())?;
                ends.1.recv()?;
            }
            Ok(())
        })
    })
}

fn raw(length: usize, times: usize) -> Contender<'static> {
    let remote = Remote::start("raw-echo-of", &length.to_string());
    let mut bytes = vec![1_u8; length];
    contender(Role::Peer, "UnixStream", remote, move |remote| {
        let mut stream = remote.socket.as_ref().ok_or("taken")?;
        per_each(times, || {
            for _ in 0..times {
                stream.write_all(&bytes)?;
                stream.read_exact(&mut bytes)?;
            }
            Ok(())
        })
    })
}

type Ends = (peer::IpcSender<Bulk>, peer::IpcReceiver<Bulk>);

fn of_peer(length: usize, times: usize) -> Contender<'static> {
    let made = (|| {
        let (server, name) = peer::IpcOneShotServer::<Ends>::new()?;
        let remote = Remote::start("peer-echo-bulk", &name)?;
        Ok((remote, server.accept()?.1, Bulk::of(length)))
    })();
    contender(Role::Peer, "ipc-channel", made, move |(_, ends, bulk)| {
        per_each(times, || {
            for _ in 0..times {
                ends.0.send(bulk.clone())?;
                ends.1.recv()?;
            }
            Ok(())
        })
    })
}

/// Runs the other process of the peer.
pub fn peer_role(name: &str) -> Result<(), Failure> {
    let (back, answers) = peer::channel::<Bulk>()?;
    let (sender, receiver) = peer::channel::<Bulk>()?;
    let ends: Ends = (sender, answers);
    peer::IpcSender::connect(name.to_owned())?.send(ends)?;
    loop {
        back.send(receiver.recv()?)?;
    }
}

impl Bulk {
    fn of(length: usize) -> Self {
        Self(Arc::new(vec![1; length]))
    }
}

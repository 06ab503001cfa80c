//! Large payloads in one direction.

use std::fmt;
use std::sync::Arc;

use ipc::Blob;
use serde::{Deserializer, Serializer, de};

use super::*;

#[derive(Serialize, Deserialize)]
pub enum Large {
    More(Blob),
    Last(Blob),
}

/// Bytes that serde handles as bytes, like those of `serde_bytes`. They are shared, because the
/// sender of the peer takes its value by ownership.
#[derive(Clone)]
pub struct Bulk(pub Arc<Vec<u8>>);

impl Serialize for Bulk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bulk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bulk, D::Error> {
        struct Take;
        impl de::Visitor<'_> for Take {
            type Value = Bulk;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bulk, E> {
                Ok(Bulk(Arc::new(bytes.to_vec())))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bulk, E> {
                Ok(Bulk(Arc::new(bytes)))
            }
        }
        deserializer.deserialize_byte_buf(Take)
    }
}

/// The same bytes as a list of numbers, as serde handles a plain `Vec<u8>`.
#[derive(Clone)]
pub struct List(Arc<Vec<u8>>);

impl Serialize for List {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<List, D::Error> {
        Vec::deserialize(deserializer).map(|bytes| List(Arc::new(bytes)))
    }
}

pub fn measure(context: &Context) -> Measure {
    let mut measure = Measure::new("One way, large payloads", Unit::BytesPerSecond, Better::Higher)
        .along("bytes", Chart::Bars);
    for (label, length, times) in [("1 MiB", 1 << 20, 64), ("16 MiB", 16 << 20, 8)] {
        let bytes = Arc::new(vec![1_u8; length]);
        let (bulk, list) = (Bulk(Arc::clone(&bytes)), List(bytes));
        let amount = (length, times);
        let all = vec![
            ours(length, times),
            raw("UnixStream, read into 1 MiB", length, 1 << 20, times),
            raw("UnixStream, read whole", length, length, times),
            peer_bytes(length, times),
            peer_typed("ipc-channel, typed bytes", "peer-bulk", bulk, amount),
            peer_typed("ipc-channel, typed Vec", "peer-list", list, amount),
        ];
        let place = (label, length as f64);
        measure.rows.push(context.compare("ipc", place, Better::Higher, all));
    }
    measure
}

pub fn ours(length: usize, times: usize) -> Contender<'static> {
    let ends = Remote::start("large-sink", "").and_then(|mut remote| {
        let channel = remote.channel::<Large, Ping>(true)?;
        Ok((remote, channel, Blob::from(vec![1_u8; length])))
    });
    contender(Role::Ours, "brood", ends, move |ends| {
        rate((length * times) as f64, || {
            for _ in 1..times {
                ends.1.send(&Large::More(ends.2.clone()))?;
            }
            ends.1.send(&Large::Last(ends.2.clone()))?;
            ends.1.recv()?;
            Ok(())
        })
    })
}

/// Returns a contender whose reader has a buffer of `buffer` bytes.
///
/// A reader with a buffer smaller than a message holds no whole message. Its bytes stay in the
/// processor's cache, which no receiver of whole messages can achieve.
pub fn raw(name: &str, length: usize, buffer: usize, times: usize) -> Contender<'static> {
    let remote = Remote::start("raw-large", &format!("{} {buffer}", length * times));
    let bytes = vec![1_u8; length];
    contender(Role::Peer, name, remote, move |remote| {
        let mut stream = remote.socket.as_ref().ok_or("taken")?;
        rate((length * times) as f64, || {
            for _ in 0..times {
                stream.write_all(&bytes)?;
            }
            stream.read_exact(&mut [0])?;
            Ok(())
        })
    })
}

fn peer_bytes(length: usize, times: usize) -> Contender<'static> {
    let made = (|| {
        let (server, name) =
            peer::IpcOneShotServer::<(peer::IpcBytesSender, peer::IpcReceiver<Ping>)>::new()?;
        let remote = Remote::start("peer-large", &format!("{name}\n{times}"))?;
        Ok((remote, server.accept()?.1, vec![1_u8; length]))
    })();
    contender(Role::Peer, "ipc-channel, untyped bytes", made, move |(_, ends, bytes)| {
        rate((length * times) as f64, || {
            for _ in 0..times {
                ends.0.send(bytes)?;
            }
            ends.1.recv()?;
            Ok(())
        })
    })
}

pub fn peer_typed<T>(name: &str, role: &str, value: T, amount: (usize, usize)) -> Contender<'static>
where
    T: Serialize + for<'de> Deserialize<'de> + Clone + 'static,
{
    let (length, times) = amount;
    let made = (|| {
        let (server, name) =
            peer::IpcOneShotServer::<(peer::IpcSender<T>, peer::IpcReceiver<Ping>)>::new()?;
        let remote = Remote::start(role, &format!("{name}\n{times}"))?;
        Ok((remote, server.accept()?.1, value))
    })();
    contender(Role::Peer, name, made, move |(_, ends, value)| {
        rate((length * times) as f64, || {
            for _ in 0..times {
                ends.0.send(value.clone())?;
            }
            ends.1.recv()?;
            Ok(())
        })
    })
}

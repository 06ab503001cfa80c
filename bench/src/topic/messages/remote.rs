//! The other process of topic `ipc`. It echoes messages, or discards them and answers on request.

use std::os::fd::AsFd;

use ipc::Blob;
use sys::scm::{self, RecvFlags};

use super::large::{Bulk, Large, List};
use super::passed::{Passed, SHARED, Shared};
use super::*;

/// Runs the other process: `bench role message-peer KIND EXTRA CORE`.
pub fn role() {
    let mut args = std::env::args().skip(3);
    let (kind, extra) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
    if let Some(core) = args.next().and_then(|text| text.parse().ok()) {
        place::keep_on(core);
    }
    // Every role ends with an error when the other side closes the channel.
    let _ = play(&kind, &extra);
}

fn own_channel<S, R>(awake: bool) -> Result<Channel<S, R>, Failure> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(Channel::from_fd(socket, options(awake))?)
}

fn play(kind: &str, extra: &str) -> Result<(), Failure> {
    match kind {
        "echo" => {
            let channel = own_channel::<Ping, Ping>(!extra.is_empty())?;
            loop {
                channel.send(&channel.recv()?)?;
            }
        }
        "sink" => {
            let channel = own_channel::<Ping, Ping>(true)?;
            loop {
                let ping = channel.recv()?;
                if ping.0[0] == 1 {
                    channel.send(&ping)?;
                }
            }
        }
        "large-sink" => {
            let channel = own_channel::<Ping, Large>(true)?;
            loop {
                if let Large::Last(_) = channel.recv()? {
                    channel.send(&Ping([0; 8]))?;
                }
            }
        }
        "blob-echo" => {
            let channel = own_channel::<Blob, Blob>(true)?;
            loop {
                channel.send(&channel.recv()?)?;
            }
        }
        "peer-echo-bulk" => sizes::peer_role(extra),
        "handle-sink" => {
            let channel = own_channel::<Ping, Passed>(true)?;
            loop {
                if channel.recv()?.0 {
                    channel.send(&Ping([0; 8]))?;
                }
            }
        }
        "memory-sink" => {
            let channel = own_channel::<Ping, Shared>(true)?;
            loop {
                let (last, memory) = channel.recv()?;
                std::hint::black_box(memory[0]);
                if last {
                    channel.send(&Ping([0; 8]))?;
                }
            }
        }
        "burn" => loop {
            std::hint::spin_loop();
        },
        "idle" => idle::role(extra),
        "peer-bulk" => play_typed::<Bulk>(extra),
        "peer-list" => play_typed::<List>(extra),
        raw if raw.starts_with("raw") => play_raw(raw, extra),
        peer => play_peer(peer, extra),
    }
}

fn play_raw(kind: &str, extra: &str) -> Result<(), Failure> {
    let mut stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut bytes = vec![0; 64 * 1024];
    match kind {
        "raw-echo" => loop {
            stream.read_exact(&mut bytes[..RAW])?;
            stream.write_all(&bytes[..RAW])?;
        },
        "raw-echo-of" => {
            let mut payload = vec![0; extra.parse()?];
            loop {
                stream.read_exact(&mut payload)?;
                stream.write_all(&payload)?;
            }
        }
        "raw-sink" => loop {
            let count = stream.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            if bytes[count - 1] == 1 {
                stream.write_all(&[1])?;
            }
        },
        "raw-large" => {
            let (total, buffer) = extra.split_once(' ').ok_or("two numbers")?;
            let total: usize = total.parse()?;
            let mut payload = vec![0; buffer.parse()?];
            loop {
                let mut left = total;
                while left > 0 {
                    let part = left.min(payload.len());
                    stream.read_exact(&mut payload[..part])?;
                    left -= part;
                }
                stream.write_all(&[1])?;
            }
        }
        "raw-memory" => loop {
            let got = scm::recv(stream.as_fd(), &mut bytes, 1, RecvFlags::default())?;
            let [file] = got.fds.as_slice() else { return Ok(()) };
            std::hint::black_box(place::first_byte(file.as_fd(), SHARED)?);
            if bytes[0] == 1 {
                stream.write_all(&[1])?;
            }
        },
        _ => loop {
            let got = scm::recv(stream.as_fd(), &mut bytes, scm::FDS_MAX, RecvFlags::default())?;
            if got.bytes == 0 {
                return Ok(());
            }
            if bytes[..got.bytes].contains(&1) {
                stream.write_all(&[1])?;
            }
        },
    }
}

fn play_typed<T>(extra: &str) -> Result<(), Failure>
where
    T: Serialize + for<'de> Deserialize<'de>,
{
    let (name, times) = extra.split_once('\n').ok_or("a name and a number")?;
    let times: usize = times.parse()?;
    let (back, answers) = peer::channel::<Ping>()?;
    let (sender, receiver) = peer::channel::<T>()?;
    peer::IpcSender::connect(name.to_owned())?.send((sender, answers))?;
    loop {
        for _ in 0..times {
            receiver.recv()?;
        }
        back.send(Ping([0; 8]))?;
    }
}

fn play_peer(kind: &str, extra: &str) -> Result<(), Failure> {
    let (back, answers) = peer::channel::<Ping>()?;
    if let Some((name, times)) = extra.split_once('\n') {
        let times: usize = times.parse()?;
        let (sender, receiver) = peer::bytes_channel()?;
        peer::IpcSender::connect(name.to_owned())?.send((sender, answers))?;
        loop {
            for _ in 0..times {
                receiver.recv()?;
            }
            back.send(Ping([0; 8]))?;
        }
    }
    let (sender, receiver) = peer::channel::<Ping>()?;
    peer::IpcSender::connect(extra.to_owned())?.send((sender, answers))?;
    loop {
        let ping = receiver.recv()?;
        if kind == "peer-echo" || ping.0[0] == 1 {
            back.send(ping)?;
        }
    }
}

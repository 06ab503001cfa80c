//! A Node peer that asks and does not read: its answers, and the errors that it causes, stay few.

use super::*;
use crate::internal::start_node;
use crate::link::driver::ANSWER_BYTES_MAX;
use crate::serialization::Serialization;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;

const NACK: &str = "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":0}\n";
const COUNT: &str = "{\"cmd\":\"NODE_SOCKET_GET_COUNT\",\"key\":\"k\"}\n";
const CLOSE: &str = "{\"cmd\":\"NODE_SOCKET_NOTIFY_CLOSE\",\"key\":\"k\"}\n";

/// The number of bytes that a peer tries to write.
const MUCH: usize = 16 << 20;

fn start() -> (Link, UnixStream, crossbeam_channel::Receiver<InternalEvent>) {
    let (a, b) = sys::socket::pair_stream().unwrap();
    let (sender, events) = unbounded();
    let options = Options::new().serialization(Serialization::Json);
    let link = start_node(a, options, move |event| drop(sender.send(event))).unwrap();
    link.resume();
    (link, UnixStream::from(b), events)
}

/// Writes `lines` again and again until the link does not read any more. Returns the number of lines.
fn write_until_unread(peer: &UnixStream, line: &str) -> usize {
    peer.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mut peer, lines) = (peer, line.repeat(1000));
    let mut written = 0;
    while written < MUCH {
        // The rest of a line that was cut follows with the next call.
        match peer.write(&lines.as_bytes()[written % lines.len()..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return written / line.len(),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the link has read {MUCH} bytes, and the peer none of its answers");
}

#[test]
fn a_peer_that_does_not_read_its_answers_is_not_read_until_it_does() {
    for line in [NACK, COUNT, CLOSE] {
        let (link, peer, _events) = start();
        let asked = write_until_unread(&peer, line);
        let waiting = link.queued_bytes();
        // One read leads to twice its bytes at most.
        let most = ANSWER_BYTES_MAX + 2 * crate::frame::READ_BYTES;
        assert!(waiting > 0 && waiting <= most, "{waiting} bytes wait");

        // The rest of the last line, and one more request: all of them are answered.
        let reader = BufReader::new(peer.try_clone().unwrap());
        let answers = std::thread::spawn(move || {
            reader.lines().take(asked + 1).map_while(Result::ok).filter(|it| !it.is_empty()).count()
        });
        peer.set_write_timeout(Some(LONG)).unwrap();
        (&peer).write_all(b"\n").unwrap();
        (&peer).write_all(line.as_bytes()).unwrap();
        (&peer).write_all(line.as_bytes()).unwrap();
        assert_eq!(answers.join().unwrap(), asked + 1);
        assert!(link.is_connected());
    }
}

#[test]
fn a_peer_that_causes_error_after_error_fills_no_queue() {
    let (_link, peer, events) = start();
    let mut reader = BufReader::new(peer.try_clone().unwrap());
    let mut errors = 0;
    for _ in 0..3 {
        for _ in 0..100 {
            (&peer).write_all(NACK.as_bytes()).unwrap();
            let mut answer = String::new();
            reader.read_line(&mut answer).unwrap();
            assert_eq!(answer, "{\"cmd\":\"NODE_HANDLE_NACK\"}\n");
        }
        (&peer).write_all(b"7\n").unwrap();
        loop {
            match events.recv_timeout(LONG).unwrap() {
                InternalEvent::Error(Error::HandlesLost) => errors += 1,
                InternalEvent::Message(_) => break,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(errors, 3 * crate::link::node_protocol::ERRORS_MAX);
}

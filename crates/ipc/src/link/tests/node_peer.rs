//! Bun as the peer: its internal messages differ from those of Node by one byte, and its `advanced`
//! serialization is another format.

use super::*;
use crate::internal::start_node;
use crate::serialization::Serialization;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

#[test]
fn internal_messages_of_bun_are_internal_and_get_no_acknowledgement() {
    let (a, b) = sys::socket::pair_stream().unwrap();
    let (sender, events) = unbounded();
    let options = Options::new().serialization(Serialization::Json);
    let link = start_node(a, options, move |event| drop(sender.send(event))).unwrap();
    link.resume();
    let mut peer = UnixStream::from(b);
    for line in [
        "\u{2}{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}\n",
        // Bun reads both of them as messages for its cluster, not as messages about handles.
        "\u{2}{\"cmd\":\"NODE_HANDLE_ACK\"}\n",
        "\u{2}{\"cmd\":\"NODE_HANDLE\",\"msg\":1,\"type\":\"net.Server\"}\n",
        "\u{2}\n",
    ] {
        peer.write_all(line.as_bytes()).unwrap();
        match events.recv_timeout(LONG).unwrap() {
            InternalEvent::Internal(message) => {
                assert_eq!(message.bytes(), &line.as_bytes()[1..line.len() - 1]);
            }
            other => panic!("{other:?}"),
        }
    }
    peer.write_all(b"{\"cmd\":\"online\"}\n").unwrap();
    assert!(matches!(events.recv_timeout(LONG).unwrap(), InternalEvent::Message(_)));
    link.send("end").unwrap();
    // From the first internal message on, those for Bun have the byte as well.
    crate::internal::send_internal(&link, &1).unwrap();
    let mut lines = BufReader::new(&peer).lines().map(|line| line.unwrap());
    assert_eq!(lines.next().unwrap(), "\"end\"");
    assert_eq!(lines.next().unwrap(), "\u{2}1");
}

#[test]
fn a_peer_with_another_format_than_v8s_is_an_error_at_once() {
    // The first bytes that Bun writes; V8's framing takes them for a length of 16 MB. With the lower
    // limit, the frame would be skipped instead.
    let bun = b"\x01\x02\0\0\0\x02\x24\0\0\0\x0e\0\0\0";
    for max in [Options::FRAME_BYTES_MAX, 1000] {
        for pieces in [1, bun.len()] {
            let (a, b) = sys::socket::pair_stream().unwrap();
            let (sender, events) = unbounded();
            let options =
                Options::new().serialization(Serialization::Advanced).frame_bytes_max(max);
            let link = start_node(a, options, move |event| drop(sender.send(event))).unwrap();
            link.resume();
            let mut peer = UnixStream::from(b);
            // The link may have closed the channel before the last byte.
            bun.chunks(pieces).try_for_each(|piece| peer.write_all(piece)).unwrap_or_default();
            match events.recv_timeout(LONG).unwrap() {
                InternalEvent::Disconnect { error: Some(error), .. } => {
                    assert!(
                        matches!(error, Error::Protocol(crate::FrameError::NotV8)),
                        "{error:?}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

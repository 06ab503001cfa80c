//! The buffers of an endpoint between two calls.

use super::*;
use std::io::Write;
use std::os::unix::net::UnixStream;

fn frame(value: &str) -> Vec<u8> {
    let options = Options::new();
    OutgoingFrame::encode(&value, Kind::Message, &options).unwrap().encoded.inline.take_memory()
}

#[test]
fn an_idle_endpoint_recycles_its_buffer_and_copies_little() {
    let (mut peer, ours) = UnixStream::pair().unwrap();
    let end = Endpoint::new(ours.into(), Options::new(), true, true);
    let long = frame(&"x".repeat(60_000));
    peer.write_all(&[&frame("one")[..], &long[..1]].concat()).unwrap();
    assert_eq!(end.recv::<String>().unwrap(), "one");
    assert!(end.receiving().inbox.decoder().wants_buffer(), "one byte of the next is little");
    peer.write_all(&long[1..50_000]).unwrap();
    assert!(end.recv_until::<String>(None).unwrap().is_none());
    for byte in &long[50_000..50_010] {
        peer.write_all(&[*byte]).unwrap();
        assert!(end.recv_until::<String>(None).unwrap().is_none());
        assert!(
            !end.receiving().inbox.decoder().wants_buffer(),
            "a long beginning stays in the buffer"
        );
    }
    peer.write_all(&long[50_010..]).unwrap();
    assert_eq!(end.recv::<String>().unwrap().len(), 60_000);
    assert!(end.receiving().inbox.decoder().wants_buffer(), "nothing is left");
}

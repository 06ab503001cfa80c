//! Bytes that are sent to Node, and values that are refused.

use super::super::handle_type::{Family, Transport};
use super::*;
use crate::codec::advanced::Value;
use serde_json::json;

fn lines<T: Serialize>(value: &T, handle: Option<HandleType>) -> Result<String, String> {
    let mut out = Vec::new();
    encode(&mut out, value, Framing::Lines, handle, Origin::User, 1000, &Features::default())
        .map(|()| String::from_utf8(out).unwrap())
        .map_err(|error| error.to_string())
}

#[test]
fn a_message_is_a_line_and_an_envelope_has_nodes_order() {
    assert_eq!(lines(&json!({"a": [1, null]}), None).unwrap(), "{\"a\":[1,null]}\n");
    assert_eq!(
        lines(&"m", Some(HandleType::Socket(Transport::Tcp))).unwrap(),
        "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":\"m\"}\n"
    );
    assert_eq!(
        lines(&1, Some(HandleType::Datagram(Family::V6))).unwrap(),
        "{\"cmd\":\"NODE_HANDLE\",\"type\":\"dgram.Socket\",\"msg\":1,\"dgramType\":\"udp6\"}\n"
    );
}

/// Node needs none of these members. Deno opens a listening socket as a connection without them.
#[test]
fn an_envelope_says_what_deno_cannot_find_out() {
    use Transport::{Tcp, Unix};
    for (handle, members) in [
        (HandleType::Socket(Tcp), ""),
        (HandleType::Socket(Unix), r#","nativeKind":"pipe""#),
        (HandleType::Server(Tcp), ""),
        (HandleType::Server(Unix), r#","nativeKind":"pipe""#),
        (HandleType::RawSocket(Tcp), ""),
        (HandleType::RawSocket(Unix), r#","nativeKind":"pipe""#),
        (HandleType::RawServer(Tcp), r#","socketType":1,"nativeKind":"tcp""#),
        (HandleType::RawServer(Unix), r#","socketType":1,"nativeKind":"pipe""#),
        (HandleType::RawDatagram, ""),
    ] {
        let line = lines(&1, Some(handle)).unwrap();
        assert!(line.ends_with(&format!("\"msg\":1{members}}}\n")), "{handle:?}: {line}");
    }
}

#[test]
fn an_internal_message_for_bun_has_a_mark_and_no_envelope() {
    let line = |handle| {
        let (mut out, value) = (Vec::new(), json!({"ack": 1}));
        encode(
            &mut out,
            &value,
            Framing::Lines,
            handle,
            Origin::InternalForBun,
            1000,
            &Features::default(),
        )
        .unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(line(None), "\u{2}{\"ack\":1}\n");
    let with_handle = line(Some(HandleType::RawServer(Transport::Tcp)));
    assert_eq!(with_handle, "\u{2}{\"$hasHandle\":true,\"ack\":1}\n");
}

#[test]
fn ready_made_json_stays_on_its_line() {
    let raw = serde_json::value::RawValue::from_string("{\n\"a\":\n1}".into()).unwrap();
    assert_eq!(lines(&raw, None).unwrap(), "{ \"a\": 1}\n");
}

#[test]
fn users_cannot_send_nodes_own_messages() {
    for hostile in [
        r#"{"cmd":"NODE_HANDLE_ACK"}"#,
        r#"{"a":1,"cmd":"NODE_X"}"#,
        r#"{"\u0063md":"\u004eODE_HANDLE_ACK"}"#,
        r#"{"cmd":"\u004EODE_HANDLE_ACK"}"#,
    ] {
        let raw = serde_json::value::RawValue::from_string(hostile.into()).unwrap();
        assert!(lines(&raw, None).unwrap_err().contains("NODE_"), "{hostile}");
        assert!(lines(&raw, Some(HandleType::Socket(Transport::Tcp))).is_err(), "{hostile}");
    }
    for fine in [json!({"cmd": "NODE_"}), json!("NODE_HANDLE_ACK"), json!([{"cmd": "NODE_ACK"}])] {
        assert!(lines(&fine, None).is_ok(), "{fine}");
        let mut out = Vec::new();
        encode(&mut out, &fine, Framing::Lengths, None, Origin::User, 1000, &Features::default())
            .unwrap();
    }
    let mut out = Vec::new();
    let ack = json!({"cmd": "NODE_HANDLE_ACK"});
    let refused =
        encode(&mut out, &ack, Framing::Lengths, None, Origin::User, 1000, &Features::default());
    assert!(matches!(refused, Err(Error::Encode(_))));
    encode(&mut out, &ack, Framing::Lengths, None, Origin::Internal, 1000, &Features::default())
        .unwrap();
    assert_eq!(out[..4], [0, 0, 0, 0x1b]);
    assert_eq!(&out[4..], b"\xff\x0fo\"\x03cmd\"\x0fNODE_HANDLE_ACK{\x01");
}

#[test]
fn an_envelope_in_v8s_format_is_nodes() {
    let mut out = Vec::new();
    let handle = Some(HandleType::Socket(Transport::Tcp));
    encode(&mut out, &"m", Framing::Lengths, handle, Origin::User, 1000, &Features::default())
        .unwrap();
    let expected =
        b"\xff\x0fo\"\x03cmd\"\x0bNODE_HANDLE\"\x04type\"\x0anet.Socket\"\x03msg\"\x01m{\x03";
    assert_eq!(&out[4..], expected);
}

#[test]
fn a_message_over_the_limit_is_an_error() {
    let long = "x".repeat(2000);
    for framing in [Framing::Lines, Framing::Lengths] {
        let answer =
            encode(&mut Vec::new(), &long, framing, None, Origin::User, 1000, &Features::default());
        assert!(matches!(answer, Err(Error::TooLong { max: 1000 })), "{answer:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs sockets")]
fn a_handle_inside_a_message_is_an_error() {
    for framing in [Framing::Lines, Framing::Lengths] {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let handle = crate::Handle::new(socket);
        let answer = encode(
            &mut Vec::new(),
            &handle,
            framing,
            None,
            Origin::User,
            1000,
            &Features::default(),
        );
        assert!(matches!(answer, Err(Error::Encode(_))), "{answer:?}");
        assert!(!handle.is_sent());
    }
}

#[test]
fn every_value_comes_back_from_its_frame() {
    let mut value = Value::default();
    let map = value.add(Node::Map(vec![(Item::Null, Item::Double(0.5))]));
    value.set_root(Item::Object(map));
    let mut out = Vec::new();
    encode(&mut out, &value, Framing::Lengths, None, Origin::User, 1000, &Features::default())
        .unwrap();
    assert_eq!(Value::from_bytes(&out[4..]), Ok(value));
}

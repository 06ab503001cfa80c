//! Payloads of Node, and payloads of a hostile peer.

use proptest::prelude::*;

use super::*;

fn json(text: &str) -> PayloadKind<'_> {
    classify(Framing::Lines, text.as_bytes())
}

fn inside(payload: &str, internal: bool, key: Option<&str>) -> PayloadKind<'static> {
    let payload = Cow::Owned(payload.as_bytes().to_vec());
    PayloadKind::Handle(InnerMessage { payload, internal, key: key.map(str::to_owned) })
}

#[test]
fn commands_are_distinguished_from_messages() {
    let ack = PayloadKind::Acknowledgement { taken: true };
    assert_eq!(json(r#"{"cmd":"NODE_HANDLE_ACK"}"#), ack);
    assert_eq!(
        json(r#" {"x":[{}],"cmd":"NODE_HANDLE_NACK"} "#),
        PayloadKind::Acknowledgement { taken: false }
    );
    for internal in [
        r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#,
        r#"{"cmd":"NODE_X"}"#,
        r#"{"cmd":"NODE_SOCKET_GET_COUNT"}"#,
        r#"{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":5}"#,
    ] {
        assert_eq!(json(internal), PayloadKind::Internal, "{internal}");
    }
    for user in [
        "null",
        "",
        "garbage NODE_",
        r#""NODE_HANDLE_ACK""#,
        r#"{"cmd":"NODE_"}"#,
        r#"{"cmd":"node_handle"}"#,
        r#"[{"cmd":"NODE_HANDLE_ACK"}]"#,
        r#"{"a":{"cmd":"NODE_HANDLE_ACK"}}"#,
        r#"{"cmd":["NODE_HANDLE_ACK"]}"#,
        r#"{"cmd":"NODE_HANDLE_ACK""#,
    ] {
        assert_eq!(json(user), PayloadKind::User, "{user}");
    }
    assert_eq!(
        json(r#"{"cmd":"NODE_SOCKET_GET_COUNT","key":"4:127.0.0.1:0"}"#),
        PayloadKind::SocketCount("4:127.0.0.1:0".into())
    );
    assert_eq!(
        json(r#"{"cmd":"NODE_SOCKET_NOTIFY_CLOSE","key":"k"}"#),
        PayloadKind::SocketsClosed("k".into())
    );
}

#[test]
fn the_byte_before_an_internal_message_of_bun_is_removed() {
    let json = br#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#;
    let line = [b"\x02", &json[..]].concat();
    assert_eq!(bun_internal(Framing::Lines, &line), Some(&json[..]));
    assert_eq!(bun_internal(Framing::Lines, b"\x02"), Some(&b""[..]));
    assert_eq!(bun_internal(Framing::Lines, json), None);
    assert_eq!(bun_internal(Framing::Lines, b""), None);
    assert_eq!(bun_internal(Framing::Lengths, &line), None);
}

#[test]
fn the_message_with_a_handle_is_extracted_unchanged() {
    let text = r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"a":"\ud800"},"key":"k"}"#;
    assert_eq!(json(text), inside(r#"{"a":"\ud800"}"#, false, Some("k")));
    assert_eq!(json(r#"{"cmd":"NODE_HANDLE"}"#), inside("null", false, None));
    assert_eq!(json(r#"{"cmd":"NODE_HANDLE","type":5,"key":{}}"#), inside("null", false, None));
    let text = r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","seq":1}}"#;
    assert_eq!(json(text), inside(r#"{"cmd":"NODE_CLUSTER","seq":1}"#, true, None));
}

#[test]
fn an_envelope_in_an_envelope_is_opened_too() {
    let mut text = r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"m","key":"k"}"#.to_owned();
    for _ in 0..3 {
        text = format!(r#"{{"cmd":"NODE_HANDLE","type":"net.Native","msg":{text}}}"#);
        assert_eq!(json(&text), inside(r#""m""#, false, Some("k")));
    }
    for _ in 0..if cfg!(miri) { 20 } else { 1000 } {
        text = format!(r#"{{"cmd":"NODE_HANDLE","type":"net.Native","msg":{text}}}"#);
    }
    assert!(matches!(json(&text), PayloadKind::Handle(_)), "and nesting is limited");
}

#[test]
fn deep_nesting_in_a_command_costs_no_stack() {
    let levels = if cfg!(miri) { 2_000 } else { 1_000_000 };
    let deep = "[".repeat(levels) + &"]".repeat(levels);
    let text = format!(r#"{{"cmd":"NODE_HANDLE","msg":{deep}}}"#);
    assert_eq!(json(&text), inside(&deep, false, None));
}

#[test]
fn bytes_that_are_no_text_hide_no_command() {
    let bytes = b"{\"x\":\"\xff\",\"cmd\":\"NODE_HANDLE_ACK\"}";
    assert_eq!(classify(Framing::Lines, bytes), PayloadKind::Acknowledgement { taken: true });
}

#[test]
fn commands_in_v8s_format_are_distinguished_too() {
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    };
    let advanced = |bytes: &[u8]| format!("{:?}", classify(Framing::Lengths, bytes));
    let ack = hex("ff0f6f2203636d64220f4e4f44455f48414e444c455f41434b7b01");
    assert_eq!(advanced(&ack), "Acknowledgement { taken: true }");
    let handle =
        hex("ff0f6f2203636d64220b4e4f44455f48414e444c45220474797065220a6e65742e536f636b657422036d\
         736722016d7b03");
    let expected = InnerMessage {
        payload: vec![0xff, 0x0f, b'"', 1, b'm'].into(),
        internal: false,
        key: None,
    };
    assert_eq!(classify(Framing::Lengths, &handle), PayloadKind::Handle(expected));
    assert!(begins_with_handle(Framing::Lengths, &handle));
    assert!(!begins_with_handle(Framing::Lengths, &ack));
    assert_eq!(advanced(b"\xff\x0f\"\x0fNODE_HANDLE_ACK"), "User");
    assert_eq!(advanced(b"NODE_HANDLE_ACK"), "User");
}

#[test]
fn text_that_no_rust_string_can_hold_is_replaced() {
    let check = |text: &str, expected: &str| {
        let repaired_utf16 =
            repaired_utf16(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(repaired_utf16.as_deref().unwrap_or("unchanged"), expected, "{text}");
    };
    check(r#""\ud800lone""#, r#""\ufffdlone""#);
    check(r#""\udc00\uD800\ud800\udc00""#, r#""\ufffd\ufffd\ud800\udc00""#);
    check(r#""\\ud800""#, "unchanged");
    check(r#""\\\ud800""#, r#""\\\ufffd""#);
    check(r#""\u00e9\n\ud83d\ude00""#, "unchanged");
    check("\"\\ud800", "\"\\ufffd");
    check("\"\\ud80", "unchanged");
    check("\\", "unchanged");
    assert_eq!(repaired_utf16(b"\"\xff\"").unwrap(), "\"\u{fffd}\"".as_bytes());
}

/// A part of a JSON text: an escaped code unit, or anything else.
#[derive(Clone, Debug)]
enum Part {
    Unit(u16),
    Other(&'static str),
}

impl Part {
    fn is_low(&self) -> bool {
        matches!(self, Part::Unit(0xdc00..=0xdfff))
    }

    fn text(&self) -> String {
        match self {
            // Node writes small letters; other senders may not.
            Part::Unit(unit) if unit % 2 == 0 => format!("\\u{unit:04x}"),
            Part::Unit(unit) => format!("\\u{unit:04X}"),
            Part::Other(text) => (*text).to_owned(),
        }
    }
}

/// Replaces lone surrogates, part by part.
fn repaired_parts(parts: &[Part]) -> String {
    let (mut text, mut at) = (String::new(), 0);
    while let Some(part) = parts.get(at) {
        let pair = matches!(part, Part::Unit(0xd800..=0xdbff))
            && parts.get(at + 1).is_some_and(Part::is_low);
        if pair {
            text += &part.text();
            text += &parts[at + 1].text();
            at += 1;
        } else if matches!(part, Part::Unit(0xd800..=0xdfff)) {
            text += "\\ufffd";
        } else {
            text += &part.text();
        }
        at += 1;
    }
    text
}

proptest! {
    #[test]
    fn each_lone_surrogate_is_replaced_and_all_else_is_unchanged(
        parts in prop::collection::vec(
            prop_oneof![
                (0xd7fe_u16..0xe002).prop_map(Part::Unit),
                any::<u16>().prop_map(Part::Unit),
                prop::sample::select(vec!["a", "ud800", "\\\\", "\\n", "\\\"", "ü", "\\u12", "{\"k\":1}"])
                    .prop_map(Part::Other),
            ],
            0..40,
        ),
    ) {
        let text: String = parts.iter().map(Part::text).collect();
        let expected = repaired_parts(&parts);
        let repaired = repaired_utf16(text.as_bytes());
        prop_assert_eq!(repaired.is_some(), expected != text);
        let found = repaired.map_or(text, |bytes| String::from_utf8(bytes).unwrap());
        prop_assert_eq!(found, expected);
    }
}

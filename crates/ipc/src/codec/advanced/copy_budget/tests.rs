//! One test for each kind of object that a value may name again and again.

use crate::advanced::{BigInt, Entry, ErrorKind, Item, Key, Node, NodeId, Text, Value, ViewKind};
use crate::codec::{self, DecodeLimits};
use crate::error::Error;
use crate::serialization::Serialization;
use serde::de::{DeserializeOwned, IgnoredAny};
use std::collections::HashMap;

/// The length of the part that is named again, in bytes.
const LONG: usize = 10_000;

/// The limit beside the length of the payload, in bytes.
const FRAME_BYTES_MAX: usize = 100_000;

fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    let limits = DecodeLimits { mapped_bytes_max: 0, frame_bytes_max: FRAME_BYTES_MAX };
    codec::decode(Serialization::Advanced, &value.to_bytes(), None, Vec::new(), limits, 0)
}

/// Returns an array that names the same object `times` times.
fn array(mut value: Value, object: NodeId, times: usize) -> Value {
    let items = vec![Some(Item::Object(object)); times];
    let root = value.add(Node::Array { items, extra: Vec::new() });
    value.set_root(Item::Object(root));
    value
}

/// Checks that `node` is decoded as a `T` a few times, and that many references to it are refused.
fn check<T: DeserializeOwned>(node: Node) {
    let mut value = Value::default();
    let object = value.add(node);
    assert_eq!(decode::<Vec<T>>(&array(value.clone(), object, 5)).unwrap().len(), 5);
    let error = match decode::<Vec<T>>(&array(value, object, 200)) {
        Ok(_) => panic!("200 copies of {LONG} bytes"),
        Err(error) => error,
    };
    assert!(error.to_string().contains("references to one object"), "{error}");
}

fn text() -> Text {
    Text::from("x".repeat(LONG).as_str())
}

#[test]
fn every_kind_of_object_that_is_named_again_is_charged() {
    let bytes = || vec![7; LONG];
    let (string, entry) = (Item::String(text()), |key, item| Entry { key, item });
    check::<String>(Node::String(text()));
    check::<String>(Node::RegExp { source: text(), flags: 0 });
    check::<crate::Blob>(Node::View { kind: ViewKind::Buffer, bytes: bytes() });
    check::<crate::Blob>(Node::ArrayBuffer(bytes()));
    let bytes_max = LONG as u32;
    check::<crate::Blob>(Node::ResizableArrayBuffer { bytes: bytes(), bytes_max });
    check::<HashMap<String, ()>>(Node::Object(vec![entry(Key::Name(text()), Item::Null)]));
    check::<HashMap<String, String>>(Node::Object(vec![entry(Key::from("a"), string.clone())]));
    check::<HashMap<String, ()>>(Node::Map(vec![(string.clone(), Item::Null)]));
    check::<Vec<String>>(Node::Set(vec![string.clone()]));
    let array = |items: Vec<_>| Node::Array { items, extra: Vec::new() };
    check::<Vec<String>>(array(vec![Some(string.clone())]));
    let entries = vec![entry(Key::Index(0), string.clone())];
    check::<Vec<String>>(Node::Sparse { length: 1, entries });
    let (kind, cause) = (ErrorKind::Error, None);
    let error = |message, stack| Node::Error { kind, message, cause: cause.clone(), stack };
    check::<HashMap<String, String>>(error(Some(text()), None));
    check::<HashMap<String, String>>(error(None, Some(text())));
    check::<String>(Node::Host(string));
    // A number of this length has no Rust type, so nobody keeps a copy, but each visit is counted.
    check::<IgnoredAny>(Node::Map(vec![(Item::String(text()), Item::Null)]));
    let magnitude = [vec![1], vec![0; LONG]].concat();
    check::<u64>(Node::BigInt(BigInt { negative: false, magnitude }));
}

#[derive(Debug, serde::Deserialize)]
enum Choice {
    #[serde(rename = "a")]
    #[allow(dead_code, reason = "only its length counts")]
    A(String),
}

#[test]
fn the_content_of_an_enum_that_is_named_again_is_charged() {
    let entry = Entry { key: Key::from("a"), item: Item::String(text()) };
    check::<Choice>(Node::Object(vec![entry]));
}

#[test]
fn parts_that_stay_values_of_javascript_are_charged() {
    check::<Value>(Node::String(text()));
}

#[test]
fn every_view_on_one_buffer_is_a_copy_of_it() {
    let length = LONG as u32;
    let views = |count| {
        let mut value = Value::default();
        let buffer = value.add(Node::ArrayBuffer(vec![7; LONG]));
        let view = Node::BufferView { buffer, letter: b'B', offset: 0, length, flags: 0 };
        let items = (0..count).map(|_| Some(Item::Object(value.add(view.clone())))).collect();
        let root = value.add(Node::Array { items, extra: Vec::new() });
        value.set_root(Item::Object(root));
        value
    };
    assert_eq!(decode::<Vec<crate::Blob>>(&views(5)).unwrap().len(), 5);
    let error = decode::<Vec<crate::Blob>>(&views(200)).unwrap_err();
    assert!(error.to_string().contains("references to one object"), "{error}");
}

#[test]
fn objects_that_are_named_once_are_free() {
    let mut value = Value::default();
    let strings: Vec<_> = (0..50).map(|_| value.add(Node::String(text()))).collect();
    let items = strings.into_iter().map(|id| Some(Item::Object(id))).collect();
    let root = value.add(Node::Array { items, extra: Vec::new() });
    value.set_root(Item::Object(root));
    assert_eq!(decode::<Vec<String>>(&value).unwrap().len(), 50);
}

#[test]
fn copies_that_double_at_each_level_are_refused() {
    let mut value = Value::default();
    let mut below = value.add(Node::String(text()));
    for _ in 0..16 {
        let items = vec![Some(Item::Object(below)); 2];
        below = value.add(Node::Array { items, extra: Vec::new() });
    }
    value.set_root(Item::Object(below));
    let error = decode::<serde_json::Value>(&value).unwrap_err();
    assert!(error.to_string().contains("references to one object"), "{error}");
}

//! Node's vectors in both directions, types of serde through JavaScript, and hostile values.

use super::*;
use crate::codec::tests::{payload, read};
use serde::Deserialize;
use std::collections::BTreeMap;

const VECTORS: &str = include_str!("../../../tests/data/v8-vectors-node20.jsonl");

/// Values that not every version writes, or not as another does: each with the versions of Node that
/// write these bytes.
const OF_VERSIONS: &str = include_str!("../../../tests/data/v8-vectors-versions.jsonl");

#[derive(Deserialize)]
struct Vector {
    js: String,
    #[serde(default)]
    node: Vec<u32>,
    hex: String,
}

impl Vector {
    fn bytes(&self) -> Vec<u8> {
        (0..self.hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&self.hex[at..at + 2], 16).unwrap())
            .collect()
    }
}

fn read_vectors(lines: &str) -> Vec<Vector> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn vectors() -> Vec<(String, Vec<u8>)> {
    let all = read_vectors(VECTORS).into_iter();
    all.map(|vector| (vector.js.clone(), vector.bytes())).collect()
}

#[test]
fn values_of_every_version_of_node_are_read_and_written_back() {
    let vectors = read_vectors(OF_VERSIONS);
    for version in [18, 20, 22, 24, 26] {
        assert!(vectors.iter().filter(|vector| vector.node.contains(&version)).count() >= 30);
    }
    for Vector { js, node, .. } in &vectors {
        let same: Vec<_> = vectors.iter().filter(|other| other.js == *js).collect();
        let own = same.iter().find(|other| other.node == *node).unwrap();
        let value = Value::from_bytes(&own.bytes()).unwrap_or_else(|why| panic!("{js}: {why}"));
        // Node 18 and 20 write the cause of an error before the stack, and read both orders.
        let is_error = js.starts_with("E(") || js.contains(".cause");
        let newest = same.iter().find(|other| is_error && other.node.contains(&26));
        let expected = if js.contains("DOMException") { own } else { newest.unwrap_or(own) };
        assert_eq!(value.to_bytes(), expected.bytes(), "{js} of {node:?}");
        for length in 0..own.bytes().len() {
            assert!(Value::from_bytes(&own.bytes()[..length]).is_err(), "{js} cut at {length}");
        }
    }
}

#[test]
fn the_values_that_only_some_versions_write_are_themselves() {
    let read = |bytes: &[u8]| {
        let value = Value::from_bytes(bytes).unwrap();
        let Item::Object(id) = *value.root() else { panic!() };
        value.node(id).clone()
    };
    assert_eq!(
        read(b"\xff\x0f~\x02\xac\x02ab"),
        Node::ResizableArrayBuffer { bytes: b"ab".to_vec(), bytes_max: 300 }
    );
    assert_eq!(
        read(b"\xff\x0f\\\0\x0d\x02\0\x3e"),
        Node::View { kind: ViewKind::Float16, bytes: vec![0, 0x3e] }
    );
    assert_eq!(
        read(b"\xff\x0fR\"\x01a\x80\x02"),
        Node::RegExp { source: Text::from("a"), flags: 256 }
    );
    // Longer than the largest length, and half an element.
    for wrong in
        [&b"\xff\x0f~\x02\x01ab"[..], b"\xff\x0f\\\0\x0d\x01\0", b"\xff\x0f~\xff\x7f\xff\x7f"]
    {
        Value::from_bytes(wrong).unwrap_err();
    }
    // A type of serde sees the bytes.
    let bytes = b"\xff\x0f~\x02\xac\x02ab";
    let back: crate::Blob = self::read(bytes, Serialization::Advanced).unwrap();
    assert_eq!(&back[..], b"ab");
}

#[test]
fn everything_node_writes_is_read_and_written_back_byte_for_byte() {
    let vectors = vectors();
    assert!(vectors.len() >= 60);
    for (js, bytes) in vectors {
        let value = Value::from_bytes(&bytes).unwrap_or_else(|error| panic!("{js}: {error}"));
        assert_eq!(value.to_bytes(), bytes, "{js}");
        // The value goes through the codec, alone and as a part of another value.
        assert_eq!(payload(&value, Serialization::Advanced).unwrap(), bytes, "{js}");
        let again: Value = read(&bytes, Serialization::Advanced).unwrap();
        assert_eq!(again.to_bytes(), bytes, "{js}");
        for codec in [Serialization::Bincode, Serialization::Json, Serialization::Advanced] {
            let carried = payload(&(1, &value), codec).unwrap();
            let (_, back): (i32, Value) = read(&carried, codec).unwrap();
            assert_eq!(back.to_bytes(), bytes, "{js} inside {codec}");
        }
    }
}

#[test]
fn every_prefix_of_what_node_writes_is_an_error_and_no_panic() {
    for (js, bytes) in vectors() {
        for length in 0..bytes.len() {
            assert!(Value::from_bytes(&bytes[..length]).is_err(), "{js} cut at {length}");
        }
    }
}

#[test]
fn changed_bytes_never_panic_and_what_is_read_can_be_written() {
    for (_, bytes) in vectors() {
        for at in (2..bytes.len()).step_by(if cfg!(miri) { 40 } else { 1 }) {
            for byte in [0, 1, 0x24, 0x41, 0x5c, 0x5e, 0x6f, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                if let Ok(value) = Value::from_bytes(&changed) {
                    let again = Value::from_bytes(&value.to_bytes());
                    assert!(again.is_ok(), "{changed:x?}");
                }
            }
        }
    }
}

#[derive(serde::Serialize, Deserialize, PartialEq, Debug)]
enum Shape {
    Unit,
    One(f64),
    Two(i64, u64),
    Named { maybe: Option<String>, bytes: crate::Blob },
}

#[test]
fn types_of_serde_come_back_through_javascript() {
    fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
        let bytes = payload(&value, Serialization::Advanced).unwrap();
        assert_eq!(read::<T>(&bytes, Serialization::Advanced).unwrap(), value);
    }
    check(vec![Shape::Unit, Shape::One(1.5), Shape::One(2.0), Shape::One(-0.0)]);
    check(Shape::Two(i64::MIN, u64::MAX));
    check(Shape::Two(1 << 40, 1 << 53));
    check(Shape::Named { maybe: Some("€".into()), bytes: crate::Blob::from(vec![1; 20_000]) });
    check(Shape::Named { maybe: None, bytes: crate::Blob::from(vec![]) });
    check(BTreeMap::from([("a".to_owned(), 1_u8), ("7".to_owned(), 2)]));
    check(BTreeMap::from([(1_u8, 'a'), (2, 'b')]));
    check((u128::MAX, i128::MIN + 1, [(); 3], true));
}

#[test]
fn a_program_writes_the_same_bytes_as_node() {
    let bytes = |value: &[f64]| payload(&value, Serialization::Advanced).unwrap();
    let object = BTreeMap::from([("a", BTreeMap::from([("b", [1, 2])]))]);
    let node = vectors().into_iter().find(|(js, _)| js == "({a:{b:[1,2]}})").unwrap().1;
    assert_eq!(payload(&object, Serialization::Advanced).unwrap(), node);
    assert_eq!(bytes(&[1.0, 2.0]), [0xff, 15, b'A', 2, b'I', 2, b'I', 4, b'$', 0, 2]);
}

#[test]
fn hostile_values_are_errors_and_cost_nothing() {
    let deep: Vec<u8> = [&[0xff, 15][..], &b"A\x01".repeat(100_000)].concat();
    assert!(Value::from_bytes(&deep).unwrap_err().contains("nested deeper"));
    let hosts: Vec<u8> = [&[0xff, 15][..], &b"\\\x01".repeat(100_000)].concat();
    assert!(Value::from_bytes(&hosts).unwrap_err().contains("nested deeper"));
    let counts: Vec<u8> = [&[0xff, 15][..], &b"?\x01".repeat(100_000)].concat();
    assert!(Value::from_bytes(&counts).unwrap_err().contains("nested deeper"));
    for announced in
        [&b"A\xff\xff\xff\xff\x0f"[..], b"\"\xff\xff\xff\xff\x0f", b"Z\xfe\xff\xff\xff\x0f"]
    {
        let bytes = [&[0xff, 15], announced].concat();
        assert!(Value::from_bytes(&bytes).unwrap_err().contains("too early"));
    }
    let gaps = [&[0xff, 15][..], b"a\xff\xff\xff\xff\x0f@\0\xff\xff\xff\xff\x0f"].concat();
    assert!(Value::from_bytes(&gaps).is_ok());
    assert!(read::<Vec<Option<u8>>>(&gaps, Serialization::Advanced).is_err());
    for version in [9, 12, 16] {
        assert!(Value::from_bytes(&[0xff, version, b'0']).is_err());
    }
    let twice = [&[0xff, 15][..], b"o\"\x01a0\"\x01a0{\x02"].concat();
    assert!(Value::from_bytes(&twice).unwrap_err().contains("twice"));
}

#[test]
fn a_value_shared_many_times_does_not_grow_without_limit_as_a_tree() {
    // Thirty lists hold the next list twice each: a billion leaves in a few hundred bytes.
    let mut value = Value::default();
    let mut inner = Item::Int(1);
    for _ in 0..30 {
        let items = vec![Some(inner.clone()), Some(inner)];
        inner = Item::Object(value.add(Node::Array { items, extra: vec![] }));
    }
    value.set_root(inner);
    let bytes = value.to_bytes();
    let refused = read::<serde_json::Value>(&bytes, Serialization::Advanced).unwrap_err();
    assert!(refused.to_string().contains("more list elements"), "{refused}");
}

#[test]
fn a_cycle_as_a_tree_is_an_error() {
    let bytes = vectors().into_iter().find(|(js, _)| js.contains("o.o=o")).unwrap().1;
    let refused = read::<serde_json::Value>(&bytes, Serialization::Advanced).unwrap_err();
    assert!(refused.to_string().contains("nested deeper"), "{refused}");
}

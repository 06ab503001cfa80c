//! Values that V8 can read, and values that would end Node.

use super::super::value::ViewKind;
use super::*;

fn check(node: Node) -> Result<(), String> {
    let mut value = Value::default();
    let id = value.add(node);
    value.set_root(Item::Object(id));
    readable_by_v8(&value, &Features::default())
}

/// Returns the view itself, which is no buffer.
fn first() -> NodeId {
    Value::default().add(Node::Date(0.0))
}

fn at(index: u32) -> Entry {
    Entry { key: Key::Index(index), item: Item::Null }
}

fn entry(key: &str) -> Entry {
    Entry { key: Key::Name(key.into()), item: Item::Null }
}

#[test]
fn values_that_v8_cannot_read_are_refused() {
    let regexp = |source: &str, flags| Node::RegExp { source: source.into(), flags };
    let refused = [
        Node::Object(vec![entry("a"), entry("a")]),
        Node::Object(vec![at(1), entry("1")]),
        Node::Array { items: vec![], extra: vec![entry("x"), entry("x")] },
        Node::Array { items: vec![Some(Item::Null)], extra: vec![at(0)] },
        Node::Array { items: vec![Some(Item::Null)], extra: vec![entry("0")] },
        Node::Array { items: vec![], extra: vec![entry("length")] },
        Node::Sparse { length: 0, entries: vec![entry("length")] },
        Node::Host(Item::Int(1)),
        Node::View { kind: ViewKind::Int16, bytes: vec![1] },
        Node::BufferView { buffer: first(), letter: b'B', offset: 0, length: 0, flags: 0 },
        regexp("(", 0),
        regexp("a", 1 << 8),
        regexp("a", 1 << 12),
    ];
    for node in refused {
        let text = format!("{node:?}");
        assert!(check(node).is_err(), "{text}");
    }
    let taken = [
        Node::Object(vec![entry("a"), entry("b")]),
        Node::Sparse { length: 2, entries: vec![at(1), at(7)] },
        Node::Array { items: vec![None], extra: vec![at(0), at(9)] },
        Node::View { kind: ViewKind::Int16, bytes: vec![1, 2] },
        regexp("a-b_c ß", 0),
        regexp("^[a-z]+$", 3),
    ];
    for node in taken {
        check(node).unwrap();
    }
}

#[test]
fn a_view_lies_inside_its_buffer() {
    for (letter, offset, length, good) in [
        (b'B', 0, 4, true),
        (b'W', 2, 2, true),
        (b'W', 1, 2, false),
        (b'W', 0, 3, false),
        (b'B', 3, 2, false),
        (b'B', u32::MAX, 2, false),
        (b'!', 0, 1, false),
    ] {
        let mut value = Value::default();
        let buffer = value.add(Node::ArrayBuffer(vec![0; 4]));
        let view = value.add(Node::BufferView { buffer, letter, offset, length, flags: 0 });
        value.set_root(Item::Object(view));
        assert_eq!(
            readable_by_v8(&value, &Features::default()).is_ok(),
            good,
            "{letter} {offset} {length}"
        );
    }
}

#[test]
fn an_object_that_v8_creates_last_does_not_contain_itself() {
    let check = |make: fn(NodeId) -> Node| {
        let mut value = Value::default();
        let around = value.add(Node::Date(0.0));
        let list = value.add(Node::Set(vec![Item::Object(around)]));
        *value.node_mut(around) = make(list);
        value.set_root(Item::Object(around));
        readable_by_v8(&value, &Features::default())
    };
    assert!(check(|list| Node::Host(Item::Object(list))).is_err());
    assert!(check(|list| error(Item::Object(list))).is_err());
    check(|list| Node::Set(vec![Item::Object(list)])).unwrap();
    let mut twice = Value::default();
    let one = twice.add(Node::Host(Item::Null));
    let inside = twice.add(Node::Object(vec![]));
    *twice.node_mut(one) = Node::Host(Item::Object(inside));
    let both = twice.add(Node::Set(vec![Item::Object(one), Item::Object(one)]));
    twice.set_root(Item::Object(both));
    readable_by_v8(&twice, &Features::default()).unwrap();
}

fn error(cause: Item) -> Node {
    let kind = super::super::value::ErrorKind::Error;
    Node::Error { kind, message: None, cause: Some(cause), stack: None }
}

#[test]
fn an_unwritable_value_is_an_error_and_no_endless_recursion() {
    let mut value = Value::default();
    let own = value.add(Node::Date(0.0));
    let view = Node::BufferView { buffer: own, letter: b'B', offset: 0, length: 0, flags: 0 };
    *value.node_mut(own) = view;
    value.set_root(Item::Object(own));
    assert!(writable(&value).is_err());
    assert!(serde_json::to_string(&value).is_err());
    assert_eq!(value.to_bytes(), [0xff, 0x0f, b'_'], "nothing else could be written");
}

#[test]
fn cycles_are_accepted_and_depth_is_limited() {
    let mut value = Value::default();
    let own = value.add(Node::Object(vec![]));
    *value.node_mut(own) = Node::Object(vec![Entry { key: "me".into(), item: Item::Object(own) }]);
    value.set_root(Item::Object(own));
    readable_by_v8(&value, &Features::default()).unwrap();
    let mut deep = Value::default();
    let mut item = Item::Null;
    // Miri is slow, so a depth well over the limit is enough there.
    for _ in 0..if cfg!(miri) { 1_000 } else { 100_000 } {
        item = Item::Object(deep.add(Node::Set(vec![item])));
    }
    deep.set_root(item);
    assert!(readable_by_v8(&deep, &Features::default()).unwrap_err().contains("deeper"));
}

#[test]
fn a_feature_of_newer_versions_is_readable_once_the_peer_has_written_it() {
    let values: [(&[u8], &str); 6] = [
        (b"\xff\x0f~\x02\x04ab", "a resizable buffer, which the peer has not sent"),
        (b"\xff\x0f\\\0\x0d\x02ab", "a Float16Array, which the peer has not sent"),
        (b"\xff\x0frm\"\x01xc^\0.", "an object that contains itself"),
        (b"\xff\x0fR\"\x01a\x80\x02", "with the flags 0x100"),
        (b"\xff\x0fR\"\x06\\p{Lu}\x10", "which may be invalid"),
        (b"\xff\x0fR\"\x06(?i:a)\0", "which may be invalid"),
    ];
    let known = Features::default();
    for (bytes, why) in values {
        let value = Value::from_bytes(bytes).unwrap();
        let error = readable_by_v8(&value, &known).unwrap_err();
        assert!(error.contains(why), "{error}");
        writable(&value).unwrap();
        learn(&value, &known);
        readable_by_v8(&value, &known).unwrap();
        readable_by_v8(&value, &Features::default()).unwrap_err();
    }
    // One expression says nothing about another one.
    let other = Value::from_bytes(b"\xff\x0fR\"\x06\\p{Lx}\x10").unwrap();
    readable_by_v8(&other, &known).unwrap_err();
}

#[test]
fn a_peer_teaches_a_bounded_number_of_expressions() {
    let known = Features::default();
    let expression = |source: &str| {
        let mut value = Value::default();
        let node = value.add(Node::RegExp { source: source.into(), flags: 256 });
        value.set_root(Item::Object(node));
        value
    };
    for number in 0..1025 {
        learn(&expression(&number.to_string()), &known);
    }
    readable_by_v8(&expression("1023"), &known).unwrap();
    readable_by_v8(&expression("1024"), &known).unwrap_err();
    let known = Features::default();
    learn(&expression(&"x".repeat(1025)), &known);
    readable_by_v8(&expression(&"x".repeat(1025)), &known).unwrap_err();
}

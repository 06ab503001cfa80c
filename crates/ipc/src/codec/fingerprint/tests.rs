//! Values that are read as the types of relatives and strangers.

use super::*;
use crate::codec::{LIMITS, decode, encode};
use crate::serialization::Serialization::{self, Bincode, Json};
use crate::{Blob, Error, Handle, Options};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

fn read_as<R: DeserializeOwned>(value: &impl Serialize, codec: Serialization) -> Result<R, Error> {
    let mut bytes = Vec::new();
    let parts = encode(value, codec, &mut bytes, usize::MAX).unwrap();
    for (at, piece) in parts.pieces.iter().rev() {
        bytes.splice(*at..*at, piece.iter().copied());
    }
    decode(codec, &bytes, None, Vec::new(), LIMITS, parts.fingerprint)
}

#[track_caller]
fn is_read<R: DeserializeOwned>(value: &impl Serialize) {
    if let Err(error) = read_as::<R>(value, Bincode) {
        panic!("{error}");
    }
}

/// Checks that the payload alone would be read, and that the fingerprint refuses it.
#[track_caller]
fn is_refused<R: DeserializeOwned>(value: &impl Serialize) {
    let bytes = bincode::serialize(value).unwrap();
    assert!(bincode::deserialize::<R>(&bytes).is_ok(), "bincode notices nothing");
    match read_as::<R>(value, Bincode).map(drop) {
        Err(Error::WrongType { sent, read, .. }) => assert_ne!(sent, read),
        other => panic!("{other:?}"),
    }
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Point {
    x: f64,
    y: f64,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Renamed {
    east: f64,
    #[serde(rename = "up")]
    north: f64,
}

#[derive(Serialize, Deserialize)]
struct Newtype(u64);

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Transparent {
    only: u64,
}

#[derive(Serialize)]
struct Lent<'a> {
    name: &'a str,
    data: Cow<'a, [u8]>,
}

#[derive(Serialize, Deserialize)]
struct Owned {
    label: String,
    bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
enum Shape {
    Nothing,
    Radius(f64),
    Sides(f64, f64),
    Box { width: f64, height: f64 },
}

#[derive(Serialize, Deserialize)]
enum Figure {
    Empty,
    Circle(f64),
    Rectangle(f64, f64),
    Frame { w: f64, h: f64 },
}

#[derive(Serialize, Deserialize)]
enum Reordered {
    Radius(f64),
    Nothing,
    Box { width: f64, height: f64 },
    Sides(f64, f64),
}

#[test]
fn the_example_of_the_documentation_is_an_error() {
    is_refused::<(u32, u64, u8)>(&(7_u32, "x".to_owned()));
    let error = read_as::<(u32, u64, u8)>(&(7_u32, "x".to_owned()), Bincode).unwrap_err();
    assert!(error.to_string().contains("`(u32, u64, u8)`"), "{error}");
    // Where the lengths differ, the codec notices by itself.
    let error = read_as::<(u32, u64, u8)>(&(7_u32, "long".to_owned()), Bincode).unwrap_err();
    assert!(matches!(error, Error::Decode(_)), "{error}");
}

#[test]
fn relatives_match() {
    is_read::<String>(&"text");
    is_read::<Cow<'static, str>>(&"text");
    is_read::<Box<str>>(&Rc::<str>::from("text").as_ref());
    is_read::<Owned>(&Lent { name: "a", data: Cow::Borrowed(b"b") });
    is_read::<Renamed>(&Point { x: 1.0, y: 2.0 });
    is_read::<(f64, f64)>(&Point { x: 1.0, y: 2.0 });
    is_read::<[f64; 2]>(&Point { x: 1.0, y: 2.0 });
    is_read::<u64>(&Newtype(7));
    is_read::<u64>(&Transparent { only: 7 });
    is_read::<Newtype>(&7_usize);
    is_read::<Vec<Newtype>>(&vec![1_u64, 2, 3]);
    is_read::<Vec<u64>>(&[Newtype(1), Newtype(2)].as_slice());
    is_read::<Box<u64>>(&7_u64);
    is_read::<Blob>(&vec![1_u8, 2, 3]);
    is_read::<Blob>(&Vec::<u8>::new());
    is_read::<Vec<u8>>(&Blob::from(vec![1, 2]));
    is_read::<Vec<u8>>(&Blob::from(vec![1; 100_000]));
    is_read::<Blob>(&Blob::from(vec![1; 100_000]));
    is_read::<BTreeSet<u32>>(&vec![1_u32, 2]);
    is_read::<HashMap<String, u32>>(&BTreeMap::from([("a", 1_u32), ("b", 2)]));
    is_read::<((u8, u8), u8)>(&(1_u8, 2_u8, 3_u8));
    for shape in [Shape::Nothing, Shape::Radius(1.0), Shape::Sides(1.0, 2.0)] {
        is_read::<Figure>(&shape);
    }
    is_read::<Figure>(&Shape::Box { width: 1.0, height: 2.0 });
    is_read::<Vec<Option<Figure>>>(&vec![Some(Shape::Nothing), None, Some(Shape::Radius(1.0))]);
    is_read::<IpAddr>(&IpAddr::V6(Ipv6Addr::LOCALHOST));
    is_read::<Vec<SocketAddr>>(&vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 80))]);
    is_read::<Duration>(&Duration::from_millis(7));
    is_read::<Result<(), String>>(&Err::<(), _>("no"));
    is_read::<std::ops::Range<u16>>(&(1_u16..2));
    is_read::<std::ffi::OsString>(&std::ffi::OsString::from("os"));
    is_read::<std::path::PathBuf>(&std::path::Path::new("/tmp"));
    is_read::<std::ffi::CString>(&c"text");
}

#[test]
fn strangers_of_the_same_length_are_refused() {
    is_refused::<f64>(&7_u64);
    is_refused::<i32>(&7_u32);
    is_refused::<u8>(&true);
    is_refused::<u8>(&'a');
    is_refused::<[u8; 4]>(&7_u32);
    is_refused::<u64>(&(7_u32, 8_u32));
    is_refused::<(u8, u32)>(&Some(7_u32));
    is_refused::<Option<u32>>(&(1_u8, 7_u32));
    is_refused::<u8>(&None::<u32>);
    is_refused::<(u64, u32, u32)>(&vec![1_u32, 2]);
    is_refused::<Vec<u32>>(&(2_u64, 1_u32, 2_u32));
    is_refused::<Vec<f64>>(&vec![1_u64, 2, 3]);
    is_refused::<Vec<u8>>(&"text");
    is_refused::<Blob>(&"text");
    is_refused::<Vec<(u32, u32)>>(&BTreeMap::from([(1_u32, 2_u32)]));
    is_refused::<BTreeMap<u32, u32>>(&vec![(1_u32, 2_u32)]);
    is_refused::<(u64, String, f64, f64)>(&BTreeMap::from([("a", Point { x: 1.0, y: 2.0 })]));
    is_refused::<u32>(&Shape::Nothing);
    is_refused::<(u32, f64)>(&Shape::Radius(1.0));
    is_refused::<Vec<Vec<f32>>>(&vec![vec![1_u32], vec![]]);
    is_refused::<BTreeMap<u32, f32>>(&BTreeMap::from([(1_u32, 2_u32), (3, 4)]));
}

/// No names travel, so variants in another order are noticed by their parts.
#[test]
fn variants_in_another_order_are_noticed_where_their_parts_differ() {
    assert!(read_as::<Reordered>(&Shape::Nothing, Bincode).is_err());
    assert!(read_as::<Reordered>(&Shape::Radius(1.0), Bincode).is_err());
    is_refused::<Reordered>(&Shape::Sides(1.0, 2.0));
    // An element in the middle of a list counts as well.
    let list =
        vec![Some(Shape::Sides(1.0, 2.0)), None, Some(Shape::Box { width: 1.0, height: 2.0 })];
    is_refused::<Vec<Option<Reordered>>>(&list);
    #[derive(Serialize)]
    enum Ours {
        #[allow(dead_code, reason = "only the order is of interest")]
        Start(u32),
        Stop(u32),
    }
    #[derive(Deserialize)]
    enum Theirs {
        Stop(u32),
        Start(u32),
    }
    let unnoticed = read_as::<Theirs>(&Ours::Stop(7), Bincode).unwrap();
    assert!(matches!(unnoticed, Theirs::Start(7)));
    let unnoticed = read_as::<Theirs>(&Ours::Start(7), Bincode).unwrap();
    assert!(matches!(unnoticed, Theirs::Stop(7)));
}

#[test]
fn what_cannot_differ_matches() {
    is_read::<Vec<String>>(&Vec::<u64>::new());
    is_read::<Option<String>>(&None::<u64>);
    is_read::<()>(&());
}

#[test]
fn codecs_with_types_in_their_bytes_need_no_fingerprint() {
    assert_eq!(read_as::<f64>(&7_u64, Json).unwrap(), 7.0);
    assert_eq!(read_as::<Vec<u8>>(&(1, 2), Json).unwrap(), [1, 2]);
}

#[test]
fn a_part_in_any_place_changes_the_fingerprint_and_so_does_the_order() {
    let of = |parts: &[Part]| {
        let fingerprint = Fingerprint::default();
        parts.iter().for_each(|part| fingerprint.fold(*part));
        fingerprint.finish()
    };
    let mut seen = BTreeSet::new();
    for length in 0..300 {
        assert!(seen.insert(of(&vec![Part::U32; length])));
        for at in (0..length).step_by(7) {
            let mut parts = vec![Part::U32; length];
            parts[at] = Part::F32;
            assert!(seen.insert(of(&parts)), "{at} of {length}");
        }
    }
    for distance in 1..300 {
        let mut parts = vec![Part::U8; 301];
        parts[0] = Part::TEXT;
        parts.swap(0, distance);
        assert!(seen.insert(of(&parts)), "{distance}");
    }
    for index in 0..1000 {
        assert!(seen.insert(of(&[Part::index(index)])));
    }
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "type")]
enum Tagged {
    Number { number: u32 },
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "type", content = "value")]
enum Adjacent {
    Number(u32),
}

#[derive(Serialize)]
struct Endless;

impl Endless {
    fn write<S: serde::Serializer>(_: &(), serializer: S) -> Result<S::Ok, S::Error> {
        serde::ser::SerializeSeq::end(serializer.serialize_seq(None)?)
    }
}

#[test]
fn what_bincode_cannot_carry_fails_with_an_error_that_names_the_codec_that_can() {
    fn at_the_receiver<T: Serialize + DeserializeOwned + std::fmt::Debug>(value: T, name: &str) {
        let error = read_as::<T>(&value, Bincode).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("Serialization::Json"), "{error}");
        read_as::<T>(&value, Json).unwrap();
    }
    at_the_receiver(serde_json::json!({"a": [1, "b"]}), "`serde_json::value::Value`");
    at_the_receiver(Untagged::Number(7), "Untagged`");
    at_the_receiver(vec![Tagged::Number { number: 7 }], "Tagged>`");
    at_the_receiver(Adjacent::Number(7), "Adjacent`");
    #[derive(Serialize)]
    struct Unknown {
        #[serde(serialize_with = "Endless::write")]
        list: (),
    }
    let error = encode(&Unknown { list: () }, Bincode, &mut Vec::new(), 100).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("unknown length") && text.contains("Serialization::Json"), "{text}");
    encode(&Unknown { list: () }, Json, &mut Vec::new(), 100).unwrap();
}

#[test]
fn a_payload_of_another_length_says_that_both_sides_need_one_type() {
    let value = (7_u32, Some("text".to_owned()));
    for error in [
        read_as::<(u32, String)>(&value, Bincode).unwrap_err(),
        read_as::<u32>(&value, Bincode).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Decode(_)));
        let text = error.to_string();
        assert!(text.contains("must use the same type") && !text.contains("()"), "{text}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "needs sockets")]
fn the_fingerprint_travels_with_a_message_in_every_way() {
    let wrong = |error: Error| matches!(error, Error::WrongType { expected: "(u32, u64, u8)", .. });
    let value = (7_u32, "x".to_owned());
    let (a, b) = crate::channel::<(u32, String), ()>().unwrap();
    a.send(&value).unwrap();
    let message = b.recv_message().unwrap();
    assert!(wrong(message.decode::<(u32, u64, u8)>().unwrap_err()));
    a.feed(&value).unwrap();
    a.flush().unwrap();
    assert_eq!(b.recv_message().unwrap().decode::<(u32, String)>().unwrap(), value);
    let (a, b) = sys::socket::pair_stream().unwrap();
    let sender = crate::Link::start(a, Options::new(), |_| {}).unwrap();
    let receiver = crate::Channel::<(), (u32, u64, u8)>::from_fd(b, Options::new()).unwrap();
    sender.send(&value).unwrap();
    assert!(wrong(receiver.recv().unwrap_err()));
    // The channel stays open, and a long message has its fingerprint, too.
    sender.send(&(1_u32, 2_u64, 3_u8)).unwrap();
    assert_eq!(receiver.recv().unwrap(), (1, 2, 3));
    let (long, receiver) = crate::channel::<String, ()>().unwrap();
    long.try_send(&"x".repeat(1 << 20)).unwrap();
    let reader = std::thread::spawn(move || receiver.recv_message().unwrap().decode::<Vec<u8>>());
    long.flush().unwrap();
    assert!(matches!(reader.join().unwrap(), Err(Error::WrongType { .. })));
}

#[test]
#[cfg_attr(miri, ignore = "needs sockets")]
fn a_handle_is_no_number() {
    let (a, b) = crate::channel::<Handle<std::os::fd::OwnedFd>, u32>().unwrap();
    a.send(&Handle::new(sys::socket::pair_stream().unwrap().0)).unwrap();
    let error = b.recv_message().unwrap().decode::<u32>().unwrap_err();
    assert!(matches!(error, Error::WrongType { expected: "u32", .. }), "{error:?}");
}

//! Rules for every codec: shapes, limits, hostile payloads, serde's corners.

use super::*;
use crate::frame::{HEADER_BYTES, HELLO_HEADER_BYTES, Kind};
use crate::options::Options;
use crate::transport::outbox::Encoded;
use crate::transport::outgoing::OutgoingFrame;
use crate::{Blob, Handle};
use serde::Deserialize;
use std::collections::BTreeMap;

fn options(serialization: Serialization) -> Options {
    Options::new().serialization(serialization)
}

fn encode<T: Serialize>(value: &T, options: &Options) -> Result<OutgoingFrame, Error> {
    OutgoingFrame::encode(value, Kind::Message, options)
}

pub(super) fn payload<T: Serialize>(
    value: &T,
    serialization: Serialization,
) -> Result<Vec<u8>, Error> {
    let OutgoingFrame { encoded, .. } = encode(value, &options(serialization))?;
    let mut bytes = Vec::new();
    let mut from = HEADER_BYTES;
    for (at, piece) in &encoded.pieces {
        bytes.extend_from_slice(&encoded.inline[from..*at]);
        bytes.extend_from_slice(piece);
        from = *at;
    }
    bytes.extend_from_slice(&encoded.inline[from..]);
    Ok(bytes)
}

pub(super) fn read<T: DeserializeOwned>(
    bytes: &[u8],
    serialization: Serialization,
) -> Result<T, Error> {
    let owner = Bytes::copy_from_slice(bytes);
    let decode =
        |fingerprint| decode(serialization, &owner, Some(&owner), Vec::new(), LIMITS, fingerprint);
    match decode(0) {
        // These payloads say nothing about the type of their sender.
        Err(Error::WrongType { read, .. }) => decode(read),
        other => other,
    }
}

/// Returns the fingerprint in the header of a frame.
fn fingerprint(encoded: &Encoded) -> u32 {
    let bytes = encoded.inline[HELLO_HEADER_BYTES..HEADER_BYTES].try_into().unwrap();
    u32::from_le_bytes(bytes)
}

fn round_trip<T>(value: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    for codec in [Serialization::Bincode, Serialization::Json] {
        let bytes = payload(value, codec).unwrap();
        assert_eq!(&read::<T>(&bytes, codec).unwrap(), value, "{codec}");
    }
    assert_eq!(
        payload(value, Serialization::Bincode).unwrap(),
        ::bincode::serialize(value).unwrap(),
        "the wrapper does not change what bincode writes"
    );
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
enum Every {
    Unit,
    Newtype(Option<Box<Every>>),
    Tuple(u8, i64, char, bool),
    Struct { text: String, map: BTreeMap<String, Vec<f64>>, unit: () },
}

#[test]
fn every_shape_of_serde_comes_back() {
    let map = BTreeMap::from([("a".to_owned(), vec![1.5, -2.0]), (String::new(), vec![])]);
    round_trip(&Every::Unit);
    round_trip(&Every::Newtype(Some(Box::new(Every::Newtype(None)))));
    round_trip(&Every::Tuple(255, i64::MIN, 'ü', true));
    round_trip(&Every::Struct { text: "x".into(), map, unit: () });
    round_trip(&(u128::MAX, i128::MIN, [1_u16; 5], Some(1_i8)));
    round_trip(&Blob::from(vec![1, 2, 3]));
    // Miri is slow, and JSON has a number for each byte.
    let [first, second] = if cfg!(miri) { [1_000, 10] } else { [20_000, 70_000] };
    let (first, second) = (vec![9; first], vec![8; second]);
    round_trip(&vec![Blob::from(first), Blob::default(), Blob::from(second)]);
}

#[test]
fn long_bytes_are_cut_out_of_what_arrived_without_a_copy() {
    let bytes = payload(&(1_u8, Blob::from(vec![5; 50_000])), Serialization::Bincode).unwrap();
    let owner = Bytes::from(bytes);
    let range = owner.as_ptr_range();
    let decode = |fingerprint| {
        decode(Serialization::Bincode, &owner, Some(&owner), Vec::new(), LIMITS, fingerprint)
    };
    let Err(Error::WrongType { read, .. }) = decode(0).map(|_: (u8, Blob)| ()) else { panic!() };
    let (_, blob): (u8, Blob) = decode(read).unwrap();
    assert!(range.contains(&blob.as_ptr()));
}

#[test]
fn long_bytes_are_queued_without_a_copy() {
    let blob = Blob::from(vec![5; 50_000]);
    let all = options(Serialization::Bincode);
    let OutgoingFrame { encoded, .. } = encode(&blob, &all).unwrap();
    assert_eq!(encoded.pieces.len(), 1);
    assert_eq!(encoded.pieces[0].1.as_ptr(), blob.as_ptr());
}

#[derive(Serialize, Deserialize, Debug, Default)]
struct Deep(Option<Box<Deep>>);

fn deep(levels: usize) -> Deep {
    (0..levels).fold(Deep::default(), |inner, _| Deep(Some(Box::new(inner))))
}

#[test]
fn deep_nesting_is_refused_in_both_directions() {
    payload(&deep(60), Serialization::Bincode).unwrap();
    let refused = payload(&deep(5_000), Serialization::Bincode).unwrap_err();
    assert!(refused.to_string().contains("nested deeper than 128"), "{refused}");
    let hostile = vec![1; if cfg!(miri) { 10_000 } else { 2_000_000 }];
    let refused = read::<Deep>(&hostile, Serialization::Bincode).unwrap_err();
    assert!(refused.to_string().contains("nested deeper than 128"), "{refused}");
    let hostile = vec![b'['; 100_000];
    assert!(read::<Vec<Vec<u8>>>(&hostile, Serialization::Json).is_err());
    assert!(read::<serde_json::Value>(&hostile, Serialization::Json).is_err());
}

#[test]
fn eight_bytes_cannot_announce_billions_of_empty_elements() {
    for announced in [1_u64 << 32, u64::MAX] {
        let hostile = announced.to_le_bytes();
        let refused = read::<Vec<()>>(&hostile, Serialization::Bincode).unwrap_err();
        assert!(refused.to_string().contains("more list elements"), "{refused}");
        assert!(read::<Vec<u64>>(&hostile, Serialization::Bincode).is_err());
        assert!(read::<String>(&hostile, Serialization::Bincode).is_err());
        assert!(read::<Blob>(&hostile, Serialization::Bincode).is_err());
    }
    assert_eq!(
        read::<Vec<()>>(&1000_u64.to_le_bytes(), Serialization::Bincode).unwrap().len(),
        1000
    );
}

#[test]
fn bytes_behind_the_value_are_refused() {
    for codec in [Serialization::Bincode, Serialization::Json] {
        let mut bytes = payload(&7_u32, codec).unwrap();
        bytes.push(b'7');
        bytes.push(b' ');
        bytes.push(b'x');
        assert!(read::<u32>(&bytes, codec).is_err());
    }
}

#[test]
fn the_limit_is_kept_in_one_pass() {
    let small = Options::new().frame_bytes_max(100);
    let value = "x".repeat(92);
    assert!(encode(&value, &small).is_ok());
    for long in ["x".repeat(93), "x".repeat(1 << 20)] {
        let error = encode(&long, &small).unwrap_err();
        assert!(matches!(error, Error::TooLong { max: 100 }), "{error}");
    }
    let blob = Blob::from(vec![0; 1 << 20]);
    let error = encode(&blob, &small).unwrap_err();
    assert!(matches!(error, Error::TooLong { max: 100 }), "{error}");
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Skips {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    maybe: Option<u8>,
    last: u8,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Flat {
    first: u8,
    #[serde(flatten)]
    rest: Skips,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(tag = "t")]
enum Tagged {
    A { x: u8 },
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    A { x: u8 },
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Untagged {
    A { x: u8 },
    B(String),
}

#[test]
fn a_left_out_field_is_refused_when_sent_by_position_and_fine_by_name() {
    let left_out = Skips { maybe: None, last: 1 };
    let refused = payload(&left_out, Serialization::Bincode).unwrap_err();
    assert!(refused.to_string().contains("`maybe` is left out"), "{refused}");
    by_name(&left_out);
    let there = Skips { maybe: Some(3), last: 1 };
    let bytes = payload(&there, Serialization::Bincode).unwrap();
    assert_eq!(read::<Skips>(&bytes, Serialization::Bincode).unwrap(), there);
}

#[test]
fn a_flattened_field_is_refused_when_sent_by_position_and_fine_by_name() {
    let flat = Flat { first: 0, rest: Skips { maybe: Some(2), last: 1 } };
    let refused = payload(&flat, Serialization::Bincode).unwrap_err();
    assert!(refused.to_string().contains("flatten"), "{refused}");
    by_name(&flat);
}

#[test]
fn enums_that_need_a_self_describing_format_are_errors_by_position_and_fine_by_name() {
    fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
        by_name(&value);
        let by_position = payload(&value, Serialization::Bincode)
            .and_then(|bytes| read::<T>(&bytes, Serialization::Bincode));
        assert!(by_position.is_err());
    }
    check(Tagged::A { x: 1 });
    check(Untagged::A { x: 1 });
    check(Untagged::B("b".into()));
    // An adjacent tag is written as a name, which bincode reads back as a name.
    by_name(&Adjacent::A { x: 1 });
}

/// Checks that the value comes back through the codecs that write names.
fn by_name<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    for codec in [Serialization::Json, Serialization::Advanced] {
        let bytes = payload(value, codec).unwrap();
        assert_eq!(&read::<T>(&bytes, codec).unwrap(), value, "{codec}");
    }
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(untagged)]
enum Choice {
    Handle(Handle<OwnedFd>),
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "t")]
enum TaggedHandle {
    A { handle: Handle<OwnedFd> },
}

#[derive(Serialize, Deserialize, Debug)]
struct InnerHandle {
    handle: Handle<OwnedFd>,
}

#[derive(Serialize, Deserialize, Debug)]
struct FlatHandle {
    #[serde(flatten)]
    inner: InnerHandle,
}

/// In such a place, serde buffers the value, where a handle is a number like any other.
#[test]
#[cfg_attr(miri, ignore = "needs sockets")]
fn a_handle_in_a_place_that_serde_buffers_is_an_error_not_a_forgery() {
    fn check<T: Serialize + DeserializeOwned + std::fmt::Debug>(
        make: impl Fn(Handle<OwnedFd>) -> T,
    ) {
        let all = [Serialization::Bincode, Serialization::Json, Serialization::Advanced];
        for serialization in all {
            let (a, b) = sys::socket::pair_stream().unwrap();
            let all = options(serialization);
            let sent = encode(&make(Handle::new(a)), &all);
            if let Ok(OutgoingFrame { mut encoded, slots }) = sent {
                let fds = slots.take().unwrap();
                let sent = fingerprint(&encoded);
                let bytes = encoded.inline.split_off(HEADER_BYTES);
                let refused =
                    decode::<T>(serialization, &bytes, None, fds, LIMITS, sent).unwrap_err();
                assert!(matches!(refused, Error::Decode(_)), "{serialization:?}: {refused}");
            }
            // The socket was closed on the way, so nothing is left over.
            assert!(
                sys::poll::readable(std::os::fd::AsFd::as_fd(&b), Some(std::time::Duration::ZERO))
                    .unwrap()
            );
        }
    }
    check(Choice::Handle);
    check(|handle| TaggedHandle::A { handle });
    check(|handle| FlatHandle { inner: InnerHandle { handle } });
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "t", content = "c")]
enum AdjacentHandle {
    A { handle: Handle<OwnedFd> },
}

#[derive(Serialize, Deserialize, Debug)]
struct MaybeHandle {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    handle: Option<Handle<OwnedFd>>,
}

/// serde buffers nothing here, because the tag comes first.
#[test]
#[cfg_attr(miri, ignore = "needs sockets")]
fn a_handle_in_an_adjacently_tagged_enum_or_an_optional_field_arrives() {
    fn through<T: Serialize + DeserializeOwned>(value: &T, serialization: Serialization) -> T {
        let all = options(serialization);
        let OutgoingFrame { mut encoded, slots } = encode(value, &all).unwrap();
        let fds = slots.take().unwrap();
        let sent = fingerprint(&encoded);
        let bytes = encoded.inline.split_off(HEADER_BYTES);
        decode(serialization, &bytes, None, fds, LIMITS, sent).unwrap()
    }
    let make = || Handle::new(sys::socket::pair_stream().unwrap().0);
    for codec in [Serialization::Json, Serialization::Advanced] {
        let AdjacentHandle::A { handle } = through(&AdjacentHandle::A { handle: make() }, codec);
        assert!(!handle.is_sent());
        assert!(through(&MaybeHandle { handle: Some(make()) }, codec).handle.is_some());
        assert!(through(&MaybeHandle { handle: None }, codec).handle.is_none());
    }
    let there = through(&MaybeHandle { handle: Some(make()) }, Serialization::Bincode);
    assert!(there.handle.is_some());
    let left_out = MaybeHandle { handle: None };
    let refused = encode(&left_out, &options(Serialization::Bincode));
    assert!(refused.is_err());
}

#[derive(Serialize, Deserialize, Debug)]
struct AddressAndHandle {
    peer: std::net::IpAddr,
    handle: Option<Handle<OwnedFd>>,
}

/// An `IpAddr` is a text in readable formats, and numbers in others.
#[test]
#[cfg_attr(miri, ignore = "needs sockets")]
fn values_have_the_form_of_their_codec_beside_a_handle_as_without_one() {
    let peer = "192.0.2.7".parse().unwrap();
    for (codec, is_readable) in [
        (Serialization::Bincode, false),
        (Serialization::Json, true),
        (Serialization::Advanced, true),
    ] {
        let handle = Some(Handle::new(sys::socket::pair_stream().unwrap().0));
        let OutgoingFrame { mut encoded, slots } =
            encode(&AddressAndHandle { peer, handle }, &options(codec)).unwrap();
        let fds = slots.take().unwrap();
        let sent = fingerprint(&encoded);
        let bytes = encoded.inline.split_off(HEADER_BYTES);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.contains("192.0.2.7"), is_readable, "{codec}: {text}");
        let read: AddressAndHandle = decode(codec, &bytes, None, fds, LIMITS, sent).unwrap();
        assert!(read.peer == peer && read.handle.is_some(), "{codec}: {read:?}");
    }
    round_trip(&peer);
}

#[test]
#[cfg_attr(miri, ignore = "needs sockets")]
fn a_handle_is_taken_once() {
    let (a, _b) = sys::socket::pair_stream().unwrap();
    let handle = Handle::new(a);
    let all = options(Serialization::Bincode);
    let OutgoingFrame { slots, .. } = encode(&(&handle, &handle), &all).unwrap();
    let refused = slots.take().unwrap_err();
    assert!(refused.to_string().contains("already sent"), "{refused}");
    assert!(!handle.is_sent(), "all handles or none");
    // The receiving side gets the same index twice.
    let (a, _b) = sys::socket::pair_stream().unwrap();
    let bytes = ::bincode::serialize(&(0_u32, 0_u32)).unwrap();
    let twice = decode::<(Handle<OwnedFd>, Handle<OwnedFd>)>(
        Serialization::Bincode,
        &bytes,
        None,
        vec![a],
        LIMITS,
        0,
    );
    assert!(twice.unwrap_err().to_string().contains("already taken"));
}

#[test]
#[cfg_attr(miri, ignore = "needs sockets")]
fn a_handle_of_another_kind_is_refused() {
    let (a, _b) = sys::socket::pair_stream().unwrap();
    let bytes = ::bincode::serialize(&0_u32).unwrap();
    let wrong = decode::<Handle<std::net::TcpStream>>(
        Serialization::Bincode,
        &bytes,
        None,
        vec![a],
        LIMITS,
        0,
    );
    assert!(wrong.unwrap_err().to_string().contains("handle is a UnixStream"));
}

/// A replacement for bincode 1, should it ever be needed, must keep the bytes of the protocol.
#[test]
#[cfg_attr(miri, ignore = "another crate's unsafe code")]
fn another_crate_writes_and_reads_the_same_bytes() {
    fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
        type Other<T> = serde_wincode::SerdeCompat<T>;
        let ours = payload(&value, Serialization::Bincode).unwrap();
        let theirs = <Other<T> as serde_wincode::wincode::Serialize>::serialize(&value).unwrap();
        assert_eq!(ours, theirs);
        assert_eq!(read::<T>(&theirs, Serialization::Bincode).unwrap(), value);
        let back = <Other<T> as serde_wincode::wincode::Deserialize>::deserialize(&ours).unwrap();
        assert_eq!(back, value);
    }
    let map = BTreeMap::from([("a".to_owned(), vec![1.5, -2.0]), (String::new(), vec![])]);
    check(Every::Unit);
    check(Every::Newtype(Some(Box::new(Every::Newtype(None)))));
    check(Every::Tuple(255, i64::MIN, 'ü', true));
    check(Every::Struct { text: "€".into(), map, unit: () });
    check((u64::MAX, -1_i8, [7_u16; 3], Some(1.25_f32), ()));
    check(vec![vec![1_u32, 2], vec![]]);
}

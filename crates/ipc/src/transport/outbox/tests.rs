//! Frames through an outbox: order, handles, and writes that stop at any position.

use super::*;
use crate::frame::{Decoder, HEADER_BYTES, Limits};
use proptest::prelude::*;

fn encoded(payload: &[u8], handles: usize, pieces: &[(usize, &[u8])]) -> Encoded {
    let mut encoded = Encoded::begin(Kind::Message);
    encoded.inline.extend_from_slice(payload);
    encoded.pieces = pieces
        .iter()
        .map(|(at, piece)| (HEADER_BYTES + at, Bytes::copy_from_slice(piece)))
        .collect();
    encoded.finish(handles, 7);
    encoded
}

/// Writes at most `max` bytes into `wire`, as a socket would.
fn write(outbox: &mut Outbox<u32>, max: usize, wire: &mut Vec<u8>, handles: &mut Vec<u32>) {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let count = outbox.slices(&mut slices);
    let bytes: Vec<u8> =
        slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(max).collect();
    wire.extend_from_slice(&bytes);
    handles.extend_from_slice(outbox.handles());
    outbox.written(bytes.len());
}

#[test]
fn frames_without_handles_leave_in_one_call_and_handles_begin_another() {
    let mut outbox = Outbox::new();
    for number in 0..3 {
        outbox.push(&mut encoded(b"abc", 0, &[]), vec![]);
        outbox.push(&mut encoded(b"def", 1, &[]), vec![number]);
    }
    let (mut wire, mut handles, mut calls) = (Vec::new(), Vec::new(), 0);
    while !outbox.is_empty() {
        write(&mut outbox, usize::MAX, &mut wire, &mut handles);
        calls += 1;
    }
    assert_eq!((wire.len(), handles, calls), (6 * (HEADER_BYTES + 3), vec![0, 1, 2], 4));
}

#[test]
fn a_long_piece_is_written_in_its_place() {
    let mut outbox = Outbox::<u32>::new();
    let piece = vec![b'-'; 5];
    outbox.push(&mut encoded(b"abcd", 0, &[(2, &piece), (4, b"!")]), vec![]);
    let (mut wire, mut handles) = (Vec::new(), Vec::new());
    while !outbox.is_empty() {
        write(&mut outbox, 3, &mut wire, &mut handles);
    }
    assert_eq!(&wire[HEADER_BYTES..], b"ab-----cd!");
}

#[test]
fn only_whole_frames_count_as_delivered() {
    let mut outbox = Outbox::<u32>::new();
    for _ in 0..3 {
        outbox.push(&mut encoded(b"ab", 0, &[]), vec![]);
    }
    assert_eq!(outbox.written(HEADER_BYTES + 1), 0);
    assert_eq!(outbox.written(1), 1);
    assert_eq!(outbox.written(HEADER_BYTES + 7), 1);
    assert_eq!(outbox.clear(), 1);
    assert!(outbox.is_empty() && outbox.frames() == 0);
}

#[test]
fn an_unfinished_frame_returns_its_handles() {
    let mut outbox = Outbox::new();
    outbox.push(&mut encoded(b"ab", 1, &[]), vec![4]);
    outbox.push(&mut encoded(b"ab", 2, &[]), vec![5, 6]);
    outbox.written(HEADER_BYTES + 4);
    assert_eq!(outbox.reclaim_last(2), [5, 6]);
    assert!(outbox.is_empty());
}

#[test]
fn the_handshake_is_written_first_and_is_no_message() {
    let mut outbox = Outbox::<u32>::new();
    outbox.push_handshake(&Hello::new(crate::Serialization::Bincode, ""));
    outbox.push(&mut encoded(b"ab", 0, &[]), vec![]);
    assert_eq!(outbox.frames(), 1);
    assert_eq!(outbox.written(16), 0);
    assert_eq!(outbox.written(HEADER_BYTES + 2), 1);
}

#[test]
fn writes_that_stop_anywhere_deliver_every_frame_with_its_handles() {
    let limits = Limits { frame_bytes_max: 1 << 20, handles_max: 253, received_handles_max: 253 };
    proptest!(ProptestConfig::with_cases(if cfg!(miri) { 10 } else { 500 }), |(
        frames in prop::collection::vec((0_usize..200, 0_u32..3, any::<bool>()), 1..12),
        cuts in prop::collection::vec(1_usize..300, 1..30),
    )| {
        let mut outbox = Outbox::new();
        let mut next = 0;
        let mut expected = Vec::new();
        for (length, handles, piece) in frames {
            let own: Vec<u32> = (next..next + handles).collect();
            next += handles;
            let payload = vec![next as u8; length];
            let pieces: &[(usize, &[u8])] = if piece { &[(length / 2, b"piece")] } else { &[] };
            outbox.push(&mut encoded(&payload, own.len(), pieces), own.clone());
            expected.push((length + if piece { 5 } else { 0 }, own));
        }
        let mut decoder = Decoder::new(limits);
        let mut seen = Vec::new();
        let mut cuts = cuts.into_iter().cycle();
        while !outbox.is_empty() {
            let (mut wire, mut handles) = (Vec::new(), Vec::new());
            write(&mut outbox, cuts.next().unwrap(), &mut wire, &mut handles);
            decoder.arrived(handles, false);
            decoder.space().0.extend_from_slice(&wire);
            while let Some(frame) = decoder.next_frame().unwrap() {
                seen.push((frame.payload.as_ref().len(), frame.handles));
            }
        }
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(outbox.frames(), 0);
    });
}

/// Three frames with handles and a piece are written in two or three calls, which stop at every
/// position.
#[test]
fn a_write_may_stop_at_every_position() {
    let fill = || {
        let mut outbox = Outbox::new();
        outbox.push(&mut encoded(b"first", 2, &[(3, b"piece")]), vec![1, 2]);
        outbox.push(&mut encoded(b"", 0, &[]), vec![]);
        outbox.push(&mut encoded(b"last", 1, &[]), vec![3]);
        outbox
    };
    let expected = vec![(10, vec![1, 2]), (0, vec![]), (4, vec![3])];
    let bytes = 3 * HEADER_BYTES + 14;
    for (first, second) in (1..=bytes).flat_map(|a| (1..=bytes).map(move |b| (a, b))) {
        if cfg!(miri) && (first + second) % 13 != 0 {
            continue;
        }
        let mut outbox = fill();
        let mut decoder = Decoder::new(Limits {
            frame_bytes_max: 1 << 20,
            handles_max: 253,
            received_handles_max: 253,
        });
        let mut seen = Vec::new();
        let mut cuts = [first, second].into_iter();
        while !outbox.is_empty() {
            let (mut wire, mut handles) = (Vec::new(), Vec::new());
            write(&mut outbox, cuts.next().unwrap_or(bytes), &mut wire, &mut handles);
            decoder.arrived(handles, false);
            decoder.space().0.extend_from_slice(&wire);
            while let Some(frame) = decoder.next_frame().unwrap() {
                seen.push((frame.payload.as_ref().len(), frame.handles));
            }
        }
        assert_eq!(seen, expected, "stopped after {first} and {second}");
    }
}

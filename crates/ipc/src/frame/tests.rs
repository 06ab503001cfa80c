//! Frames at every split position, every broken rule, and random bytes.

use super::*;
use proptest::prelude::*;

const LIMITS: Limits =
    Limits { frame_bytes_max: 1 << 20, handles_max: 253, received_handles_max: 253 };

/// The compared parts of a frame: kind, payload, handles, and whether handles were lost.
type Seen = (Kind, Vec<u8>, Vec<u32>, bool);

/// A fingerprint, which the decoder passes on.
const FINGERPRINT: u32 = 0x0403_0201;

fn frame(kind: Kind, payload: &[u8], handles: usize) -> Vec<u8> {
    let mut bytes =
        Header { kind, handles, length: payload.len(), fingerprint: FINGERPRINT }.to_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

fn cut(decoder: &mut Decoder<u32>, seen: &mut Vec<Seen>) -> Result<(), FrameError> {
    while let Some(frame) = decoder.next_frame()? {
        let has_one = frame.kind != Kind::Hello;
        assert_eq!(frame.fingerprint, if has_one { FINGERPRINT } else { 0 });
        seen.push((frame.kind, frame.payload.as_ref().to_vec(), frame.handles, frame.handles_lost));
    }
    Ok(())
}

/// Feeds `bytes` in as many pieces as the decoder asks for.
fn feed(
    decoder: &mut Decoder<u32>,
    mut bytes: &[u8],
    seen: &mut Vec<Seen>,
) -> Result<(), FrameError> {
    while !bytes.is_empty() {
        let (buffer, room) = decoder.space();
        let take = room.min(bytes.len());
        assert!(take > 0, "a decoder that wants nothing never ends");
        buffer.extend_from_slice(&bytes[..take]);
        bytes = &bytes[take..];
        cut(decoder, seen)?;
    }
    Ok(())
}

fn check(bytes: &[u8], handles: &[u32], expected: Result<&[Seen], FrameError>) {
    let mut decoder = Decoder::new(LIMITS);
    decoder.arrived(handles.iter().copied(), false);
    let mut seen = Vec::new();
    let result = feed(&mut decoder, bytes, &mut seen).and_then(|()| decoder.end());
    assert_eq!(result.map(|()| seen.as_slice()), expected);
}

#[test]
fn a_frame_is_its_header_and_its_payload() {
    let bytes = frame(Kind::Message, b"hi", 2);
    assert_eq!(bytes, [2, 2, 0, 2, 2, 0, 0, 0, 1, 2, 3, 4, b'h', b'i']);
    check(&bytes, &[7, 8], Ok(&[(Kind::Message, b"hi".to_vec(), vec![7, 8], false)]));
}

#[test]
fn every_broken_rule_is_named() {
    let huge = [2, 2, 0, 0, 255, 255, 255, 255];
    let over = FrameError::Length { announced: u64::from(u32::MAX), max: 1 << 20 };
    check(&huge, &[], Err(over));
    let just_over = frame(Kind::Message, &vec![0; (1 << 20) + 1], 0);
    let over = FrameError::Length { announced: (1 << 20) + 1, max: 1 << 20 };
    check(&just_over, &[], Err(over));
    check(&[1, 2, 0, 0, 0, 0, 0, 0], &[], Err(FrameError::Version(1)));
    check(&[2, 1, 0, 0, 0, 0, 0, 0], &[], Err(FrameError::Version(2)));
    check(&[2, 9, 0, 0, 0, 0, 0, 0], &[], Err(FrameError::Kind(9)));
    check(&[2, 2, 4, 0, 0, 0, 0, 0], &[], Err(FrameError::Flags(4)));
    let many = FrameError::Handles { announced: 254, max: 253 };
    check(&[2, 2, 0, 254, 0, 0, 0, 0], &[], Err(many));
    check(&frame(Kind::Message, b"x", 2), &[1], Err(FrameError::HandlesMissing));
    check(&frame(Kind::Message, b"x", 1), &[1, 2], Err(FrameError::HandlesUndeclared));
    check(&frame(Kind::Message, b"x", 0), &[1], Err(FrameError::HandlesUndeclared));
    check(&frame(Kind::Message, b"xyz", 0)[..HEADER_BYTES + 1], &[], Err(FrameError::EndInFrame));
    check(b"HTTP/1.1 400 Bad", &[], Err(FrameError::Version(b'H')));
}

#[test]
fn every_kind_is_decoded_and_every_other_byte_refused() {
    use Kind::{Accept, Back, Hello, Internal, Message, Offer, Refuse, Switch};
    let kinds = [Hello, Message, Internal, Offer, Accept, Refuse, Switch, Back];
    for kind in kinds {
        check(&frame(kind, b"x", 0), &[], Ok(&[(kind, b"x".to_vec(), vec![], false)]));
    }
    for byte in (0..=u8::MAX).filter(|byte| kinds.iter().all(|kind| *kind as u8 != *byte)) {
        check(&[VERSION, byte, 0, 0, 0, 0, 0, 0], &[], Err(FrameError::Kind(byte)));
    }
}

#[test]
fn an_announced_length_costs_no_memory_until_it_arrives() {
    // No recycled buffer of another test is as long as this.
    let mut decoder = Decoder::<u32>::new(Limits { frame_bytes_max: 1 << 30, ..LIMITS });
    let mut seen = Vec::new();
    feed(&mut decoder, &[2, 2, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0], &mut seen).unwrap();
    let (buffer, room) = decoder.space();
    assert!(buffer.capacity() <= READ_BYTES && room <= READ_BYTES);
}

#[test]
fn a_frame_whose_handles_were_lost_is_delivered_without_them_and_the_next_is_whole() {
    let mut decoder = Decoder::new(LIMITS);
    let mut seen = Vec::new();
    decoder.arrived([1], true);
    feed(&mut decoder, &frame(Kind::Message, b"a", 3), &mut seen).unwrap();
    decoder.arrived([4, 5], false);
    feed(&mut decoder, &frame(Kind::Message, b"b", 2), &mut seen).unwrap();
    let lost = (Kind::Message, b"a".to_vec(), vec![], true);
    assert_eq!(seen, [lost, (Kind::Message, b"b".to_vec(), vec![4, 5], false)]);
    assert!(decoder.is_empty());
}

#[test]
fn frames_survive_every_split_position_with_their_handles() {
    let frames = [
        frame(Kind::Hello, b"", 0),
        frame(Kind::Message, b"first", 1),
        frame(Kind::Internal, b"", 2),
        frame(Kind::Message, &[9; 300], 0),
        frame(Kind::Message, b"last", 253),
    ];
    let bytes = frames.concat();
    let counts = [0, 1, 2, 0, 253];
    let starts: Vec<usize> =
        frames.iter().scan(0, |at, frame| Some(std::mem::replace(at, *at + frame.len()))).collect();
    let mut whole = None;
    for split in (0..=bytes.len()).step_by(if cfg!(miri) { 29 } else { 1 }) {
        let mut decoder = Decoder::new(LIMITS);
        let mut seen = Vec::new();
        let mut next = 0;
        for range in [0..split, split..bytes.len()] {
            // The kernel passes handles with the read that takes the first byte of their frame.
            for (start, count) in starts.iter().zip(counts) {
                if range.contains(start) {
                    decoder.arrived(next..next + count, false);
                    next += count;
                }
            }
            feed(&mut decoder, &bytes[range], &mut seen).unwrap();
        }
        decoder.end().unwrap();
        assert_eq!(seen.len(), frames.len());
        assert_eq!(&seen, whole.get_or_insert_with(|| seen.clone()), "split at {split}");
    }
}

#[test]
fn bytes_one_at_a_time_make_the_same_frames() {
    // Miri is slow, so a frame that is not gathered in a buffer of its own is enough there.
    let length = if cfg!(miri) { 500 } else { 70_000 };
    let long = vec![3; length];
    let bytes = [frame(Kind::Message, b"one", 1), frame(Kind::Message, &long, 1)].concat();
    let mut decoder = Decoder::new(LIMITS);
    let mut seen = Vec::new();
    let second = HEADER_BYTES + 3;
    for (at, byte) in bytes.iter().enumerate() {
        if at == 0 || at == second {
            decoder.arrived([at as u32], false);
        }
        assert!(!decoder.is_ready(), "a frame is cut out as soon as it is whole");
        feed(&mut decoder, &[*byte], &mut seen).unwrap();
    }
    assert_eq!(seen[0], (Kind::Message, b"one".to_vec(), vec![0], false));
    assert_eq!(seen[1], (Kind::Message, long, vec![second as u32], false));
}

#[test]
fn is_ready_predicts_the_next_frame_or_error() {
    let mut decoder = Decoder::<u32>::new(LIMITS);
    assert!(!decoder.is_ready());
    let two = [frame(Kind::Message, b"one", 0), frame(Kind::Message, b"two", 0)].concat();
    decoder.space().0.extend_from_slice(&two[..two.len() - 1]);
    assert!(decoder.is_ready());
    decoder.next_frame().unwrap().unwrap();
    assert!(!decoder.is_ready());
    decoder.space().0.push(two[two.len() - 1]);
    assert!(decoder.is_ready());
    decoder.next_frame().unwrap().unwrap();
    decoder.space().0.extend_from_slice(b"nonsense");
    assert!(decoder.is_ready() && decoder.next_frame().is_err());
}

#[test]
fn a_taken_buffer_is_recycled_and_only_the_rest_is_kept() {
    let bytes = [frame(Kind::Message, b"whole", 0), frame(Kind::Message, b"half", 0)].concat();
    let mut decoder = Decoder::<u32>::new(LIMITS);
    let mut seen = Vec::new();
    drop(decoder.swap_buffer(Vec::with_capacity(READ_BYTES)));
    feed(&mut decoder, &bytes[..20], &mut seen).unwrap();
    let buffer = decoder.swap_buffer(Vec::new());
    assert!(buffer.capacity() >= READ_BYTES);
    assert!(decoder.buffer.capacity() <= 16);
    drop(decoder.swap_buffer(buffer));
    feed(&mut decoder, &bytes[20..], &mut seen).unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].1, b"half");
}

#[test]
fn garbage_never_panics_and_never_keeps_more_than_one_frame_of_handles() {
    proptest!(ProptestConfig::with_cases(if cfg!(miri) { 20 } else { 2_000 }), |(
        pieces in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..40), 0_u32..4, any::<bool>(), any::<bool>()), 0..20)
    )| {
        let mut decoder = Decoder::new(LIMITS);
        let mut seen = Vec::new();
        for (bytes, handles, lost, polite) in pieces {
            decoder.arrived(0..handles, lost);
            let bytes = if polite { frame(Kind::Message, &bytes, handles as usize) } else { bytes };
            if feed(&mut decoder, &bytes, &mut seen).is_err() {
                break;
            }
            prop_assert!(decoder.handles.len() <= 2 * 253);
        }
    });
}

/// A handle that must not wait when its frame has more than two.
#[derive(Debug, PartialEq, Eq)]
struct Impatient(u32);

impl WaitingHandle for Impatient {
    fn wait(&mut self) {}

    fn may_wait(count: usize) -> bool {
        count <= 2
    }
}

#[test]
fn handles_that_must_not_wait_are_closed_and_their_frame_has_lost_them() {
    for (handles, long) in [(2, 10), (3, 10), (2, READ_BYTES), (3, READ_BYTES)] {
        let bytes = frame(Kind::Message, &vec![7; long], handles);
        let mut decoder = Decoder::<Impatient>::new(LIMITS);
        decoder.arrived((0..handles as u32).map(Impatient), false);
        let mut rest = &bytes[..];
        // The first byte alone, the header, and the payload.
        for until in [1, HEADER_BYTES - 1, usize::MAX] {
            let mut left = until.min(rest.len());
            while left > 0 {
                let (buffer, room) = decoder.space();
                let (now, later) = rest.split_at(left.min(room));
                buffer.extend_from_slice(now);
                (rest, left) = (later, left - now.len());
                if !rest.is_empty() {
                    assert!(decoder.next_frame().unwrap().is_none());
                }
            }
        }
        let whole = decoder.next_frame().unwrap().unwrap();
        assert_eq!(whole.handles_lost, handles > 2);
        assert_eq!(whole.handles.len(), if handles > 2 { 0 } else { handles });
    }
}

#[test]
fn a_frame_with_more_handles_than_are_taken_arrives_without_any() {
    let limits = Limits { received_handles_max: 1, ..LIMITS };
    let bytes = [frame(Kind::Message, b"a", 2), frame(Kind::Message, b"b", 1)].concat();
    for split in 0..=bytes.len() {
        let mut decoder = Decoder::<u32>::new(limits);
        let mut seen = Vec::new();
        let mut brought = 0;
        for piece in [0..split, split..bytes.len()] {
            decoder.space().0.extend_from_slice(&bytes[piece.clone()]);
            // The handles of a frame come with its first byte.
            let (first, second) = (piece.contains(&0), piece.contains(&(bytes.len() / 2)));
            let from = brought;
            brought += 2 * u32::from(first) + u32::from(second);
            decoder.arrived(from..brought, false);
            while let Some(frame) = decoder.next_frame().unwrap() {
                seen.push((frame.handles, frame.handles_lost, frame.handles_refused));
            }
        }
        assert_eq!(seen, [(vec![], false, 2), (vec![2], false, 0)], "split at {split}");
    }
}

//! Streams in Node's framings, cut at any position.

use super::*;
use proptest::prelude::*;

type Seen = Vec<Result<Vec<u8>, Vec<u8>>>;

fn feed(decoder: &mut NodeDecoder<u32>, bytes: &[u8], seen: &mut Seen) -> Result<(), FrameError> {
    decoder.space().0.extend_from_slice(bytes);
    while let Some(cut) = decoder.next()? {
        seen.push(match cut {
            Decoded::Whole(payload) => Ok(payload.as_ref().to_vec()),
            Decoded::TooLong(head) => Err(head),
        });
    }
    decoder.discard_unclaimed_handles();
    Ok(())
}

fn frame(framing: Framing, payload: &[u8]) -> Vec<u8> {
    match framing {
        Framing::Lines => [payload, b"\n"].concat(),
        Framing::Lengths => [&(payload.len() as u32).to_be_bytes(), payload].concat(),
    }
}

#[test]
fn streams_cut_anywhere_give_the_same_frames_and_long_ones_are_skipped() {
    let cases = if cfg!(miri) { 10 } else { 300 };
    proptest!(ProptestConfig::with_cases(cases), |(
        lines in any::<bool>(),
        lengths in prop::collection::vec(0_usize..300, 1..20),
        cuts in prop::collection::vec(1_usize..200, 1..30),
        swap in any::<bool>(),
    )| {
        let framing = if lines { Framing::Lines } else { Framing::Lengths };
        let max = 200;
        let payloads: Vec<Vec<u8>> =
            (0..).zip(&lengths).map(|(at, length)| vec![b'a' + at as u8; *length]).collect();
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| frame(framing, payload)).collect();
        let mut decoder = NodeDecoder::new(framing, max);
        let mut seen = Seen::new();
        let mut rest = &stream[..];
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            if swap {
                decoder.swap_buffer(Vec::with_capacity(64));
            }
            feed(&mut decoder, now, &mut seen).unwrap();
            if swap {
                decoder.swap_buffer(Vec::new());
            }
        }
        prop_assert!(decoder.end().is_ok());
        prop_assert_eq!(seen.len(), payloads.len());
        for (seen, payload) in seen.into_iter().zip(payloads) {
            match seen {
                Ok(whole) => prop_assert_eq!(whole, payload),
                Err(head) => {
                    prop_assert!(payload.len() > max);
                    prop_assert_eq!(&head[..], &payload[..HEAD_BYTES.min(payload.len())]);
                }
            }
        }
    });
}

#[test]
fn a_line_of_megabytes_is_searched_once_and_not_copied() {
    let mut decoder = NodeDecoder::<u32>::new(Framing::Lines, 1 << 26);
    let mut seen = Seen::new();
    let part = vec![b'x'; READ_BYTES];
    // Miri is slow, and every part is moved into place.
    let parts = if cfg!(miri) { 2 } else { 512 };
    for _ in 0..parts {
        let buffer = decoder.swap_buffer(Vec::with_capacity(READ_BYTES));
        feed(&mut decoder, &part, &mut seen).unwrap();
        assert_eq!(decoder.seen, decoder.buffer.len());
        decoder.swap_buffer(buffer);
    }
    decoder.space().0.push(b'\n');
    match decoder.next().unwrap() {
        Some(Decoded::Whole(Payload::Owned(payload))) => {
            assert_eq!(payload.len(), parts * READ_BYTES)
        }
        other => panic!("{other:?}"),
    }
    assert!(seen.is_empty() && decoder.buffer.capacity() == 0);
}

#[test]
fn a_length_that_node_would_not_understand_ends_the_stream() {
    let mut decoder = NodeDecoder::<u32>::new(Framing::Lengths, 100);
    let answer = feed(&mut decoder, &[0x80, 0, 0, 0], &mut Seen::new());
    assert_eq!(answer, Err(FrameError::Length { announced: 1 << 31, max: 100 }));
}

#[test]
fn announced_lengths_cost_no_memory() {
    let mut decoder = NodeDecoder::<u32>::new(Framing::Lengths, usize::MAX);
    feed(&mut decoder, &[0x7f, 0xff, 0xff, 0xff, 1, 2, 3], &mut Seen::new()).unwrap();
    assert!(decoder.buffer.capacity() < 1000);
    assert_eq!(decoder.end(), Err(FrameError::EndInFrame));
}

#[test]
fn handles_belong_to_the_frame_with_which_they_arrived_or_to_none() {
    let mut decoder = NodeDecoder::new(Framing::Lines, 100);
    let mut seen = Seen::new();
    // The handle arrives with the beginning of a frame that is not complete.
    decoder.arrived([1], false);
    feed(&mut decoder, b"a\nb", &mut seen).unwrap();
    feed(&mut decoder, b"", &mut seen).unwrap();
    decoder.arrived([2], true);
    assert_eq!(decoder.take_handle(), Some(1));
    assert_eq!(decoder.take_handle(), Some(2));
    assert_eq!(decoder.take_handle(), None, "this one was lost");
    decoder.arrived([3], false);
    // The frame ends and none follows, so number 3 belongs to no frame.
    feed(&mut decoder, b"\n", &mut seen).unwrap();
    assert_eq!(decoder.take_handle(), None);
    decoder.arrived(0..1000, false);
    assert_eq!(decoder.handles.len(), HANDLES_WAITING_MAX);
}

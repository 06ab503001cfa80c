//! Every order of parcels and answers.

use super::*;

fn frame(number: u8) -> FrameBuffer {
    let mut frame = FrameBuffer::default();
    frame.push(number);
    frame
}

fn plain(number: u8) -> Parcel<u32> {
    Parcel { frame: frame(number), cargo: None }
}

fn with(number: u8, spare: bool, ticket: Option<u64>) -> Parcel<u32> {
    let spare = spare.then_some(u32::from(number) + 100);
    let cargo = Cargo { handle: u32::from(number), spare, ticket };
    Parcel { frame: frame(number), cargo: Some(cargo) }
}

fn number(leaving: Option<Leaving<u32>>) -> Option<(u8, Option<u32>)> {
    leaving.map(|leaving| (leaving.frame[0], leaving.handle))
}

fn release(gate: &mut Gate<u32>) -> Vec<u8> {
    std::iter::from_fn(|| gate.release()).map(|leaving| leaving.frame[0]).collect()
}

#[test]
fn nothing_overtakes_a_handle_that_is_not_acknowledged() {
    let now = Instant::now();
    let mut gate = Gate::new(1);
    assert_eq!(number(gate.submit(plain(1))), Some((1, None)));
    assert_eq!(number(gate.submit(with(2, false, Some(7)))), Some((2, Some(2))));
    for parcel in [plain(3), with(4, false, None), plain(5)] {
        assert!(gate.submit(parcel).is_none());
    }
    assert_eq!((gate.bytes(), gate.is_idle()), (3, false));
    assert_eq!(release(&mut gate), Vec::<u8>::new());
    assert_eq!(gate.answered(true, now), Outcome::Over { ticket: Some(7), taken: true });
    assert_eq!(release(&mut gate), [3, 4]);
    assert!(gate.submit(plain(6)).is_none(), "5 waits already");
    assert_eq!(gate.answered(true, now), Outcome::Over { ticket: None, taken: true });
    assert_eq!(release(&mut gate), [5, 6]);
    assert!(gate.is_idle() && gate.bytes() == 0);
}

#[test]
fn stray_answers_change_nothing() {
    let mut gate = Gate::<u32>::new(1);
    for taken in [true, false] {
        assert_eq!(gate.answered(taken, Instant::now()), Outcome::Stray);
    }
    assert!(gate.is_idle());
    assert_eq!(number(gate.submit(plain(1))), Some((1, None)));
}

#[test]
fn a_connection_that_was_not_taken_is_sent_again_as_it_was_and_later_each_time() {
    let start = Instant::now();
    let mut gate = Gate::new(1);
    assert_eq!(number(gate.submit(with(1, true, None))), Some((1, Some(1))));
    assert!(gate.submit(plain(2)).is_none());
    let mut now = start;
    for (again, handle) in [(1, 7), (2, 7), (3, 101)] {
        assert_eq!(gate.answered(false, now), Outcome::Again, "{again}");
        let at = gate.deadline().unwrap();
        assert!(gate.due(at - Duration::from_millis(1), |_| panic!("too early")).is_none());
        assert_eq!(release(&mut gate), Vec::<u8>::new(), "nothing overtakes it");
        assert_eq!(gate.answered(true, now), Outcome::Stray, "it is not on its way");
        let leaving = gate.due(at, |spare| Some(if *spare == 101 { 7 } else { 0 }));
        assert_eq!(number(leaving), Some((1, Some(handle))));
        assert_eq!(gate.deadline(), None);
        now = at;
    }
    assert!(now - start >= AGAIN_FIRST * 111);
    assert_eq!(gate.answered(false, now), Outcome::Over { ticket: None, taken: false });
    assert_eq!(release(&mut gate), [2]);
    assert!(gate.is_idle());
}

#[test]
fn without_a_second_descriptor_the_last_one_goes_itself() {
    let now = Instant::now();
    let mut gate = Gate::new(1);
    gate.submit(with(1, true, None));
    gate.answered(false, now);
    let at = gate.deadline().unwrap();
    assert_eq!(number(gate.due(at, |_| None)), Some((1, Some(101))));
    assert_eq!(gate.answered(false, at), Outcome::Over { ticket: None, taken: false });
}

#[test]
fn what_the_crate_above_sends_is_not_sent_again() {
    let mut gate = Gate::new(1);
    gate.submit(with(1, false, Some(3)));
    let over = Outcome::Over { ticket: Some(3), taken: false };
    assert_eq!(gate.answered(false, Instant::now()), over);
}

#[test]
fn a_wider_window_lets_more_handles_travel() {
    let now = Instant::now();
    let mut gate = Gate::new(2);
    assert!(gate.submit(with(1, false, Some(1))).is_some());
    assert!(gate.submit(plain(2)).is_some());
    assert!(gate.submit(with(3, false, Some(3))).is_some());
    assert!(gate.submit(plain(4)).is_none());
    assert_eq!(gate.answered(true, now), Outcome::Over { ticket: Some(1), taken: true });
    assert_eq!(release(&mut gate), [4]);
    assert_eq!(gate.answered(false, now), Outcome::Over { ticket: Some(3), taken: false });
    assert!(gate.is_idle());
}

#[test]
fn what_was_never_written_is_counted() {
    let mut gate = Gate::new(1);
    gate.submit(with(1, true, None));
    gate.submit(plain(2));
    gate.submit(plain(3));
    gate.answered(false, Instant::now());
    assert_eq!(gate.clear(), 3);
    assert!(gate.is_idle() && gate.deadline().is_none());
}

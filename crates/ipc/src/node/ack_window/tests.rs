//! Every order of frames and acknowledgements.

use super::*;

fn frame(number: u8) -> FrameBuffer {
    let mut frame = FrameBuffer::default();
    frame.push(number);
    frame
}

fn plain(number: u8) -> NodeFrame<u32> {
    NodeFrame { frame: frame(number), attached: None }
}

fn with(number: u8, retry_copy: bool, ticket: Option<u64>) -> NodeFrame<u32> {
    let retry_copy = retry_copy.then_some(u32::from(number) + 100);
    let attached = AttachedHandle { handle: u32::from(number), retry_copy, ticket };
    NodeFrame { frame: frame(number), attached: Some(attached) }
}

fn number(ready: Option<ReadyFrame<u32>>) -> Option<(u8, Option<u32>)> {
    ready.map(|ready| (ready.frame[0], ready.handle))
}

fn release(window: &mut AckWindow<u32>) -> Vec<u8> {
    std::iter::from_fn(|| window.release()).map(|ready| ready.frame[0]).collect()
}

#[test]
fn nothing_overtakes_a_handle_that_is_not_acknowledged() {
    let now = Instant::now();
    let mut window = AckWindow::new(1);
    assert_eq!(number(window.submit(plain(1))), Some((1, None)));
    assert_eq!(number(window.submit(with(2, false, Some(7)))), Some((2, Some(2))));
    for held in [plain(3), with(4, false, None), plain(5)] {
        assert!(window.submit(held).is_none());
    }
    assert_eq!((window.bytes(), window.is_idle()), (3, false));
    assert_eq!(release(&mut window), Vec::<u8>::new());
    assert_eq!(
        window.acknowledged(true, now),
        AckOutcome::Finished { ticket: Some(7), taken: true }
    );
    assert_eq!(release(&mut window), [3, 4]);
    assert!(window.submit(plain(6)).is_none(), "frame 5 waits already");
    assert_eq!(window.acknowledged(true, now), AckOutcome::Finished { ticket: None, taken: true });
    assert_eq!(release(&mut window), [5, 6]);
    assert!(window.is_idle() && window.bytes() == 0);
}

#[test]
fn unexpected_acknowledgements_change_nothing() {
    let mut window = AckWindow::<u32>::new(1);
    for taken in [true, false] {
        assert_eq!(window.acknowledged(taken, Instant::now()), AckOutcome::Unexpected);
    }
    assert!(window.is_idle());
    assert_eq!(number(window.submit(plain(1))), Some((1, None)));
}

#[test]
fn a_rejected_connection_is_sent_again_unchanged_and_after_longer_pauses() {
    let start = Instant::now();
    let mut window = AckWindow::new(1);
    assert_eq!(number(window.submit(with(1, true, None))), Some((1, Some(1))));
    assert!(window.submit(plain(2)).is_none());
    let mut now = start;
    for (retry, handle) in [(1, 7), (2, 7), (3, 101)] {
        assert_eq!(window.acknowledged(false, now), AckOutcome::Retry, "{retry}");
        let at = window.deadline().unwrap();
        assert!(window.due(at - Duration::from_millis(1), |_| panic!("too early")).is_none());
        assert_eq!(release(&mut window), Vec::<u8>::new(), "nothing overtakes it");
        assert_eq!(window.acknowledged(true, now), AckOutcome::Unexpected, "it is not on its way");
        let ready = window.due(at, |retry_copy| Some(if *retry_copy == 101 { 7 } else { 0 }));
        assert_eq!(number(ready), Some((1, Some(handle))));
        assert_eq!(window.deadline(), None);
        now = at;
    }
    assert!(now - start >= RETRY_FIRST * 111);
    assert_eq!(
        window.acknowledged(false, now),
        AckOutcome::Finished { ticket: None, taken: false }
    );
    assert_eq!(release(&mut window), [2]);
    assert!(window.is_idle());
}

#[test]
fn without_a_second_descriptor_the_retry_sends_the_copy_itself() {
    let now = Instant::now();
    let mut window = AckWindow::new(1);
    window.submit(with(1, true, None));
    window.acknowledged(false, now);
    let at = window.deadline().unwrap();
    assert_eq!(number(window.due(at, |_| None)), Some((1, Some(101))));
    assert_eq!(window.acknowledged(false, at), AckOutcome::Finished { ticket: None, taken: false });
}

#[test]
fn a_rejected_internal_handle_is_not_sent_again() {
    let mut window = AckWindow::new(1);
    window.submit(with(1, false, Some(3)));
    let over = AckOutcome::Finished { ticket: Some(3), taken: false };
    assert_eq!(window.acknowledged(false, Instant::now()), over);
}

#[test]
fn a_wider_window_lets_more_handles_travel() {
    let now = Instant::now();
    let mut window = AckWindow::new(2);
    assert!(window.submit(with(1, false, Some(1))).is_some());
    assert!(window.submit(plain(2)).is_some());
    assert!(window.submit(with(3, false, Some(3))).is_some());
    assert!(window.submit(plain(4)).is_none());
    assert_eq!(
        window.acknowledged(true, now),
        AckOutcome::Finished { ticket: Some(1), taken: true }
    );
    assert_eq!(release(&mut window), [4]);
    assert_eq!(
        window.acknowledged(false, now),
        AckOutcome::Finished { ticket: Some(3), taken: false }
    );
    assert!(window.is_idle());
}

#[test]
fn frames_that_were_never_written_are_counted() {
    let mut window = AckWindow::new(1);
    window.submit(with(1, true, None));
    window.submit(plain(2));
    window.submit(plain(3));
    window.acknowledged(false, Instant::now());
    assert_eq!(window.unwritten(), 3);
    assert_eq!(window.take().unwritten(), 3);
    assert!(window.is_idle() && window.deadline().is_none());
}

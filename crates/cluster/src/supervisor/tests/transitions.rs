//! Requests that arrive while something else is under way: a start, a bind, another port.

use super::*;
use crate::worker_options::WorkerOptions;

fn is_spawn(output: &Output<u32>) -> bool {
    matches!(output, Output::Spawn { .. })
}

/// Returns the workers that are started, with their slots.
fn spawned_for(out: &[Output<u32>]) -> Vec<(WorkerId, SlotId)> {
    let spawned = |output: &Output<u32>| match output {
        Output::Spawn { worker, slot, .. } => Some((*worker, *slot)),
        _ => None,
    };
    out.iter().filter_map(spawned).collect()
}

#[test]
fn a_reload_replaces_a_worker_that_is_still_starting() {
    for is_spawned in [false, true] {
        let mut harness = SupervisorHarness::new(SupervisorOptions::default());
        harness.step(Input::Scale(2));
        harness.start(WorkerId(1));
        if is_spawned {
            harness.spawned(WorkerId(2));
        }
        let out = harness.step(Input::Reload { number: Some(1) });
        assert_eq!(spawned_for(&out), [(WorkerId(3), 0)], "the second slot comes afterwards");
        harness.spawned(WorkerId(3));
        harness.step(Input::Online { worker: WorkerId(3) });
        harness.request_listen(WorkerId(3));
        let out = harness.step(Input::Listening { worker: WorkerId(3), key: 1 });
        assert_eq!(spawned_for(&out), [(WorkerId(4), 1)], "spawned: {is_spawned}, {out:?}");
    }
}

/// Lets a worker listen on a second address, key 2.
fn listen_on_second(harness: &mut SupervisorHarness, worker: WorkerId) -> Vec<Output<u32>> {
    let (address, options) = (at("127.0.0.1:81"), ListenOptions::new());
    let out = harness.step(listen_request(worker, 1, address, options));
    if matches!(out[..], [Output::Bind { .. }]) {
        harness.step(Input::Bound { key: 2, result: Ok(at("127.0.0.1:81")) });
    }
    harness.step(Input::Listening { worker, key: 2 })
}

#[test]
fn a_successor_with_some_ports_of_its_predecessor_takes_over_when_it_has_all() {
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    listen_on_second(&mut harness, WorkerId(1));
    harness.step(Input::Reload { number: Some(1) });
    let takes_over = |out: &[Output<u32>]| out.contains(&reclaim(WorkerId(1)));
    harness.spawned(WorkerId(2));
    harness.step(Input::Online { worker: WorkerId(2) });
    harness.request_listen(WorkerId(2));
    let out = harness.step(Input::Listening { worker: WorkerId(2), key: 1 });
    assert!(!takes_over(&out), "the second port is missing: {out:?}");
    let out = harness.step_after(10 * MS, Input::Tick);
    assert!(!takes_over(&out), "{out:?}");
    let out = listen_on_second(&mut harness, WorkerId(2));
    assert!(takes_over(&out), "at once: {out:?}");
}

#[test]
fn a_successor_of_a_worker_that_has_died_is_waited_for_until_it_has_all_ports() {
    let (first, second) = (WorkerId(1), WorkerId(2));
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    listen_on_second(&mut harness, first);
    harness.step(Input::Reload { number: Some(1) });
    harness.exit(first);
    let done = reloaded(1, Ok(()));
    harness.spawned(second);
    harness.step(Input::Online { worker: second });
    harness.request_listen(second);
    let out = harness.step(Input::Listening { worker: second, key: 1 });
    assert!(!out.contains(&done), "the second port is missing: {out:?}");
    let (address, options) = (at("127.0.0.1:81"), ListenOptions::new());
    let request = listen_request(second, 1, address, options);
    let mut out = harness.step(request);
    out.extend(harness.step(Input::Listening { worker: second, key: 2 }));
    assert!(out.contains(&done), "{out:?}");
}

/// The slot of worker 2 has given up its right to the port, and its next worker may want it again.
#[test]
fn a_port_that_only_a_leaving_worker_has_stays_open_while_another_worker_starts() {
    let (first, second) = (WorkerId(1), WorkerId(2));
    let options = SupervisorOptions { ready: 1000 * MS, ..SupervisorOptions::default() };
    let mut harness = SupervisorHarness::listening(2, options);
    listen_on_second(&mut harness, first);
    listen_on_second(&mut harness, second);
    harness.step(Input::ListenerClosed { worker: second, key: 2 });
    harness.step_after(1000 * MS, Input::Tick);
    harness.step(Input::Exited { worker: second, exit: ExitKind::Code(1) });
    let out = harness.step(Input::Disconnect { worker: first });
    assert!(!out.iter().any(|output| matches!(output, Output::Unbind { .. })), "{out:?}");
}

/// A successor that opens its second port late often leaves the first one unread until then.
#[test]
fn a_successor_that_was_suspect_takes_over_as_soon_as_it_reads() {
    let (first, second) = (WorkerId(1), WorkerId(2));
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    listen_on_second(&mut harness, first);
    harness.step(Input::Reload { number: Some(1) });
    harness.start(second);
    harness.accept(1);
    harness.accept(2);
    harness.read(first);
    let mut out = Vec::new();
    for _ in 0..5 {
        harness.step_after(20 * MS, Input::Tick);
        out = harness.poll(second);
    }
    assert_eq!(out, [reclaim(second)]);
    harness.reclaim(second);
    harness.read(first);
    let takes_over = |out: &[Output<u32>]| out.contains(&reclaim(first));
    let out = listen_on_second(&mut harness, second);
    assert!(!takes_over(&out), "it does not read: {out:?}");
    harness.step_after(20 * MS, Input::Tick);
    let out = harness.read(second);
    assert!(takes_over(&out), "at once: {out:?}");
}

#[test]
fn a_start_keeps_every_worker_that_was_forked_before() {
    let mut harness = SupervisorHarness::new(SupervisorOptions::default());
    for number in 1..=3 {
        let worker_options = Arc::new(WorkerOptions::new());
        harness.step(Input::Fork { number, worker_options });
        harness.start(WorkerId(number));
    }
    let out = harness.step(Input::Start(1));
    let changes = |output: &Output<u32>| {
        is_spawn(output) || matches!(output, Output::SendDisconnect { .. } | Output::Reclaim { .. })
    };
    assert!(!out.iter().any(changes), "three workers are more than one: {out:?}");
    // All three slots are kept filled.
    for worker in 1..=3 {
        let worker = WorkerId(worker);
        harness.step(Input::ChannelClosed { worker });
        let out = harness.step(Input::Exited { worker, exit: ExitKind::Code(1) });
        assert!(out.iter().any(is_spawn), "{worker} is replaced: {out:?}");
    }
    let mut harness = SupervisorHarness::new(SupervisorOptions::default());
    harness.step(Input::Fork { number: 1, worker_options: Arc::new(WorkerOptions::new()) });
    let out = harness.step(Input::Start(3));
    assert_eq!(out.iter().filter(|output| is_spawn(output)).count(), 2, "one of three is there");
}

#[test]
fn a_forked_worker_and_its_replacements_have_the_options_of_their_slot() {
    let mut harness = SupervisorHarness::new(SupervisorOptions::default());
    let options = Arc::new(WorkerOptions::new().args(["--own"]));
    let has_them = |out: &[Output<u32>]| {
        out.iter().any(|output| match output {
            Output::Spawn { worker_options, .. } => worker_options.as_ref() == Some(&options),
            _ => false,
        })
    };
    let out = harness.step(Input::Fork { number: 1, worker_options: options.clone() });
    assert!(has_them(&out), "{out:?}");
    harness.start(WorkerId(1));
    let out = harness.step(Input::Exited { worker: WorkerId(1), exit: ExitKind::Signal(9) });
    assert!(has_them(&out), "{out:?}");
}

#[test]
fn all_are_gone_only_when_a_bind_that_was_under_way_is_undone() {
    let mut harness = SupervisorHarness::new(SupervisorOptions::default());
    harness.step(Input::Scale(1));
    harness.spawned(WorkerId(1));
    harness.step(Input::Online { worker: WorkerId(1) });
    let out = harness.request_listen(WorkerId(1));
    assert!(matches!(out[..], [Output::Bind { key: 1, .. }]), "{out:?}");
    let gone = Output::AllGone { number: 5 };
    let mut out = harness.step(Input::DisconnectAll { number: 5 });
    out.extend(harness.exit(WorkerId(1)));
    assert!(!out.contains(&gone), "the address may be bound at this moment: {out:?}");
    let out = harness.step(Input::Bound { key: 1, result: Ok(at("127.0.0.1:80")) });
    assert!(out.contains(&Output::Unbind { key: 1, drain: false }), "{out:?}");
    assert!(!out.contains(&gone), "the socket is open: {out:?}");
    assert!(harness.step(Input::Unbound { key: 1 }).contains(&gone));
}

#[test]
fn connections_out_of_a_queue_whose_address_is_gone_are_counted_and_closed() {
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    let (worker, key) = (WorkerId(1), 9);
    let out = harness.step(Input::Reclaimed { worker, key, connections: vec![1, 2], probes: 1 });
    let closed = out.iter().filter(|output| matches!(output, Output::Close { .. })).count();
    let sum = harness.supervisor.counters();
    assert_eq!((closed, sum.reclaimed, sum.closed()), (2, 2, 2));
    let connection = Some(3);
    harness.step(Input::SendFailed { worker, key, connection, refusal: Refusal::Gone });
    let sum = harness.supervisor.counters();
    assert_eq!((sum.reclaimed, sum.closed()), (3, 3));
}

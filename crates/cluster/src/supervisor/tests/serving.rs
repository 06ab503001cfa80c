//! Workers that serve: grants, dispatch, and queues that are reclaimed.

use super::*;

#[test]
fn a_worker_comes_up_and_serves() {
    let mut harness = SupervisorHarness::new(SupervisorOptions::default());
    assert_eq!(harness.step(Input::Scale(1)), [spawn(WorkerId(1), 0, true)]);
    let fork = emit(WorkerId(1), Notice::Fork);
    assert_eq!(
        harness.step(Input::Spawned { worker: WorkerId(1), kind: WorkerKind::Native }),
        [fork]
    );
    let online = emit(WorkerId(1), Notice::Online);
    assert_eq!(harness.step(Input::Online { worker: WorkerId(1) }), [online]);
    let address = at("127.0.0.1:0");
    let request = Input::ListenRequested {
        worker: WorkerId(1),
        request: 9,
        address: address.clone(),
        options: ListenOptions::new().backlog(5),
        facts: ListenFacts::default(),
    };
    assert_eq!(
        harness.step(request),
        [Output::Bind {
            key: 1,
            address,
            options: ListenOptions::new().backlog(5),
            reuse_port: false,
            rights: None,
        }]
    );
    let bound = at("127.0.0.1:4000");
    let granted =
        Output::Grant { worker: WorkerId(1), request: 9, result: Ok(granted(Access::HandOff)) };
    assert_eq!(harness.step(Input::Bound { key: 1, result: Ok(bound.clone()) }), [granted]);
    assert_eq!(
        harness.step(Input::Listening { worker: WorkerId(1), key: 1 }),
        [
            emit(WorkerId(1), Notice::Listening(bound)),
            Output::Accept { key: 1, on: true },
            Output::Ready,
        ]
    );
    assert_eq!(harness.accept(5), [send(WorkerId(1), 5)]);
}

#[test]
fn connections_are_dispatched_in_strict_rotation() {
    let mut harness = SupervisorHarness::listening(3, SupervisorOptions::default());
    for connection in 0..12 {
        assert_eq!(harness.accept(connection), [send(WorkerId(connection % 3 + 1), connection)]);
    }
    harness.now += 20 * MS;
    let polls = harness.step(Input::Tick);
    assert_eq!(polls, [1, 2, 3].map(WorkerId).map(poll));
    for worker in 1..=3 {
        assert!(harness.read(WorkerId(worker)).is_empty());
    }
    assert_eq!(harness.supervisor.deadline(), None);
}

#[test]
fn a_full_backend_is_skipped_and_when_all_are_full_the_primary_stops_accepting() {
    let mut harness = SupervisorHarness::listening(
        2,
        SupervisorOptions { window: 1, ..SupervisorOptions::default() },
    );
    assert_eq!(harness.accept(1), [send(WorkerId(1), 1), poll(WorkerId(1))]);
    assert_eq!(
        harness.accept(2),
        [send(WorkerId(2), 2), poll(WorkerId(2)), Output::Accept { key: 1, on: false }]
    );
    assert_eq!(harness.poll(WorkerId(1)), []);
    // A connection that was accepted already waits in the primary.
    assert_eq!(harness.accept(3), []);
    assert_eq!(harness.read(WorkerId(2)), [send(WorkerId(2), 3), poll(WorkerId(2))]);
    assert_eq!(harness.step_after(20 * MS, Input::Tick), [poll(WorkerId(1))]);
    assert_eq!(harness.read(WorkerId(1)), [Output::Accept { key: 1, on: true }]);
}

#[test]
fn connections_of_a_stalled_worker_go_to_others_and_the_worker_gets_only_probes() {
    let mut harness = SupervisorHarness::listening(2, SupervisorOptions::default());
    harness.accept(1);
    harness.accept(2);
    for _ in 0..5 {
        harness.step_after(20 * MS, Input::Tick);
        harness.poll(WorkerId(1));
        harness.read(WorkerId(2));
    }
    assert_eq!(
        harness.reclaim(WorkerId(1)),
        [Output::Probe { worker: WorkerId(1), key: 1 }, send(WorkerId(2), 1)]
    );
    assert_eq!(harness.accept(3), [send(WorkerId(2), 3)]);
    // A worker that has read its probe gets connections again.
    harness.step_after(20 * MS, Input::Tick);
    harness.read(WorkerId(2));
    harness.read(WorkerId(1));
    assert_eq!(harness.accept(4), [send(WorkerId(1), 4)]);
    assert_eq!(harness.supervisor.counters().reclaimed, 1);
    assert_eq!(harness.supervisor.counters().re_dispatched, 1);
}

#[test]
fn the_queue_of_a_dead_worker_is_reclaimed_and_the_worker_is_replaced_at_once() {
    let mut harness = SupervisorHarness::listening(2, SupervisorOptions::default());
    harness.accept(1);
    harness.accept(2);
    let out = harness.step(Input::Exited { worker: WorkerId(1), exit: ExitKind::Signal(9) });
    assert_eq!(
        out,
        [reclaim(WorkerId(1)), emit(WorkerId(1), Notice::Exit), spawn(WorkerId(3), 0, false)]
    );
    assert_eq!(harness.reclaim(WorkerId(1)), [poll(WorkerId(1)), send(WorkerId(2), 1)]);
    assert_eq!(harness.read(WorkerId(1)), [Output::DropQueue { worker: WorkerId(1), key: 1 }]);
    let disconnect = emit(WorkerId(1), Notice::Disconnect);
    assert_eq!(harness.step(Input::ChannelClosed { worker: WorkerId(1) }), [disconnect]);
}

#[test]
fn the_listener_stays_open_while_the_last_worker_is_replaced() {
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    harness.accept(1);
    let out = harness.exit(WorkerId(1));
    assert!(!out.iter().any(|output| matches!(output, Output::Unbind { .. })), "{out:?}");
    harness.reclaim(WorkerId(1));
    harness.read(WorkerId(1));
    assert_eq!(harness.supervisor.counters().waiting, 1);
    harness.spawned(WorkerId(2));
    harness.step(Input::Online { worker: WorkerId(2) });
    harness.request_listen(WorkerId(2));
    let out = harness.step(Input::Listening { worker: WorkerId(2), key: 1 });
    assert!(out.contains(&send(WorkerId(2), 1)), "{out:?}");
}

#[test]
fn the_queue_of_a_disconnected_worker_goes_to_others_and_the_worker_is_not_replaced() {
    let mut harness = SupervisorHarness::listening(2, SupervisorOptions::default());
    harness.accept(1);
    harness.accept(2);
    let out = harness.step(Input::Disconnect { worker: WorkerId(1) });
    assert_eq!(out, [reclaim(WorkerId(1))]);
    let ended = Output::EndQueue { worker: WorkerId(1), key: 1 };
    let disconnect = Output::SendDisconnect { worker: WorkerId(1) };
    assert_eq!(harness.reclaim(WorkerId(1)), [ended, send(WorkerId(2), 1), disconnect]);
    let out = harness.exit(WorkerId(1));
    let exit = Output::Emit { worker: WorkerId(1), notice: Notice::Exit, exit_requested: true };
    assert!(out.contains(&exit), "{out:?}");
    assert!(!out.iter().any(|output| matches!(output, Output::Spawn { .. })), "{out:?}");
}

#[test]
fn a_shared_socket_is_granted_and_never_accepted_from() {
    let mut harness = SupervisorHarness::new(SupervisorOptions {
        policy: Policy::Shared,
        ..SupervisorOptions::default()
    });
    harness.step(Input::Scale(1));
    harness.spawned(WorkerId(1));
    harness.step(Input::Online { worker: WorkerId(1) });
    let address = at("127.0.0.1:80");
    harness.step(Input::ListenRequested {
        worker: WorkerId(1),
        request: 1,
        address,
        options: ListenOptions::new(),
        facts: ListenFacts::default(),
    });
    let granted =
        Output::Grant { worker: WorkerId(1), request: 1, result: Ok(granted(Access::Shared)) };
    let bound = Input::Bound { key: 1, result: Ok(at("127.0.0.1:80")) };
    assert_eq!(harness.step(bound), [granted]);
    let out = harness.step(Input::Listening { worker: WorkerId(1), key: 1 });
    assert!(matches!(out[..], [Output::Emit { notice: Notice::Listening(_), .. }, Output::Ready]));
    let unbind = Output::Unbind { key: 1, drain: false };
    assert_eq!(
        harness.step(Input::Shutdown),
        [unbind, Output::SendDisconnect { worker: WorkerId(1) }]
    );
    harness.step(Input::Unbound { key: 1 });
    assert!(harness.exit(WorkerId(1)).contains(&Output::Finished));
}

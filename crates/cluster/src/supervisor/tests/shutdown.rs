//! Shutdown: the backlog, the queues, the workers, and the end of the primary.

use super::*;

#[test]
fn a_shutdown_dispatches_the_backlog_before_the_queues_end() {
    let mut harness = SupervisorHarness::listening(2, SupervisorOptions::default());
    assert_eq!(harness.step(Input::Shutdown), [Output::Unbind { key: 1, drain: true }]);
    assert_eq!(harness.accept(1), [send(WorkerId(1), 1)]);
    assert_eq!(harness.accept(2), [send(WorkerId(2), 2)]);
    assert_eq!(harness.step(Input::Unbound { key: 1 }), [], "both queues are unread");
    harness.step_after(20 * MS, Input::Tick);
    assert_eq!(harness.read(WorkerId(1)), []);
    assert_eq!(
        harness.read(WorkerId(2)),
        [
            Output::EndQueue { worker: WorkerId(2), key: 1 },
            Output::EndQueue { worker: WorkerId(1), key: 1 },
            Output::SendDisconnect { worker: WorkerId(1) },
            Output::SendDisconnect { worker: WorkerId(2) },
        ]
    );
    for worker in [1, 2] {
        let out = harness.exit(WorkerId(worker));
        assert!(out.contains(&reclaim(WorkerId(worker))), "{out:?}");
        harness.reclaim(WorkerId(worker));
        let out = harness.read(WorkerId(worker));
        assert_eq!(out.contains(&Output::Finished), worker == 2, "{out:?}");
    }
    assert_eq!(harness.supervisor.deadline(), None);
}

/// Nothing else follows that could begin the next step: all queues are empty.
#[test]
fn the_last_answer_of_a_node_worker_ends_the_queues_of_a_shutdown() {
    let mut harness = SupervisorHarness::new(SupervisorOptions::default());
    harness.step(Input::Scale(2));
    for worker in [1, 2].map(WorkerId) {
        harness.step(Input::Spawned { worker, kind: WorkerKind::Node });
        harness.step(Input::Online { worker });
        harness.request_listen(worker);
        harness.step(Input::Bound { key: 1, result: Ok(at("127.0.0.1:80")) });
        harness.step(Input::Listening { worker, key: 1 });
    }
    assert_eq!(harness.accept(1), [send(WorkerId(1), 1)]);
    harness.step(Input::Shutdown);
    assert_eq!(harness.step(Input::Unbound { key: 1 }), []);
    let taken = Input::Answered { worker: WorkerId(1), key: 1, nth: 0, answer: Answer::Taken };
    let disconnect = [1, 2].map(WorkerId).map(|worker| Output::SendDisconnect { worker });
    assert_eq!(harness.step(taken), disconnect);
}

#[test]
fn a_worker_that_does_not_exit_gets_sigterm_and_then_sigkill() {
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    harness.accept(7);
    harness.step(Input::Shutdown);
    harness.step(Input::Unbound { key: 1 });
    let term = Output::Signal { worker: WorkerId(1), hard: false };
    assert_eq!(harness.step_after(5000 * MS, Input::Tick), [term]);
    let kill = Output::Signal { worker: WorkerId(1), hard: true };
    assert_eq!(harness.step_after(2000 * MS, Input::Tick), [reclaim(WorkerId(1)), kill]);
    harness.reclaim(WorkerId(1));
    harness.exit(WorkerId(1));
    assert!(harness.read(WorkerId(1)).contains(&Output::Finished));
    assert_eq!(harness.supervisor.counters().closed_shutdown, 1);
}

/// An address that the user closes may have more time than the workers of a start that is given up.
#[test]
fn a_worker_that_is_killed_gets_nothing_more_of_an_address_that_is_being_closed() {
    let options = SupervisorOptions { window: 1, ..SupervisorOptions::default() };
    let mut harness = SupervisorHarness::new(options);
    harness.step(Input::Scale(2));
    harness.start(WorkerId(1));
    harness.spawned(WorkerId(2));
    harness.accept(1);
    harness.step(Input::CloseAddress { address: at("127.0.0.1:80") });
    harness.accept(2);
    harness.step(Input::GiveUpStart);
    let signal = |hard| Output::Signal { worker: WorkerId(1), hard };
    let out = harness.step_after(500 * MS, Input::Tick);
    assert!(out.contains(&signal(false)), "{out:?}");
    let out = harness.step_after(1900 * MS, Input::Tick);
    assert!(!out.contains(&signal(true)), "{out:?}");
    let out = harness.step_after(100 * MS, Input::Tick);
    assert!(out.contains(&reclaim(WorkerId(1))) && out.contains(&signal(true)), "{out:?}");
    let out = harness.reclaim(WorkerId(1));
    assert!(!out.iter().any(|output| matches!(output, Output::Send { .. })), "{out:?}");
}

#[test]
fn a_primary_ends_when_all_its_workers_have_exited_and_none_will_come() {
    let mut harness = SupervisorHarness::listening(2, SupervisorOptions::default());
    harness.step(Input::Disconnect { worker: WorkerId(1) });
    harness.reclaim(WorkerId(1));
    harness.exit(WorkerId(1));
    harness.reclaim(WorkerId(1));
    assert!(!harness.read(WorkerId(1)).contains(&Output::Finished), "one worker is left");
    let out = harness.step(Input::Disconnect { worker: WorkerId(2) });
    assert_eq!(out, [Output::Unbind { key: 1, drain: true }]);
    harness.step(Input::Unbound { key: 1 });
    harness.exit(WorkerId(2));
    harness.reclaim(WorkerId(2));
    assert!(harness.read(WorkerId(2)).contains(&Output::Finished));
}

#[test]
fn connections_that_a_frozen_worker_leaves_unread_go_to_others_before_the_queues_end() {
    let mut harness = SupervisorHarness::listening(2, SupervisorOptions::default());
    assert_eq!(harness.accept(1), [send(WorkerId(1), 1)]);
    harness.step(Input::Shutdown);
    assert_eq!(harness.step(Input::Unbound { key: 1 }), [], "worker 1 has not read its queue");
    for _ in 0..5 {
        harness.step_after(20 * MS, Input::Tick);
        harness.poll(WorkerId(1));
    }
    assert!(
        harness.reclaim(WorkerId(1)).contains(&send(WorkerId(2), 1)),
        "worker 2 gets the connection"
    );
}

/// While both workers leave their queues unread, the shutdown waits for half of the disconnect
/// timeout. Then both queues end, so that neither worker can take what the other leaves unread.
#[test]
fn connections_left_unread_by_a_worker_that_exits_in_the_second_half_of_a_shutdown_are_closed_and_counted()
 {
    let options = SupervisorOptions { disconnect: 1000 * MS, ..SupervisorOptions::default() };
    let mut harness = SupervisorHarness::listening(2, options);
    harness.accept(1);
    harness.accept(2);
    harness.step(Input::Shutdown);
    assert_eq!(harness.step(Input::Unbound { key: 1 }), [], "neither has read its queue");
    let out = harness.step_after(500 * MS, Input::Tick);
    for worker in [1, 2] {
        let ended = out
            .iter()
            .position(|output| *output == Output::EndQueue { worker: WorkerId(worker), key: 1 });
        let disconnect = out
            .iter()
            .position(|output| *output == Output::SendDisconnect { worker: WorkerId(worker) });
        assert!(ended.is_some() && ended < disconnect, "{out:?}");
    }
    assert!(harness.exit(WorkerId(1)).contains(&reclaim(WorkerId(1))));
    harness.reclaim(WorkerId(1));
    let out = harness.read(WorkerId(1));
    let closed = harness.supervisor.counters().closed_shutdown;
    assert_eq!(closed, 1, "{out:?}");
}

/// A worker that was started after the request may keep its listener of an address that is closed.
#[test]
fn the_end_of_all_workers_does_not_wait_for_the_listener_of_a_later_one() {
    let gone = Output::AllGone { number: 5 };
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    harness.step(Input::Fork { number: 1, worker_options: Arc::default() });
    harness.spawned(WorkerId(2));
    harness.step(Input::DisconnectAll { number: 5 });
    harness.step(Input::Fork { number: 2, worker_options: Arc::default() });
    harness.exit(WorkerId(1));
    harness.reclaim(WorkerId(1));
    harness.read(WorkerId(1));
    harness.step(Input::Unbound { key: 1 });
    let (worker, address) = (WorkerId(3), at("127.0.0.1:81"));
    harness.spawned(worker);
    harness.step(Input::Online { worker });
    let options = ListenOptions::new();
    let request = listen_request(worker, 1, address.clone(), options);
    harness.step(request);
    harness.step(Input::Bound { key: 2, result: Ok(address.clone()) });
    harness.step(Input::Listening { worker, key: 2 });
    harness.step(Input::CloseAddress { address });
    let out = harness.exit(WorkerId(2));
    assert!(!out.contains(&gone), "the address is being closed: {out:?}");
    let out = harness.step(Input::Unbound { key: 2 });
    assert!(out.contains(&gone), "worker 3 has not closed its listener: {out:?}");
}

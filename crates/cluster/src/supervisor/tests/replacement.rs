//! The start of workers, their restarts, and reloads.

use super::*;

#[test]
fn a_first_worker_that_exits_before_it_listens_fails_the_start() {
    let mut harness = SupervisorHarness::new(SupervisorOptions::default());
    harness.step(Input::Scale(2));
    harness.spawned(WorkerId(1));
    harness.spawned(WorkerId(2));
    let out = harness.step(Input::Exited { worker: WorkerId(1), exit: ExitKind::Code(3) });
    assert!(out.contains(&Output::StartFailed { worker: WorkerId(1) }), "{out:?}");
    assert!(out.contains(&Output::SendDisconnect { worker: WorkerId(2) }), "{out:?}");
    let out = harness.exit(WorkerId(2));
    assert_eq!(out.iter().filter(|output| **output == Output::Finished).count(), 1, "{out:?}");
}

#[test]
fn a_worker_is_ready_when_it_listens_or_without_listeners_when_it_is_online() {
    for listens in [true, false] {
        let listens_after = if listens { None } else { Some(Duration::ZERO) };
        let options = SupervisorOptions { listens_after, ..SupervisorOptions::default() };
        let mut harness = SupervisorHarness::new(options);
        harness.step(Input::Scale(1));
        harness.spawned(WorkerId(1));
        let mut out = harness.step(Input::Online { worker: WorkerId(1) });
        while harness.supervisor.deadline().is_some_and(|at| at <= harness.now) {
            out.extend(harness.step(Input::Tick));
        }
        assert_eq!(out.contains(&Output::Ready), !listens, "{out:?}");
        assert_eq!(harness.supervisor.deadline(), None);
    }
}

#[test]
fn a_crash_loop_is_slowed_down_and_never_given_up() {
    let restart = RestartOptions::default();
    let mut harness = SupervisorHarness::listening(
        1,
        SupervisorOptions { restart, ..SupervisorOptions::default() },
    );
    let mut starts = 0;
    let end = harness.now + Duration::from_secs(600);
    let mut worker = 1;
    while harness.now < end {
        harness.step(Input::ChannelClosed { worker: WorkerId(worker) });
        let mut out =
            harness.step(Input::Exited { worker: WorkerId(worker), exit: ExitKind::Code(1) });
        if worker == 1 {
            harness.reclaim(WorkerId(worker));
            harness.read(WorkerId(1));
        }
        if out.is_empty() || !out.iter().any(|output| matches!(output, Output::Spawn { .. })) {
            harness.now = harness.supervisor.deadline().expect("a restart is due");
            out = harness.step(Input::Tick);
        }
        assert!(out.iter().any(|output| matches!(output, Output::Spawn { .. })), "{out:?}");
        starts += 1;
        worker += 1;
        harness.spawned(WorkerId(worker));
    }
    assert!((25..60).contains(&starts), "{starts}");
}

#[test]
fn a_reload_goes_from_slot_to_slot_and_each_successor_listens_before_its_predecessor_drains() {
    let mut harness = SupervisorHarness::listening(2, SupervisorOptions::default());
    assert_eq!(harness.step(Input::Reload { number: Some(7) }), [spawn_successor(WorkerId(3), 0)]);
    assert_eq!(harness.accept(1), [send(WorkerId(1), 1)], "the current worker serves");
    harness.read(WorkerId(1));
    harness.spawned(WorkerId(3));
    harness.step(Input::Online { worker: WorkerId(3) });
    harness.request_listen(WorkerId(3));
    let out = harness.step(Input::Listening { worker: WorkerId(3), key: 1 });
    let reclaimed = out.iter().position(|output| *output == reclaim(WorkerId(1)));
    let next = out.iter().position(|output| *output == spawn_successor(WorkerId(4), 1));
    assert!(reclaimed < next && reclaimed.is_some(), "{out:?}");
    harness.reclaim(WorkerId(1));
    harness.start(WorkerId(4));
    harness.exit(WorkerId(1));
    let done = reloaded(7, Ok(()));
    assert!(
        !harness.exit(WorkerId(3)).contains(&done),
        "the exit of another worker does not end the reload"
    );
    assert!(harness.exit(WorkerId(2)).contains(&done), "the exit of the last predecessor does");
}

#[test]
fn a_successor_that_is_slow_or_exits_leaves_the_current_worker_in_place() {
    let options = SupervisorOptions { ready: 50 * MS, ..SupervisorOptions::default() };
    let mut harness = SupervisorHarness::listening(1, options);
    harness.step(Input::Reload { number: Some(1) });
    harness.spawned(WorkerId(2));
    assert_eq!(harness.supervisor.deadline(), Some(harness.now + 50 * MS));
    let out = harness.step_after(50 * MS, Input::Tick);
    let slow = reloaded(1, Err(ReloadFailure::NotReady(WorkerId(2), vec![at("127.0.0.1:80")])));
    assert!(
        out.contains(&slow) && out.contains(&Output::SendDisconnect { worker: WorkerId(2) }),
        "{out:?}"
    );
    harness.step(Input::Reload { number: Some(2) });
    harness.spawned(WorkerId(3));
    let out = harness.step(Input::Exited { worker: WorkerId(3), exit: ExitKind::Code(1) });
    let ended = reloaded(2, Err(ReloadFailure::Ended(WorkerId(3))));
    assert!(out.contains(&ended), "{out:?}");
    assert!(
        !out.iter().any(|output| matches!(output, Output::Spawn { .. })),
        "no worker replaces the successor"
    );
    assert_eq!(harness.accept(1), [send(WorkerId(1), 1)]);
}

#[test]
fn when_the_current_worker_exits_the_successor_gets_its_slot() {
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    harness.step(Input::Reload { number: Some(1) });
    let out = harness.exit(WorkerId(1));
    assert!(
        !out.iter().any(|output| matches!(output, Output::Spawn { .. } | Output::Unbind { .. }))
    );
    harness.start(WorkerId(2));
    assert_eq!(harness.accept(1), [send(WorkerId(2), 1)]);
}

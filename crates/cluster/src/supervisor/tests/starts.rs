//! The first start, workers that never listen, workers that leave by themselves, and reloads that
//! are requested during a reload.

use super::*;
use crate::contract::LISTENS_AFTER;

fn exited(worker: WorkerId, exit: ExitKind) -> Input<u32> {
    Input::Exited { worker, exit }
}

fn start_fails(out: &[Output<u32>]) -> bool {
    out.iter().any(|output| matches!(output, Output::StartFailed { .. }))
}

fn spawns(out: &[Output<u32>]) -> bool {
    out.iter().any(|output| matches!(output, Output::Spawn { .. }))
}

/// Makes a cluster whose first two workers are online and do not listen.
fn two_online() -> SupervisorHarness {
    let mut harness = SupervisorHarness::new(SupervisorOptions::default());
    harness.step(Input::Scale(2));
    for worker in [1, 2].map(WorkerId) {
        harness.spawned(worker);
        harness.step(Input::Online { worker });
    }
    harness
}

#[test]
fn a_worker_that_has_listened_and_ends_before_all_are_ready_fails_the_start() {
    let mut harness = two_online();
    harness.request_listen(WorkerId(1));
    harness.step(Input::Bound { key: 1, result: Ok(at("127.0.0.1:80")) });
    harness.step(Input::Listening { worker: WorkerId(1), key: 1 });
    assert!(start_fails(&harness.step(exited(WorkerId(1), ExitKind::Code(0)))));
}

#[test]
fn a_worker_that_is_ended_from_outside_or_late_is_replaced_and_fails_no_start() {
    use ExitKind::{Code, Signal, Unknown};
    for (exit, after, fails) in [
        (Code(0), Duration::ZERO, true),
        (Code(1), LISTENS_AFTER - MS, true),
        (Code(1), LISTENS_AFTER, false),
        (Unknown, Duration::ZERO, true),
        (Signal(6), Duration::ZERO, true),
        (Signal(11), Duration::ZERO, true),
        (Signal(9), Duration::ZERO, false),
        (Signal(15), Duration::ZERO, false),
        (Signal(2), Duration::ZERO, false),
        (Signal(1), Duration::ZERO, false),
    ] {
        let mut harness = two_online();
        harness.now += after;
        let out = harness.step(exited(WorkerId(1), exit));
        assert_eq!((start_fails(&out), spawns(&out)), (fails, !fails), "{exit:?} {after:?}");
    }
    // A worker that never came up was not killed by an operator.
    let mut harness = SupervisorHarness::new(SupervisorOptions::default());
    harness.step(Input::Scale(1));
    harness.spawned(WorkerId(1));
    assert!(start_fails(&harness.step(exited(WorkerId(1), ExitKind::Signal(9)))));
}

#[test]
fn workers_that_never_listen_are_ready_after_some_time_and_their_successors_soon() {
    let mut harness = two_online();
    assert!(!harness.step_after(LISTENS_AFTER - MS, Input::Tick).contains(&Output::Ready));
    assert!(harness.step_after(MS, Input::Tick).contains(&Output::Ready));
    assert!(spawns(&harness.step(exited(WorkerId(1), ExitKind::Code(1)))));
    harness.spawned(WorkerId(3));
    harness.step(Input::Online { worker: WorkerId(3) });
    harness.step(Input::Reload { number: Some(1) });
    for (successor, predecessor) in [(4, 3), (5, 2)] {
        harness.spawned(WorkerId(successor));
        harness.step(Input::Online { worker: WorkerId(successor) });
        harness.step_after(1000 * MS, Input::Tick);
        assert!(harness.supervisor.holds_slot(WorkerId(successor)));
        let out = harness.exit(WorkerId(predecessor));
        assert_eq!(out.contains(&reloaded(1, Ok(()))), predecessor == 2, "{out:?}");
    }
}

#[test]
fn a_start_for_which_nobody_waits_ends_its_workers_at_once() {
    let mut harness = two_online();
    harness.step(Input::Scale(3));
    harness.spawned(WorkerId(3));
    // Worker 3 cannot receive the request.
    let term = |worker| Output::Signal { worker: WorkerId(worker), hard: false };
    let out = harness.step(Input::GiveUpStart);
    assert!(out.contains(&term(3)) && !out.contains(&term(1)), "{out:?}");
    assert!(out.contains(&Output::SendDisconnect { worker: WorkerId(1) }), "{out:?}");
    harness.exit(WorkerId(1));
    let out = harness.step_after(500 * MS, Input::Tick);
    assert!(out.contains(&term(2)), "{out:?}");
    let out = harness.step_after(2000 * MS, Input::Tick);
    assert!(out.contains(&Output::Signal { worker: WorkerId(2), hard: true }), "{out:?}");
    harness.exit(WorkerId(3));
    assert!(harness.exit(WorkerId(2)).contains(&Output::Finished));
    // A start that is over stays.
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    assert_eq!(harness.step(Input::GiveUpStart), []);
}

#[test]
fn a_failed_start_for_which_nobody_waits_hurries() {
    let mut harness = two_online();
    assert!(start_fails(&harness.step(exited(WorkerId(1), ExitKind::Code(1)))));
    let out = harness.step(Input::GiveUpStart);
    assert!(out.contains(&Output::Signal { worker: WorkerId(2), hard: false }), "{out:?}");
}

#[test]
fn a_worker_that_leaves_by_itself_is_replaced_when_it_begins_to_leave() {
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    let out = harness.step(Input::DisconnectRequested { worker: WorkerId(1) });
    let disconnect = Output::SendDisconnect { worker: WorkerId(1) };
    assert!(out.contains(&spawn(WorkerId(2), 0, false)) && out.contains(&disconnect), "{out:?}");
    assert!(!out.iter().any(|output| matches!(output, Output::Unbind { .. })), "{out:?}");
    harness.step(Input::DisconnectRequested { worker: WorkerId(1) });
    let out = harness.exit(WorkerId(1));
    let exit = Output::Emit { worker: WorkerId(1), notice: Notice::Exit, exit_requested: true };
    assert!(out.contains(&exit) && !spawns(&out), "{out:?}");
    harness.accept(1);
    harness.start(WorkerId(2));
    harness.reclaim(WorkerId(1));
    assert_eq!(harness.supervisor.counters().waiting, 0);
    // The request of the primary is another thing.
    let out = harness.step(Input::Disconnect { worker: WorkerId(2) });
    assert!(!spawns(&out), "{out:?}");
}

#[test]
fn a_worker_that_leaves_by_itself_is_replaced_as_restart_says() {
    for (restart, exit, replaced) in [
        (Restart::OnCrash, ExitKind::Code(0), false),
        (Restart::OnCrash, ExitKind::Code(1), true),
        (Restart::Never, ExitKind::Code(1), false),
    ] {
        let restart = RestartOptions { restart, ..RestartOptions::default() };
        let options = SupervisorOptions { restart, ..SupervisorOptions::default() };
        let mut harness = SupervisorHarness::listening(2, options);
        for _ in 0..2 {
            let out = harness.step(Input::DisconnectRequested { worker: WorkerId(1) });
            assert!(!spawns(&out), "{out:?}");
        }
        assert_eq!(spawns(&harness.step(exited(WorkerId(1), exit))), replaced, "{restart:?}");
    }
}

#[test]
fn a_worker_that_leaves_before_all_are_ready_fails_the_start() {
    let mut harness = two_online();
    assert!(!start_fails(&harness.step(Input::DisconnectRequested { worker: WorkerId(1) })));
    assert!(start_fails(&harness.step(exited(WorkerId(1), ExitKind::Code(0)))));
}

#[test]
fn reloads_that_are_requested_during_a_reload_share_one_after_it() {
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    harness.step(Input::Reload { number: Some(1) });
    assert_eq!(harness.step(Input::Reload { number: None }), []);
    assert_eq!(harness.step(Input::Reload { number: Some(2) }), []);
    assert_eq!(harness.step(Input::Reload { number: Some(3) }), []);
    harness.start(WorkerId(2));
    harness.reclaim(WorkerId(1));
    let out = harness.exit(WorkerId(1));
    assert!(out.contains(&reloaded(1, Ok(()))), "{out:?}");
    assert!(out.contains(&spawn_successor(WorkerId(3), 0)), "{out:?}");
    // The end of the cluster answers all.
    harness.step(Input::Reload { number: Some(4) });
    let out = harness.step(Input::Shutdown);
    let failure = || Err(ReloadFailure::NotRunning);
    let both = Output::Reloaded { numbers: vec![2, 3], on_signal: true, result: failure() };
    assert!(out.contains(&both) && out.contains(&reloaded(4, failure())), "{out:?}");
}

#[test]
fn a_reload_that_fails_does_not_keep_the_next_one_from_its_turn() {
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    harness.step(Input::Reload { number: Some(1) });
    harness.step(Input::Reload { number: Some(2) });
    harness.spawned(WorkerId(2));
    let out = harness.step(exited(WorkerId(2), ExitKind::Code(1)));
    assert!(out.contains(&reloaded(1, Err(ReloadFailure::Ended(WorkerId(2))))), "{out:?}");
    assert!(out.contains(&spawn_successor(WorkerId(3), 0)), "{out:?}");
}

/// The limit of a start, and the time for its answer.
const ANSWER: Duration = Duration::from_secs(1 + 5);

fn of_one_second() -> SupervisorOptions {
    SupervisorOptions { start: Duration::from_secs(1), ..SupervisorOptions::default() }
}

#[test]
fn a_start_that_is_not_answered_fails_and_every_answer_begins_the_time_anew() {
    let mut harness = SupervisorHarness::new(of_one_second());
    harness.step(Input::Scale(2));
    assert_eq!(harness.supervisor.deadline(), Some(harness.now + ANSWER));
    harness
        .step_after(ANSWER - MS, Input::Spawned { worker: WorkerId(1), kind: WorkerKind::Native });
    let out = harness.step_after(ANSWER - MS, Input::Tick);
    assert!(!out.contains(&Output::CancelSpawn { worker: WorkerId(2) }), "{out:?}");
    let out = harness.step_after(MS, Input::Tick);
    let canceled = out.iter().position(|it| *it == Output::CancelSpawn { worker: WorkerId(2) });
    let failed = out.iter().position(|it| *it == Output::StartFailed { worker: WorkerId(2) });
    assert!(canceled.is_some() && canceled < failed, "{out:?}");
}

#[test]
fn a_replacement_whose_start_is_not_answered_is_ordered_again() {
    let mut harness = SupervisorHarness::listening(1, of_one_second());
    harness.step(Input::Exited { worker: WorkerId(1), exit: ExitKind::Code(1) });
    let out = harness.step_after(ANSWER, Input::Tick);
    assert!(out.contains(&Output::CancelSpawn { worker: WorkerId(2) }), "{out:?}");
    let next = |it: &Output<u32>| matches!(it, Output::Spawn { worker: WorkerId(3), .. });
    assert!(out.iter().any(next), "{out:?}");
}

#[test]
fn a_shutdown_ends_although_a_start_is_not_answered() {
    for end in [Input::Shutdown, Input::Abort] {
        let mut harness = SupervisorHarness::new(of_one_second());
        harness.step(Input::Scale(1));
        harness.step(end);
        let out = harness.step_after(ANSWER, Input::Tick);
        assert!(out.contains(&Output::Finished), "{out:?}");
        assert_eq!(harness.supervisor.deadline(), None);
    }
}

#[test]
fn a_start_without_a_limit_is_awaited_for_ever() {
    let start = Duration::MAX;
    let options = SupervisorOptions { start, ..SupervisorOptions::default() };
    let mut harness = SupervisorHarness::new(options);
    harness.step(Input::Scale(1));
    assert_eq!(harness.supervisor.deadline(), None);
}

//! Addresses outlive the listeners of workers, until nobody can come any more.

use super::*;

/// The time for which an address without a listener is kept.
const READY: Duration = Duration::from_secs(30);

const WITHOUT_SCHEDULER: Policy = Policy::Shared;

fn close(worker: WorkerId) -> Input<u32> {
    Input::ListenerClosed { worker, key: 1 }
}

fn unbinds(out: &[Output<u32>]) -> bool {
    out.iter().any(|output| matches!(output, Output::Unbind { .. }))
}

/// Lets the worker close its listener and exit with code 0, as a `main` that returns.
fn return_from_main(harness: &mut SupervisorHarness, worker: WorkerId) -> Vec<Output<u32>> {
    let mut out = harness.step(close(worker));
    harness.settle(worker);
    out.extend(harness.exit(worker));
    out
}

impl SupervisorHarness {
    /// Answers the reclaim of a queue that its worker closed, if there is one.
    fn settle(&mut self, worker: WorkerId) {
        if self.queues.contains_key(&(worker, 1)) {
            self.reclaim(worker);
            self.read(worker);
        }
    }

    /// Lets the worker listen on one more address. Returns its key.
    fn listen_at(&mut self, worker: WorkerId, address: &Address) -> Key {
        let request = Input::ListenRequested {
            worker,
            request: 0,
            address: address.clone(),
            options: ListenOptions::new(),
            facts: ListenFacts::default(),
        };
        let mut out = self.step(request);
        if let [Output::Bind { key, .. }] = out[..] {
            out = self.step(Input::Bound { key, result: Ok(address.clone()) });
        }
        let granted = out.iter().find_map(|output| match output {
            Output::Grant { result: Ok(grant), .. } => Some(grant.key),
            _ => None,
        });
        let key = granted.expect("granted");
        self.step(Input::Listening { worker, key });
        key
    }
}

#[test]
fn the_address_outlives_workers_that_end_in_an_orderly_way_under_every_policy() {
    for policy in [
        WITHOUT_SCHEDULER,
        Policy::RoundRobin,
        Policy::LeastLoaded,
        Policy::Sticky,
        Policy::ReusePort,
    ] {
        for workers in [1, 2, 3] {
            let start = Duration::MAX;
            let options = SupervisorOptions { policy, start, ..SupervisorOptions::default() };
            let mut harness = SupervisorHarness::listening(workers, options);
            for worker in 1..=workers {
                let out = return_from_main(&mut harness, WorkerId(worker));
                assert!(!unbinds(&out), "{policy:?} {workers} {worker}: {out:?}");
                let next = WorkerId(workers + worker);
                assert!(out.contains(&spawn(next, worker - 1, false)), "{out:?}");
            }
            if policy != WITHOUT_SCHEDULER {
                harness.accept(1);
                assert_eq!(harness.supervisor.counters().waiting, 1, "{policy:?}");
            }
            // Long starts change nothing.
            harness.step_after(10 * READY, Input::Tick);
            for worker in workers + 1..=2 * workers {
                harness.start(WorkerId(worker));
            }
            assert_eq!(harness.supervisor.counters().waiting, 0, "{policy:?}");
        }
    }
}

#[test]
fn an_address_that_all_workers_close_is_given_up_with_an_event_when_none_listens_in_time() {
    for (policy, workers) in
        [(WITHOUT_SCHEDULER, 1), (Policy::RoundRobin, 1), (Policy::RoundRobin, 3)]
    {
        let options = SupervisorOptions { policy, ..SupervisorOptions::default() };
        let mut harness = SupervisorHarness::listening(workers, options);
        for worker in 1..=workers {
            assert!(!unbinds(&harness.step(close(WorkerId(worker)))));
            harness.settle(WorkerId(worker));
        }
        // One that listens in time keeps the address, and the time begins anew.
        harness.now += READY - MS;
        assert!(!unbinds(&harness.step(Input::Tick)));
        harness.request_listen(WorkerId(workers));
        harness.step(Input::Listening { worker: WorkerId(workers), key: 1 });
        assert!(!unbinds(&harness.step_after(2 * READY, Input::Tick)));
        assert!(!unbinds(&harness.step(close(WorkerId(workers)))));
        harness.settle(WorkerId(workers));
        assert_eq!(harness.supervisor.deadline(), Some(harness.now + READY));
        let out = harness.step_after(READY, Input::Tick);
        let closed = Output::AddressClosed { address: at("127.0.0.1:80") };
        assert!(unbinds(&out) && out.contains(&closed), "{policy:?} {out:?}");
    }
}

#[test]
fn an_address_is_closed_without_an_event_when_no_worker_can_come() {
    let never = RestartOptions { restart: Restart::Never, ..RestartOptions::default() };
    let options = SupervisorOptions { restart: never, ..SupervisorOptions::default() };
    let mut harness = SupervisorHarness::listening(1, options);
    let out = return_from_main(&mut harness, WorkerId(1));
    assert!(unbinds(&out), "{out:?}");
    assert!(!out.iter().any(|output| matches!(output, Output::AddressClosed { .. })), "{out:?}");
    for input in [Input::Scale(0), Input::Disconnect { worker: WorkerId(1) }, Input::Shutdown] {
        let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
        harness.step(close(WorkerId(1)));
        harness.settle(WorkerId(1));
        let out = harness.step(input);
        assert!(unbinds(&out), "{out:?}");
    }
}

#[test]
fn the_user_closes_an_address_by_the_name_that_was_requested_or_bound() {
    for address in ["127.0.0.1:0", "127.0.0.1:4000"] {
        let mut harness = SupervisorHarness::new(SupervisorOptions::default());
        harness.step(Input::Scale(1));
        harness.spawned(WorkerId(1));
        harness.step(Input::Online { worker: WorkerId(1) });
        let (requested, options) = (at("127.0.0.1:0"), ListenOptions::new());
        harness.step(Input::ListenRequested {
            worker: WorkerId(1),
            request: 0,
            address: requested,
            options,
            facts: ListenFacts::default(),
        });
        harness.step(Input::Bound { key: 1, result: Ok(at("127.0.0.1:4000")) });
        harness.step(Input::Listening { worker: WorkerId(1), key: 1 });
        assert_eq!(harness.step(Input::CloseAddress { address: at("127.0.0.1:9") }), []);
        let out = harness.step(Input::CloseAddress { address: at(address) });
        assert!(out.contains(&Output::Unbind { key: 1, drain: true }), "{out:?}");
        let out = harness.step(Input::Unbound { key: 1 });
        assert_eq!(out, [Output::EndQueue { worker: WorkerId(1), key: 1 }]);
        harness.step(close(WorkerId(1)));
        harness.settle(WorkerId(1));
        // The next request opens it anew.
        let out = harness.request_listen(WorkerId(1));
        assert!(matches!(out[..], [Output::Bind { key: 2, .. }]), "{out:?}");
    }
}

#[test]
fn a_successor_takes_over_with_all_addresses_of_its_predecessor() {
    let second = at("127.0.0.1:81");
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    harness.listen_at(WorkerId(1), &second);
    harness.step(Input::Reload { number: Some(1) });
    harness.start(WorkerId(2));
    for _ in 0..5 {
        harness.step_after(5 * MS * 1000, Input::Tick);
        assert!(harness.supervisor.holds_slot(WorkerId(1)), "the predecessor serves");
    }
    harness.listen_at(WorkerId(2), &second);
    assert!(harness.supervisor.holds_slot(WorkerId(2)));
}

#[test]
fn a_reload_names_the_addresses_that_are_missing_and_keeps_the_worker() {
    for policy in [Policy::RoundRobin, WITHOUT_SCHEDULER] {
        let options = SupervisorOptions { policy, ..SupervisorOptions::default() };
        let (second, third) = (at("127.0.0.1:81"), at("127.0.0.1:82"));
        let mut harness = SupervisorHarness::listening(1, options);
        harness.listen_at(WorkerId(1), &second);
        harness.listen_at(WorkerId(1), &third);
        harness.step(Input::Reload { number: Some(1) });
        harness.start(WorkerId(2));
        harness.listen_at(WorkerId(2), &third);
        let out = harness.step_after(READY - MS, Input::Tick);
        assert!(harness.supervisor.is_reloading(), "an address may still come: {out:?}");
        assert!(harness.supervisor.holds_slot(WorkerId(1)));
        let out = harness.step_after(MS, Input::Tick);
        let failure = ReloadFailure::NotReady(WorkerId(2), vec![second.clone()]);
        assert!(out.contains(&reloaded(1, Err(failure))), "{out:?}");
        assert!(harness.supervisor.holds_slot(WorkerId(1)) && !unbinds(&out), "{out:?}");
        // The user gives the address up, and the next reload succeeds.
        harness.step(Input::CloseAddress { address: second });
        harness.step(Input::Unbound { key: 2 });
        harness.step(Input::Reload { number: Some(2) });
        harness.start(WorkerId(3));
        harness.listen_at(WorkerId(3), &third);
        assert!(harness.supervisor.holds_slot(WorkerId(3)));
    }
}

#[test]
fn after_a_crash_the_address_waits_for_the_successor_for_the_time_that_a_start_may_take() {
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    harness.listen_at(WorkerId(1), &at("127.0.0.1:81"));
    harness.step(Input::ChannelClosed { worker: WorkerId(1) });
    harness.step(Input::Exited { worker: WorkerId(1), exit: ExitKind::Signal(9) });
    harness.start(WorkerId(2));
    assert!(!unbinds(&harness.step_after(READY - MS, Input::Tick)));
    let out = harness.step_after(MS, Input::Tick);
    assert!(out.contains(&Output::AddressClosed { address: at("127.0.0.1:81") }), "{out:?}");
}

/// The primary has no descriptor left for the queue of a replacement.
#[test]
fn a_grant_that_fails_leaves_the_address_open() {
    let mut harness = SupervisorHarness::listening(1, SupervisorOptions::default());
    return_from_main(&mut harness, WorkerId(1));
    harness.spawned(WorkerId(2));
    harness.request_listen(WorkerId(2));
    let failed = Input::GrantFailed { worker: WorkerId(2), request: 0, key: 1, errno: 24 };
    let out = harness.step(failed);
    assert!(!unbinds(&out), "{out:?}");
}

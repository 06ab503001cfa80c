//! Workers that accept from their slot's own socket (`Policy::ReusePort`).

use super::*;

/// Returns a cluster of two workers that accept from their own sockets.
fn two_own_sockets() -> SupervisorHarness {
    SupervisorHarness::listening(
        2,
        SupervisorOptions { policy: Policy::ReusePort, ..SupervisorOptions::default() },
    )
}

fn accept_on_behalf(slot: SlotId, on: bool) -> Output<u32> {
    Output::AcceptOnBehalf { key: 1, slot, on }
}

#[test]
fn a_worker_accepts_from_its_own_socket_from_when_it_listens_until_it_exits() {
    let mut harness = two_own_sockets();
    harness.step(Input::Scale(3));
    harness.spawned(WorkerId(3));
    harness.step(Input::Online { worker: WorkerId(3) });
    let address = at("127.0.0.1:80");
    let options = ListenOptions::new();
    let request = Input::ListenRequested {
        worker: WorkerId(3),
        request: 0,
        address: address.clone(),
        options,
        facts: ListenFacts::default(),
    };
    let granted = granted(Access::OwnSocket(2));
    let granted = Output::Grant { worker: WorkerId(3), request: 0, result: Ok(granted) };
    assert_eq!(
        harness.step(request),
        [granted],
        "the primary accepts on its behalf until it listens"
    );
    let out = harness.step(Input::Listening { worker: WorkerId(3), key: 1 });
    assert_eq!(out[0], emit(WorkerId(3), Notice::Listening(address)));
    assert_eq!(out[1], accept_on_behalf(2, false));
    // Connections that the primary accepts on its behalf are dispatched in rotation.
    assert_eq!(harness.accept(1), [send(WorkerId(1), 1)]);
    assert_eq!(harness.accept(2), [send(WorkerId(2), 2)]);
    let out = harness.step(Input::Exited { worker: WorkerId(3), exit: ExitKind::Signal(9) });
    assert!(out.contains(&accept_on_behalf(2, true)), "{out:?}");
    harness.spawned(WorkerId(4));
    let out = harness.step(Input::Disconnect { worker: WorkerId(1) });
    assert!(out.contains(&accept_on_behalf(0, true)), "{out:?}");
}

#[test]
fn a_worker_that_leaves_its_own_backlog_alone_is_probed_and_accepted_on_behalf_of() {
    let mut harness = two_own_sockets();
    let probe = || Output::Probe { worker: WorkerId(1), key: 1 };
    assert_eq!(harness.step(Input::Unaccepted { key: 1, slot: 0 }), [probe()]);
    assert_eq!(harness.step(Input::Unaccepted { key: 1, slot: 0 }), [], "one probe at a time");
    let mut out = Vec::new();
    for _ in 0..5 {
        harness.step_after(20 * MS, Input::Tick);
        out = harness.poll(WorkerId(1));
    }
    assert_eq!(out, [reclaim(WorkerId(1)), accept_on_behalf(0, true)]);
    assert_eq!(harness.reclaim(WorkerId(1)), [probe()]);
    assert_eq!(harness.accept(1), [send(WorkerId(2), 1)], "a suspect gets no connection");
    harness.step_after(20 * MS, Input::Tick);
    harness.read(WorkerId(2));
    assert_eq!(
        harness.read(WorkerId(1)),
        [accept_on_behalf(0, false)],
        "a worker that has read its probe accepts again"
    );
    assert_eq!(harness.supervisor.deadline(), None);
}

#[test]
fn a_worker_with_a_connection_limit_or_without_an_own_socket_gets_a_hand_off_queue() {
    let mut harness = SupervisorHarness::new(SupervisorOptions {
        policy: Policy::ReusePort,
        ..SupervisorOptions::default()
    });
    harness.step(Input::Scale(1));
    harness.spawned(WorkerId(1));
    harness.step(Input::Online { worker: WorkerId(1) });
    let mut request = |address: Address, options: ListenOptions| {
        let key = harness.step(Input::ListenRequested {
            worker: WorkerId(1),
            request: 0,
            address,
            options,
            facts: ListenFacts::default(),
        });
        let [Output::Bind { key, ref address, .. }] = key[..] else { panic!("{key:?}") };
        let out = harness.step(Input::Bound { key, result: Ok(address.clone()) });
        let [Output::Grant { result: Ok(granted), .. }] = &out[..] else { panic!("{out:?}") };
        granted.access
    };
    let limited = ListenOptions::new().max_connections(2);
    assert_eq!(request(at("127.0.0.1:80"), limited), Access::HandOff);
    assert_eq!(request(Address::UnixPath("/run/s".into()), ListenOptions::new()), Access::HandOff);
    assert_eq!(request(at("127.0.0.1:81"), ListenOptions::new()), Access::OwnSocket(0));
    // An inherited socket is the only one of its address.
    assert_eq!(harness.step(Input::NoOwnSocket { worker: WorkerId(1), key: 3 }), []);
    let out = harness.step(Input::Listening { worker: WorkerId(1), key: 3 });
    assert!(!out.iter().any(|output| matches!(output, Output::AcceptOnBehalf { .. })), "{out:?}");
}

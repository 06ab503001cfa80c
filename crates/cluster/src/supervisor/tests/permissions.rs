//! Listen requests that rules, the user, the kernel or the number of listeners refuse.

use super::*;
use crate::listen_rules::{Credentials, GivenSocket, ListenPermission, ListenRules};
use sys::errno::{EACCES, EADDRINUSE, EMFILE};

fn nobody() -> Credentials {
    Credentials { uid: Some(65_534), gid: Some(65_534), groups: None }
}

/// Returns a supervisor whose workers 1 to n are online and may ask.
fn online(workers: u32, options: SupervisorOptions) -> SupervisorHarness {
    let mut harness = SupervisorHarness::new(options);
    harness.step(Input::Scale(workers));
    for worker in (1..=workers).map(WorkerId) {
        harness.spawned(worker);
        harness.step(Input::Online { worker });
    }
    harness
}

fn ask(
    harness: &mut SupervisorHarness,
    worker: u32,
    address: &str,
    credentials: Option<Credentials>,
) -> Vec<Output<u32>> {
    let facts = ListenFacts { credentials, ..ListenFacts::default() };
    let (worker, address, options) = (WorkerId(worker), at(address), ListenOptions::new());
    harness.step(Input::ListenRequested { worker, request: 5, address, options, facts })
}

fn refused(worker: u32, address: &str, refusal: ListenRefusal, errno: i32) -> [Output<u32>; 2] {
    let worker = WorkerId(worker);
    [
        Output::ListenRefused { worker, address: at(address), refusal },
        Output::Grant { worker, request: 5, result: Err(errno) },
    ]
}

fn bind(key: Key, address: &str, rights: Option<Credentials>) -> Output<u32> {
    let (address, options) = (at(address), ListenOptions::new());
    Output::Bind { key, address, options, reuse_port: false, rights }
}

#[test]
fn an_address_that_the_list_does_not_name_is_refused_before_it_is_opened() {
    let rules = ListenRules::new().ports(8000..=8000);
    let options = SupervisorOptions { listen_rules: Some(rules), ..SupervisorOptions::default() };
    let mut harness = online(1, options);
    let (allowed, forbidden) = ("10.0.0.1:8000", "10.0.0.1:23");
    let not_allowed = refused(1, forbidden, ListenRefusal::NotAllowed, EACCES);
    assert_eq!(ask(&mut harness, 1, forbidden, None), not_allowed);
    assert_eq!(ask(&mut harness, 1, allowed, None), [bind(1, allowed, None)]);
    let by_kernel = bind(2, forbidden, Some(nobody()));
    assert_eq!(ask(&mut harness, 1, forbidden, Some(nobody())), [by_kernel]);
    assert_eq!(harness.step(Input::Bound { key: 2, result: Err(EACCES) }), not_allowed);
    let address = Address::Inherited("descriptor 9".to_owned());
    let forbidden = Input::ForbiddenDescriptor { worker: WorkerId(1), request: 6, address };
    let out = harness.step(forbidden);
    assert!(matches!(out[..], [Output::ListenRefused { .. }, Output::Grant { request: 6, .. }]));
}

#[test]
fn a_socket_is_shared_only_by_workers_with_the_rights_that_opened_it() {
    let rules = ListenRules::new().ports(80..=80);
    let options = SupervisorOptions { listen_rules: Some(rules), ..SupervisorOptions::default() };
    let mut harness = online(4, options);
    let other = Credentials { uid: Some(1), gid: None, groups: None };
    let address = "127.0.0.1:8080";
    assert_eq!(ask(&mut harness, 1, address, Some(nobody())), [bind(1, address, Some(nobody()))]);
    assert_eq!(ask(&mut harness, 2, address, Some(nobody())), [], "waits for the same socket");
    assert_eq!(
        ask(&mut harness, 3, address, Some(other.clone())),
        [bind(2, address, Some(other.clone()))]
    );
    harness.step(Input::Bound { key: 1, result: Ok(at(address)) });
    let in_use = harness.step(Input::Bound { key: 2, result: Err(EADDRINUSE) });
    let failed = Output::ListenFailed { worker: WorkerId(3), address: at(address), errno: 98 };
    assert_eq!(in_use[0], failed, "the kernel's other errors are reported as such");
    // The list opens its addresses with the primary's rights, for every worker.
    assert_eq!(ask(&mut harness, 3, "127.0.0.1:80", Some(other)), [bind(3, "127.0.0.1:80", None)]);
    assert_eq!(ask(&mut harness, 4, "127.0.0.1:80", Some(nobody())), []);
}

#[test]
fn the_answer_of_a_function_comes_later_and_for_whom_it_was_asked() {
    let options = SupervisorOptions { asks_permission: true, ..SupervisorOptions::default() };
    let mut harness = online(2, options);
    let address = "127.0.0.1:23";
    let asked = |worker| Output::AskPermission {
        worker: WorkerId(worker),
        request: 5,
        address: at(address),
    };
    let answer =
        |worker, permission| Input::Permission { worker: WorkerId(worker), request: 5, permission };
    assert_eq!(ask(&mut harness, 1, address, Some(nobody())), [asked(1)]);
    assert_eq!(ask(&mut harness, 2, address, None), [asked(2)]);
    assert_eq!(
        harness.step(answer(1, ListenPermission::OwnRights)),
        [bind(1, address, Some(nobody()))]
    );
    assert_eq!(harness.step(answer(1, ListenPermission::Granted)), [], "answered once");
    let not_allowed = refused(2, address, ListenRefusal::NotAllowed, EACCES);
    assert_eq!(harness.step(answer(2, ListenPermission::Refused)), not_allowed);
    // A socket that was passed to the primary cannot be opened by the worker's rights.
    let given = GivenSocket { name: Some("web".to_owned()), number: 7 };
    let facts =
        ListenFacts { credentials: Some(nobody()), given: Some(given), ..ListenFacts::default() };
    let (worker, options) = (WorkerId(1), ListenOptions::new());
    let request =
        Input::ListenRequested { worker, request: 5, address: at("0.0.0.0:443"), options, facts };
    harness.step(request);
    assert_eq!(
        harness.step(answer(1, ListenPermission::OwnRights)),
        refused(1, "0.0.0.0:443", ListenRefusal::NotAllowed, EACCES)
    );
    assert_eq!(ask(&mut harness, 2, address, None), [asked(2)]);
    harness.exit(WorkerId(2));
    assert_eq!(harness.step(answer(2, ListenPermission::Granted)), [], "the worker is gone");
}

#[test]
fn a_worker_has_no_more_listeners_than_the_limit_and_its_slot_no_more_reservations() {
    let options = SupervisorOptions { listens_max: 2, ..SupervisorOptions::default() };
    let mut harness = online(1, options);
    let listen = |harness: &mut SupervisorHarness, worker: u32, port: u32| {
        let address = format!("127.0.0.1:{port}");
        let out = ask(harness, worker, &address, None);
        let key = out.iter().find_map(|output| match output {
            Output::Bind { key, .. } => Some(*key),
            _ => None,
        });
        if let Some(key) = key {
            harness.step(Input::Bound { key, result: Ok(at(&address)) });
            harness.step(Input::Listening { worker: WorkerId(worker), key });
        }
        (key, out)
    };
    assert_eq!(listen(&mut harness, 1, 1).0, Some(1));
    assert_eq!(listen(&mut harness, 1, 2).0, Some(2));
    let too_many = refused(1, "127.0.0.1:3", ListenRefusal::TooMany(2), EMFILE);
    assert_eq!(listen(&mut harness, 1, 3).1, too_many);
    harness.step(Input::ListenerClosed { worker: WorkerId(1), key: 1 });
    assert_eq!(listen(&mut harness, 1, 3).0, Some(3), "a closed listener makes room");
    harness.exit(WorkerId(1));
    harness.spawned(WorkerId(2));
    harness.step(Input::Online { worker: WorkerId(2) });
    // The slot has two addresses reserved. Each other address takes the place of one of them.
    for (port, key) in [(11, 4), (12, 5)] {
        let (bound, out) = listen(&mut harness, 2, port);
        assert_eq!(bound, Some(key));
        let closed = out.iter().any(|output| matches!(output, Output::Unbind { .. }));
        assert!(closed, "an address that nobody has any more is closed: {out:?}");
    }
}

#[test]
fn listeners_leave_four_descriptors_for_each_slot() {
    let harness = online(3, SupervisorOptions::default());
    assert_eq!(harness.supervisor.descriptor_reserve(1024), 12);
    assert_eq!(harness.supervisor.descriptor_reserve(20), 10, "at most half of all");
}

#[test]
fn a_worker_that_holds_many_ports_by_their_numbers_needs_no_stack() {
    let options = SupervisorOptions { listens_max: u32::MAX, ..SupervisorOptions::default() };
    let mut harness = online(2, options);
    let thread = std::thread::Builder::new().stack_size(96 * 1024);
    let many = move || {
        const PORTS: u32 = 1500;
        for port in 1..=PORTS {
            let key = match ask(&mut harness, 1, "127.0.0.1:0", None)[..] {
                [Output::Bind { key, .. }] => key,
                ref other => panic!("{other:?}"),
            };
            let bound = at(&format!("127.0.0.1:{}", 1000 + port));
            harness.step(Input::Bound { key, result: Ok(bound.clone()) });
            ask(&mut harness, 2, &bound.to_string(), None);
        }
        // Worker 2 holds every key by its number, so port 0 is a key of its own.
        let out = ask(&mut harness, 2, "127.0.0.1:0", None);
        assert!(
            matches!(out[..], [Output::Bind { key, .. }] if key == Key::from(PORTS + 1)),
            "{out:?}"
        );
    };
    thread.spawn(many).unwrap().join().unwrap();
}

//! The core as a script: what goes in, what must come out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::contract::RestartOptions;
use crate::policy::Policy;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

const MS: Duration = Duration::from_millis(1);

fn at(text: &str) -> Address {
    Address::from(text.parse::<SocketAddr>().unwrap())
}

/// A core with its answers, by hand.
struct Script {
    supervisor: Supervisor<u32>,
    now: Instant,
}

impl Script {
    fn new(options: SupervisorOptions) -> Self {
        Self { supervisor: Supervisor::new(options, 1), now: Instant::now() }
    }

    /// A cluster of so many workers that listen on one address, key 1.
    fn listening(workers: u32, options: SupervisorOptions) -> Self {
        let mut script = Self::new(options);
        script.say(Input::Scale(workers));
        for worker in 1..=workers {
            script.start(worker);
        }
        script
    }

    fn start(&mut self, worker: WorkerId) {
        self.say(Input::Spawned { worker, pid: worker, kind: WorkerKind::Native });
        self.say(Input::Online { worker });
        let address = at("127.0.0.1:80");
        let out = self.say(Input::ListenAsked {
            worker,
            request: 0,
            address,
            options: ListenOptions::new(),
        });
        if matches!(out[..], [Output::Bind { .. }]) {
            self.say(Input::Bound { key: 1, result: Ok(at("127.0.0.1:80")) });
        }
        self.say(Input::Listening { worker, key: 1 });
    }

    fn say(&mut self, input: Input<u32>) -> Vec<Output<u32>> {
        let mut out = Vec::new();
        self.supervisor.step(input, self.now, &mut out);
        let sum = self.supervisor.counters();
        assert_eq!(sum.accepted + sum.reclaimed, sum.dispatched + sum.closed() + sum.waiting);
        out
    }

    fn say_at(&mut self, after: Duration, input: Input<u32>) -> Vec<Output<u32>> {
        self.now += after;
        self.say(input)
    }

    fn accept(&mut self, connection: u32) -> Vec<Output<u32>> {
        self.say(Input::Accepted { key: 1, connection })
    }

    fn read(&mut self, worker: WorkerId) -> Vec<Output<u32>> {
        self.say(Input::Depth { worker, key: 1, records: 0 })
    }

    fn exit(&mut self, worker: WorkerId) -> Vec<Output<u32>> {
        let mut out = self.say(Input::ChannelClosed { worker });
        out.extend(self.say(Input::Exited { worker, ended: Ended::Code(0) }));
        out
    }
}

fn send(worker: WorkerId, connection: u32) -> Output<u32> {
    Output::Send { worker, key: 1, connection }
}

fn spawn(worker: WorkerId, slot: SlotId, capture_stderr: bool) -> Output<u32> {
    Output::Spawn { worker, slot, setup: None, capture_stderr }
}

fn granted(how: Access) -> Grant {
    Grant { key: 1, how, counts_closed: false, data: None }
}

#[test]
fn a_worker_comes_up_and_serves() {
    let mut script = Script::new(SupervisorOptions::default());
    assert_eq!(script.say(Input::Scale(1)), [spawn(1, 0, true)]);
    let fork = Output::Emit(Notice::Fork { worker: 1, pid: 77 });
    assert_eq!(script.say(Input::Spawned { worker: 1, pid: 77, kind: WorkerKind::Native }), [fork]);
    let online = Output::Emit(Notice::Online { worker: 1 });
    assert_eq!(script.say(Input::Online { worker: 1 }), [online]);
    let address = at("127.0.0.1:0");
    let asked = Input::ListenAsked {
        worker: 1,
        request: 9,
        address: address.clone(),
        options: ListenOptions::new().backlog(5),
    };
    assert_eq!(
        script.say(asked),
        [Output::Bind {
            key: 1,
            address,
            options: ListenOptions::new().backlog(5),
            reuse_port: false
        }]
    );
    let bound = at("127.0.0.1:4000");
    let granted = Output::Grant { worker: 1, request: 9, result: Ok(granted(Access::HandOff)) };
    assert_eq!(script.say(Input::Bound { key: 1, result: Ok(bound.clone()) }), [granted]);
    assert_eq!(
        script.say(Input::Listening { worker: 1, key: 1 }),
        [
            Output::Emit(Notice::Listening { worker: 1, address: bound }),
            Output::Accept { key: 1, on: true },
            Output::Emit(Notice::Ready),
        ]
    );
    assert_eq!(script.accept(5), [send(1, 5)]);
}

#[test]
fn connections_go_round_exactly() {
    let mut script = Script::listening(3, SupervisorOptions::default());
    for connection in 0..12 {
        assert_eq!(script.accept(connection), [send(connection % 3 + 1, connection)]);
    }
    script.now += 20 * MS;
    let asks = script.say(Input::Tick);
    assert_eq!(asks, [1, 2, 3].map(|worker| Output::PollDepth { worker, key: 1 }));
    for worker in 1..=3 {
        assert!(script.read(worker).is_empty());
    }
    assert_eq!(script.supervisor.deadline(), None);
}

#[test]
fn a_full_lane_is_skipped_and_with_all_full_nothing_is_accepted() {
    let mut script =
        Script::listening(2, SupervisorOptions { window: 1, ..SupervisorOptions::default() });
    let ask = |worker| Output::PollDepth { worker, key: 1 };
    assert_eq!(script.accept(1), [send(1, 1), ask(1)]);
    assert_eq!(script.accept(2), [send(2, 2), ask(2), Output::Accept { key: 1, on: false }]);
    assert_eq!(script.say(Input::Depth { worker: 1, key: 1, records: 1 }), []);
    // One that was on its way waits.
    assert_eq!(script.accept(3), []);
    assert_eq!(script.read(2), [send(2, 3), ask(2)]);
    assert_eq!(script.say_at(20 * MS, Input::Tick), [ask(1)]);
    assert_eq!(script.read(1), [Output::Accept { key: 1, on: true }]);
}

#[test]
fn a_stuck_workers_connections_go_to_others_and_it_gets_only_probes() {
    let mut script = Script::listening(2, SupervisorOptions::default());
    script.accept(1);
    script.accept(2);
    for _ in 0..5 {
        script.say_at(20 * MS, Input::Tick);
        script.say(Input::Depth { worker: 1, key: 1, records: 1 });
        script.read(2);
    }
    let taking = script.say_at(
        Duration::ZERO,
        Input::Reclaimed { worker: 1, key: 1, connections: vec![1], probes: 0 },
    );
    assert_eq!(taking, [Output::Probe { worker: 1, key: 1 }, send(2, 1)]);
    assert_eq!(script.accept(3), [send(2, 3)]);
    // The probe is read: trusted again.
    script.say_at(20 * MS, Input::Tick);
    script.read(2);
    script.read(1);
    assert_eq!(script.accept(4), [send(1, 4)]);
    assert_eq!(script.supervisor.counters().reclaimed, 1);
    assert_eq!(script.supervisor.counters().re_dispatched, 1);
}

#[test]
fn a_dead_workers_queue_is_read_back_and_the_worker_replaced_at_once() {
    let mut script = Script::listening(2, SupervisorOptions::default());
    script.accept(1);
    script.accept(2);
    let out = script.say(Input::Exited { worker: 1, ended: Ended::Signal(9) });
    let exit = Notice::Exit { worker: 1, ended: Ended::Signal(9), exited_after_disconnect: false };
    let taking = Output::Reclaim { worker: 1, key: 1 };
    assert_eq!(out, [taking, Output::Emit(exit), spawn(3, 0, false)]);
    let taken = Input::Reclaimed { worker: 1, key: 1, connections: vec![1], probes: 0 };
    assert_eq!(script.say(taken), [Output::PollDepth { worker: 1, key: 1 }, send(2, 1)]);
    assert_eq!(script.read(1), [Output::DropQueue { worker: 1, key: 1 }]);
    let hung_up = Output::Emit(Notice::Disconnect { worker: 1, exited_after_disconnect: false });
    assert_eq!(script.say(Input::ChannelClosed { worker: 1 }), [hung_up]);
}

#[test]
fn the_listener_stays_open_while_the_last_worker_is_replaced() {
    let mut script = Script::listening(1, SupervisorOptions::default());
    script.accept(1);
    let out = script.exit(1);
    assert!(!out.iter().any(|o| matches!(o, Output::Unbind { .. })), "{out:?}");
    script.say(Input::Reclaimed { worker: 1, key: 1, connections: vec![1], probes: 0 });
    script.read(1);
    assert_eq!(script.supervisor.counters().waiting, 1);
    script.say(Input::Spawned { worker: 2, pid: 2, kind: WorkerKind::Native });
    script.say(Input::Online { worker: 2 });
    let address = at("127.0.0.1:80");
    script.say(Input::ListenAsked {
        worker: 2,
        request: 0,
        address,
        options: ListenOptions::new(),
    });
    let out = script.say(Input::Listening { worker: 2, key: 1 });
    assert!(out.contains(&send(2, 1)), "{out:?}");
}

#[test]
fn a_shutdown_deals_out_the_backlog_before_the_queues_end() {
    let mut script = Script::listening(2, SupervisorOptions::default());
    assert_eq!(script.say(Input::Shutdown), [Output::Unbind { key: 1, drain: true }]);
    assert_eq!(script.accept(1), [send(1, 1)]);
    assert_eq!(script.accept(2), [send(2, 2)]);
    assert_eq!(script.say(Input::Unbound { key: 1 }), [], "both queues are unread");
    script.say_at(20 * MS, Input::Tick);
    assert_eq!(script.read(1), []);
    assert_eq!(
        script.read(2),
        [
            Output::EndQueue { worker: 2, key: 1 },
            Output::EndQueue { worker: 1, key: 1 },
            Output::SendDisconnect { worker: 1 },
            Output::SendDisconnect { worker: 2 },
        ]
    );
    for worker in [1, 2] {
        let out = script.exit(worker);
        assert!(out.contains(&Output::Reclaim { worker, key: 1 }), "{out:?}");
        script.say(Input::Reclaimed { worker, key: 1, connections: vec![], probes: 0 });
        let out = script.read(worker);
        assert_eq!(out.contains(&Output::Finished), worker == 2, "{out:?}");
    }
    assert_eq!(script.supervisor.deadline(), None);
}

#[test]
fn a_worker_that_does_not_end_is_helped_along() {
    let mut script = Script::listening(1, SupervisorOptions::default());
    script.say(Input::Shutdown);
    script.say(Input::Unbound { key: 1 });
    let term = Output::Signal { worker: 1, hard: false };
    assert_eq!(script.say_at(5000 * MS, Input::Tick), [term]);
    let kill = Output::Signal { worker: 1, hard: true };
    assert_eq!(script.say_at(2000 * MS, Input::Tick), [kill]);
    script.exit(1);
    script.say(Input::Reclaimed { worker: 1, key: 1, connections: vec![7], probes: 0 });
    assert!(script.read(1).contains(&Output::Finished));
    assert_eq!(script.supervisor.counters().closed_shutdown, 1);
}

#[test]
fn a_first_worker_that_ends_before_it_listens_fails_the_start() {
    let mut script = Script::new(SupervisorOptions::default());
    script.say(Input::Scale(2));
    script.say(Input::Spawned { worker: 1, pid: 1, kind: WorkerKind::Native });
    script.say(Input::Spawned { worker: 2, pid: 2, kind: WorkerKind::Native });
    let out = script.say(Input::Exited { worker: 1, ended: Ended::Code(3) });
    let failed = Notice::StartFailed { worker: 1, ended: Some(Ended::Code(3)), errno: None };
    assert!(out.contains(&Output::Emit(failed)), "{out:?}");
    assert!(out.contains(&Output::SendDisconnect { worker: 2 }), "{out:?}");
    let out = script.exit(2);
    assert_eq!(out.iter().filter(|o| **o == Output::Finished).count(), 1, "{out:?}");
}

#[test]
fn a_worker_is_ready_when_it_listens_or_where_none_does_when_it_is_online() {
    for listens in [true, false] {
        let mut script = Script::new(SupervisorOptions { listens, ..SupervisorOptions::default() });
        script.say(Input::Scale(1));
        script.say(Input::Spawned { worker: 1, pid: 1, kind: WorkerKind::Native });
        let mut out = script.say(Input::Online { worker: 1 });
        while script.supervisor.deadline().is_some_and(|at| at <= script.now) {
            out.extend(script.say(Input::Tick));
        }
        assert_eq!(out.contains(&Output::Emit(Notice::Ready)), !listens, "{out:?}");
        assert_eq!(script.supervisor.deadline(), None);
    }
}

#[test]
fn a_primary_whose_workers_are_all_gone_for_good_ends() {
    let mut script = Script::listening(2, SupervisorOptions::default());
    script.say(Input::Disconnect { worker: 1 });
    script.say(Input::Reclaimed { worker: 1, key: 1, connections: vec![], probes: 0 });
    script.exit(1);
    script.say(Input::Reclaimed { worker: 1, key: 1, connections: vec![], probes: 0 });
    assert!(!script.read(1).contains(&Output::Finished), "one is left");
    let out = script.say(Input::Disconnect { worker: 2 });
    assert_eq!(out, [Output::Unbind { key: 1, drain: true }]);
    script.say(Input::Unbound { key: 1 });
    script.exit(2);
    script.say(Input::Reclaimed { worker: 2, key: 1, connections: vec![], probes: 0 });
    assert!(script.read(2).contains(&Output::Finished));
}

#[test]
fn what_a_frozen_worker_leaves_unread_is_given_to_others_before_the_end() {
    let mut script = Script::listening(2, SupervisorOptions::default());
    assert_eq!(script.accept(1), [send(1, 1)]);
    script.say(Input::Shutdown);
    assert_eq!(script.say(Input::Unbound { key: 1 }), [], "1 has not read its queue");
    for _ in 0..5 {
        script.say_at(20 * MS, Input::Tick);
        script.say(Input::Depth { worker: 1, key: 1, records: 1 });
    }
    let taken = Input::Reclaimed { worker: 1, key: 1, connections: vec![1], probes: 0 };
    assert!(script.say(taken).contains(&send(2, 1)), "2 is there for it");
}

/// Two that read nothing hold each other up for half of the time. Then each is to have what lies in
/// its queue: the other is told that nothing more comes, and takes nothing when one dies.
#[test]
fn what_a_worker_leaves_unread_that_dies_in_the_second_half_of_the_end_is_closed_and_counted() {
    let options = SupervisorOptions { disconnect: 1000 * MS, ..SupervisorOptions::default() };
    let mut script = Script::listening(2, options);
    script.accept(1);
    script.accept(2);
    script.say(Input::Shutdown);
    assert_eq!(script.say(Input::Unbound { key: 1 }), [], "neither has read its queue");
    let out = script.say_at(500 * MS, Input::Tick);
    for worker in [1, 2] {
        let ended = out.iter().position(|it| *it == Output::EndQueue { worker, key: 1 });
        let told = out.iter().position(|it| *it == Output::SendDisconnect { worker });
        assert!(ended.is_some() && ended < told, "{out:?}");
    }
    assert!(script.exit(1).contains(&Output::Reclaim { worker: 1, key: 1 }));
    let taken = Input::Reclaimed { worker: 1, key: 1, connections: vec![1], probes: 0 };
    script.say(taken);
    let out = script.say(Input::Depth { worker: 1, key: 1, records: 0 });
    let closed = script.supervisor.counters().closed_shutdown;
    assert_eq!(closed, 1, "{out:?}");
}

#[test]
fn a_disconnected_worker_gives_its_queue_to_others_and_is_not_replaced() {
    let mut script = Script::listening(2, SupervisorOptions::default());
    script.accept(1);
    script.accept(2);
    let out = script.say(Input::Disconnect { worker: 1 });
    assert_eq!(out, [Output::Reclaim { worker: 1, key: 1 }]);
    let taken = Input::Reclaimed { worker: 1, key: 1, connections: vec![1], probes: 0 };
    let ended = Output::EndQueue { worker: 1, key: 1 };
    let told = Output::SendDisconnect { worker: 1 };
    assert_eq!(script.say(taken), [ended, send(2, 1), told]);
    let out = script.exit(1);
    let exit = Notice::Exit { worker: 1, ended: Ended::Code(0), exited_after_disconnect: true };
    assert!(out.contains(&Output::Emit(exit)), "{out:?}");
    assert!(!out.iter().any(|o| matches!(o, Output::Spawn { .. })), "{out:?}");
}

#[test]
fn a_shared_socket_is_granted_and_never_accepted_from() {
    let mut script =
        Script::new(SupervisorOptions { policy: Policy::Shared, ..SupervisorOptions::default() });
    script.say(Input::Scale(1));
    script.say(Input::Spawned { worker: 1, pid: 1, kind: WorkerKind::Native });
    let address = at("127.0.0.1:80");
    script.say(Input::ListenAsked {
        worker: 1,
        request: 1,
        address,
        options: ListenOptions::new(),
    });
    let granted = Output::Grant { worker: 1, request: 1, result: Ok(granted(Access::Shared)) };
    let bound = Input::Bound { key: 1, result: Ok(at("127.0.0.1:80")) };
    assert_eq!(script.say(bound), [granted]);
    let out = script.say(Input::Listening { worker: 1, key: 1 });
    assert!(matches!(
        out[..],
        [Output::Emit(Notice::Listening { .. }), Output::Emit(Notice::Ready)]
    ));
    let unbind = Output::Unbind { key: 1, drain: false };
    assert_eq!(script.say(Input::Shutdown), [unbind, Output::SendDisconnect { worker: 1 }]);
    script.say(Input::Unbound { key: 1 });
    assert!(script.exit(1).contains(&Output::Finished));
}

#[test]
fn a_worker_that_crashes_in_a_loop_is_started_ever_more_rarely_and_never_given_up() {
    let restart = RestartOptions::default();
    let mut script =
        Script::listening(1, SupervisorOptions { restart, ..SupervisorOptions::default() });
    let mut starts = 0;
    let end = script.now + Duration::from_secs(600);
    let mut worker = 1;
    while script.now < end {
        script.say(Input::ChannelClosed { worker });
        let mut out = script.say(Input::Exited { worker, ended: Ended::Code(1) });
        if worker == 1 {
            script.say(Input::Reclaimed { worker, key: 1, connections: vec![], probes: 0 });
            script.read(1);
        }
        if out.is_empty() || !out.iter().any(|o| matches!(o, Output::Spawn { .. })) {
            script.now = script.supervisor.deadline().expect("a restart is due");
            out = script.say(Input::Tick);
        }
        assert!(out.iter().any(|o| matches!(o, Output::Spawn { .. })), "{out:?}");
        starts += 1;
        worker += 1;
        script.say(Input::Spawned { worker, pid: worker, kind: WorkerKind::Native });
    }
    assert!((25..60).contains(&starts), "{starts}");
}

#[test]
fn a_reload_goes_from_slot_to_slot_and_each_successor_listens_first() {
    let mut script = Script::listening(2, SupervisorOptions::default());
    let spawn = |worker, slot| spawn(worker, slot, true);
    assert_eq!(script.say(Input::Reload { number: 7 }), [spawn(3, 0)]);
    let refused = Output::Reloaded { number: 8, result: Err(ReloadFailure::UnderWay) };
    assert_eq!(script.say(Input::Reload { number: 8 }), [refused]);
    assert_eq!(script.accept(1), [send(1, 1)], "the holder serves");
    script.read(1);
    script.say(Input::Spawned { worker: 3, pid: 3, kind: WorkerKind::Native });
    script.say(Input::Online { worker: 3 });
    let address = at("127.0.0.1:80");
    script.say(Input::ListenAsked {
        worker: 3,
        request: 0,
        address,
        options: ListenOptions::new(),
    });
    let out = script.say(Input::Listening { worker: 3, key: 1 });
    let taken = out.iter().position(|it| *it == Output::Reclaim { worker: 1, key: 1 });
    let next = out.iter().position(|it| *it == spawn(4, 1));
    assert!(taken < next && taken.is_some(), "{out:?}");
    script.say(Input::Reclaimed { worker: 1, key: 1, connections: Vec::new(), probes: 0 });
    script.start(4);
    script.exit(1);
    let done = Output::Reloaded { number: 7, result: Ok(()) };
    assert!(!script.exit(3).contains(&done), "an exit of somebody else is not the end");
    assert!(script.exit(2).contains(&done), "when the last predecessor has ended");
}

#[test]
fn a_successor_that_is_late_or_ends_leaves_the_holder_in_place() {
    let options = SupervisorOptions { ready: 50 * MS, ..SupervisorOptions::default() };
    let mut script = Script::listening(1, options);
    script.say(Input::Reload { number: 1 });
    script.say(Input::Spawned { worker: 2, pid: 2, kind: WorkerKind::Native });
    assert_eq!(script.supervisor.deadline(), Some(script.now + 50 * MS));
    let out = script.say_at(50 * MS, Input::Tick);
    let slow = Output::Reloaded { number: 1, result: Err(ReloadFailure::NotReady(2)) };
    assert!(out.contains(&slow) && out.contains(&Output::SendDisconnect { worker: 2 }), "{out:?}");
    script.say(Input::Reload { number: 2 });
    script.say(Input::Spawned { worker: 3, pid: 3, kind: WorkerKind::Native });
    let out = script.say(Input::Exited { worker: 3, ended: Ended::Code(1) });
    let ended = Output::Reloaded { number: 2, result: Err(ReloadFailure::Ended(3)) };
    assert!(out.contains(&ended), "{out:?}");
    assert!(!out.iter().any(|it| matches!(it, Output::Spawn { .. })), "nobody replaces it");
    assert_eq!(script.accept(1), [send(1, 1)]);
}

#[test]
fn a_holder_that_dies_leaves_its_slot_to_the_successor() {
    let mut script = Script::listening(1, SupervisorOptions::default());
    script.say(Input::Reload { number: 1 });
    let out = script.exit(1);
    assert!(!out.iter().any(|it| matches!(it, Output::Spawn { .. } | Output::Unbind { .. })));
    script.start(2);
    assert_eq!(script.accept(1), [send(2, 1)]);
}

/// Two workers that accept by themselves.
fn on_their_own() -> Script {
    Script::listening(
        2,
        SupervisorOptions { policy: Policy::ReusePort, ..SupervisorOptions::default() },
    )
}

fn accept_on_behalf(slot: SlotId, on: bool) -> Output<u32> {
    Output::AcceptOnBehalf { key: 1, slot, on }
}

#[test]
fn a_worker_accepts_by_itself_from_when_it_listens_until_it_is_dead() {
    let mut script = on_their_own();
    script.say(Input::Scale(3));
    script.say(Input::Spawned { worker: 3, pid: 3, kind: WorkerKind::Native });
    script.say(Input::Online { worker: 3 });
    let address = at("127.0.0.1:80");
    let options = ListenOptions::new();
    let asked = Input::ListenAsked { worker: 3, request: 0, address: address.clone(), options };
    let granted = granted(Access::OwnSocket(2));
    let granted = Output::Grant { worker: 3, request: 0, result: Ok(granted) };
    assert_eq!(script.say(asked), [granted], "until it listens we stand in");
    let out = script.say(Input::Listening { worker: 3, key: 1 });
    assert_eq!(out[0], Output::Emit(Notice::Listening { worker: 3, address }));
    assert_eq!(out[1], accept_on_behalf(2, false));
    // What is accepted in its stead goes round.
    assert_eq!(script.accept(1), [send(1, 1)]);
    assert_eq!(script.accept(2), [send(2, 2)]);
    let out = script.say(Input::Exited { worker: 3, ended: Ended::Signal(9) });
    assert!(out.contains(&accept_on_behalf(2, true)), "{out:?}");
    script.say(Input::Spawned { worker: 4, pid: 4, kind: WorkerKind::Native });
    let out = script.say(Input::Disconnect { worker: 1 });
    assert!(out.contains(&accept_on_behalf(0, true)), "{out:?}");
}

#[test]
fn who_leaves_waiting_connections_alone_is_probed_and_stood_in_for() {
    let mut script = on_their_own();
    let probe = || Output::Probe { worker: 1, key: 1 };
    assert_eq!(script.say(Input::Unaccepted { key: 1, slot: 0 }), [probe()]);
    assert_eq!(script.say(Input::Unaccepted { key: 1, slot: 0 }), [], "one at a time");
    let mut out = Vec::new();
    for _ in 0..5 {
        script.say_at(20 * MS, Input::Tick);
        out = script.say(Input::Depth { worker: 1, key: 1, records: 1 });
    }
    assert_eq!(out, [Output::Reclaim { worker: 1, key: 1 }, accept_on_behalf(0, true)]);
    let taken = Input::Reclaimed { worker: 1, key: 1, connections: vec![], probes: 1 };
    assert_eq!(script.say(taken), [probe()]);
    assert_eq!(script.accept(1), [send(2, 1)], "not to the suspect");
    script.say_at(20 * MS, Input::Tick);
    script.read(2);
    assert_eq!(script.read(1), [accept_on_behalf(0, false)], "it is back");
    assert_eq!(script.supervisor.deadline(), None);
}

#[test]
fn who_may_have_only_so_many_and_who_has_no_socket_of_its_own_is_dealt_to() {
    let mut script = Script::new(SupervisorOptions {
        policy: Policy::ReusePort,
        ..SupervisorOptions::default()
    });
    script.say(Input::Scale(1));
    script.say(Input::Spawned { worker: 1, pid: 1, kind: WorkerKind::Native });
    script.say(Input::Online { worker: 1 });
    let mut ask = |address: Address, options: ListenOptions| {
        let key = script.say(Input::ListenAsked { worker: 1, request: 0, address, options });
        let [Output::Bind { key, ref address, .. }] = key[..] else { panic!("{key:?}") };
        let out = script.say(Input::Bound { key, result: Ok(address.clone()) });
        let [Output::Grant { result: Ok(granted), .. }] = &out[..] else { panic!("{out:?}") };
        granted.how
    };
    let limited = ListenOptions::new().max_connections(2);
    assert_eq!(ask(at("127.0.0.1:80"), limited), Access::HandOff);
    assert_eq!(ask(Address::UnixPath("/run/s".into()), ListenOptions::new()), Access::HandOff);
    assert_eq!(ask(at("127.0.0.1:81"), ListenOptions::new()), Access::OwnSocket(0));
    // The socket was given, and is the only one.
    assert_eq!(script.say(Input::NoOwnSocket { worker: 1, key: 3 }), []);
    let out = script.say(Input::Listening { worker: 1, key: 3 });
    assert!(!out.iter().any(|it| matches!(it, Output::AcceptOnBehalf { .. })), "{out:?}");
}

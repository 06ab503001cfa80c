//! Requests, holders and reservations of addresses.

use super::*;
use std::net::SocketAddr;

fn at(text: &str) -> Address {
    Address::from(text.parse::<SocketAddr>().unwrap())
}

/// Requests an address for worker n in slot n.
fn request_address(entries: &mut AddressTable, worker: WorkerId, address: &str) -> Resolution {
    entries.request_address(worker, Some(worker.0), 0, listen_request(&at(address)))
}

fn listen_request(address: &Address) -> ListenRequest<'_> {
    ListenRequest { address, rights: None, again: false, open_max: None, data: None }
}

fn bind(entries: &mut AddressTable, worker: WorkerId, requested: &str, bound: &str) -> Key {
    let Resolution::Bind(key) = request_address(entries, worker, requested) else {
        panic!("shared")
    };
    assert_eq!(entries.bound(key, Ok(at(bound))), [(worker, 0)]);
    key
}

fn unused(entries: &AddressTable) -> Vec<Key> {
    entries.unused(|_| true)
}

#[test]
fn the_same_address_is_opened_once_and_shared() {
    let mut entries = AddressTable::default();
    let key = bind(&mut entries, WorkerId(1), "127.0.0.1:80", "127.0.0.1:80");
    assert_eq!(request_address(&mut entries, WorkerId(2), "127.0.0.1:80"), Resolution::Grant(key));
    assert_eq!(
        request_address(&mut entries, WorkerId(2), "127.0.0.1:81"),
        Resolution::Bind(key + 1)
    );
    assert_eq!(entries.address(key), Some(&at("127.0.0.1:80")));
    assert_eq!(entries.address(key + 1), None);
    assert_eq!(entries.held_by(WorkerId(2)), [key, key + 1]);
}

#[test]
fn requests_that_come_while_the_address_is_bound_wait_for_the_one_answer() {
    let mut entries = AddressTable::default();
    assert_eq!(
        entries.request_address(WorkerId(1), Some(1), 10, listen_request(&at("[::1]:80"))),
        Resolution::Bind(1)
    );
    assert_eq!(
        entries.request_address(WorkerId(2), Some(2), 20, listen_request(&at("[::1]:80"))),
        Resolution::Wait
    );
    assert_eq!(
        entries.request_address(WorkerId(3), Some(3), 30, listen_request(&at("[::1]:80"))),
        Resolution::Wait
    );
    entries.worker_ended(WorkerId(2), None);
    assert_eq!(entries.bound(1, Ok(at("[::1]:80"))), [(WorkerId(1), 10), (WorkerId(3), 30)]);
    assert!(entries.bound(1, Ok(at("[::1]:80"))).is_empty());
}

#[test]
fn a_failure_answers_all_waiting_requests_and_is_not_kept() {
    let mut entries = AddressTable::default();
    assert_eq!(request_address(&mut entries, WorkerId(1), "127.0.0.1:0"), Resolution::Bind(1));
    assert_eq!(request_address(&mut entries, WorkerId(2), "127.0.0.1:0"), Resolution::Wait);
    assert_eq!(entries.bound(1, Err(13)), [(WorkerId(1), 0), (WorkerId(2), 0)]);
    assert!(entries.is_empty() && entries.indexes.is_empty());
    assert_eq!(request_address(&mut entries, WorkerId(2), "127.0.0.1:0"), Resolution::Bind(2));
}

#[test]
fn the_nth_request_for_port_0_is_the_same_port_in_every_worker() {
    let mut entries = AddressTable::default();
    let first = bind(&mut entries, WorkerId(1), "0.0.0.0:0", "0.0.0.0:4001");
    let second = bind(&mut entries, WorkerId(1), "0.0.0.0:0", "0.0.0.0:4002");
    assert_ne!(first, second);
    assert_eq!(request_address(&mut entries, WorkerId(2), "0.0.0.0:0"), Resolution::Grant(first));
    assert_eq!(request_address(&mut entries, WorkerId(2), "0.0.0.0:0"), Resolution::Grant(second));
    // The index counts for each address on its own.
    assert_eq!(request_address(&mut entries, WorkerId(2), "127.0.0.1:0"), Resolution::Bind(3));
}

#[test]
fn indexes_go_on_until_all_are_closed_and_then_begin_anew() {
    let mut entries = AddressTable::default();
    let first = bind(&mut entries, WorkerId(1), "0.0.0.0:0", "0.0.0.0:4001");
    let second = bind(&mut entries, WorkerId(1), "0.0.0.0:0", "0.0.0.0:4002");
    entries.release(WorkerId(1), first);
    assert_eq!(request_address(&mut entries, WorkerId(1), "0.0.0.0:0"), Resolution::Bind(3));
    entries.release(WorkerId(1), second);
    entries.release(WorkerId(1), 3);
    assert_eq!(request_address(&mut entries, WorkerId(1), "0.0.0.0:0"), Resolution::Grant(first));
}

#[test]
fn the_number_behind_port_0_is_the_same_key() {
    let mut entries = AddressTable::default();
    let key = bind(&mut entries, WorkerId(1), "0.0.0.0:0", "0.0.0.0:4001");
    assert_eq!(request_address(&mut entries, WorkerId(2), "0.0.0.0:4001"), Resolution::Grant(key));
    assert_eq!(
        request_address(&mut entries, WorkerId(1), "0.0.0.0:4001"),
        Resolution::Refuse(EADDRINUSE)
    );
    assert_eq!(request_address(&mut entries, WorkerId(2), "0.0.0.0:0"), Resolution::Bind(key + 1));
    entries.release(WorkerId(2), key);
    assert_eq!(entries.held_by(WorkerId(1)), [key]);
}

#[test]
fn one_worker_cannot_hold_an_address_twice() {
    let mut entries = AddressTable::default();
    assert_eq!(request_address(&mut entries, WorkerId(1), "0.0.0.0:80"), Resolution::Bind(1));
    assert_eq!(
        request_address(&mut entries, WorkerId(1), "0.0.0.0:80"),
        Resolution::Refuse(EADDRINUSE)
    );
    entries.bound(1, Ok(at("0.0.0.0:80")));
    assert_eq!(
        request_address(&mut entries, WorkerId(1), "0.0.0.0:80"),
        Resolution::Refuse(EADDRINUSE)
    );
    entries.release(WorkerId(1), 1);
    assert_eq!(request_address(&mut entries, WorkerId(1), "0.0.0.0:80"), Resolution::Grant(1));
}

#[test]
fn a_key_is_in_use_until_its_last_holder_closes_it() {
    let mut entries = AddressTable::default();
    let key = bind(&mut entries, WorkerId(1), "0.0.0.0:80", "0.0.0.0:80");
    request_address(&mut entries, WorkerId(2), "0.0.0.0:80");
    entries.release(WorkerId(1), key);
    assert!(unused(&entries).is_empty());
    assert_eq!(entries.unused(|worker| worker != WorkerId(2)), [key]);
    entries.release(WorkerId(2), key);
    assert_eq!(unused(&entries), [key]);
}

#[test]
fn a_dead_holders_slot_reserves_the_key_until_its_next_worker_requests_it_or_none_comes() {
    let mut entries = AddressTable::default();
    let key = bind(&mut entries, WorkerId(1), "0.0.0.0:0", "0.0.0.0:4001");
    entries.worker_ended(WorkerId(1), Some(7));
    assert!(unused(&entries).is_empty());
    // The replacement died before it requested the address.
    entries.worker_ended(WorkerId(2), Some(7));
    assert!(unused(&entries).is_empty());
    assert_eq!(
        entries.request_address(WorkerId(3), Some(7), 0, listen_request(&at("0.0.0.0:0"))),
        Resolution::Grant(key)
    );
    entries.release(WorkerId(3), key);
    assert_eq!(unused(&entries), [key]);
    entries.request_address(WorkerId(4), Some(8), 0, listen_request(&at("0.0.0.0:0")));
    entries.worker_ended(WorkerId(4), Some(8));
    entries.drop_reservation(8);
    assert_eq!(unused(&entries), [key]);
}

#[test]
fn a_successor_drops_the_reservations_of_its_own_slot_for_the_keys_that_it_holds() {
    let mut entries = AddressTable::default();
    let first = bind(&mut entries, WorkerId(1), "0.0.0.0:80", "0.0.0.0:80");
    let second = bind(&mut entries, WorkerId(1), "0.0.0.0:81", "0.0.0.0:81");
    entries.worker_ended(WorkerId(1), Some(7));
    entries.reserve(first, 8);
    entries.request_address(WorkerId(3), None, 0, listen_request(&at("0.0.0.0:80")));
    assert_eq!(entries.reserved_by(7), [first, second], "it may be withdrawn");
    entries.drop_held_reservations(7, WorkerId(3));
    assert_eq!((entries.reserved_by(7), entries.reserved_by(8)), (vec![second], vec![first]));
}

#[test]
fn a_key_has_lapsed_with_its_last_reservation_unless_a_worker_that_counts_holds_it() {
    let now = Instant::now();
    let until = now + std::time::Duration::from_secs(1);
    for counts in [true, false] {
        let mut entries = AddressTable::default();
        let key = bind(&mut entries, WorkerId(1), "0.0.0.0:80", "0.0.0.0:80");
        entries.reserve(key, 7);
        entries.expire_reservations(now, Some(until), |_| false, |_| counts);
        assert_eq!(entries.deadline(), None, "the slot has no worker that is up");
        for at in [now, until] {
            entries.expire_reservations(at, Some(until), |slot| slot == 7, |_| counts);
            assert_eq!(entries.deadline(), (at < until).then_some(until));
        }
        assert_eq!((entries.reserved_by(7), entries.has_lapsed(key)), (vec![], !counts));
    }
}

#[test]
fn an_address_that_is_being_closed_is_not_shared_and_then_gone() {
    let mut entries = AddressTable::default();
    let key = bind(&mut entries, WorkerId(1), "0.0.0.0:80", "0.0.0.0:80");
    entries.unbind(key);
    assert!(unused(&entries).is_empty());
    assert_eq!(request_address(&mut entries, WorkerId(2), "0.0.0.0:80"), Resolution::Bind(key + 1));
    assert_eq!(request_address(&mut entries, WorkerId(1), "0.0.0.0:80"), Resolution::Wait);
    entries.unbound(key);
    assert_eq!(entries.held_by(WorkerId(1)), [key + 1]);
    entries.bound(key + 1, Err(98));
    assert!(entries.is_empty());
}

#[test]
fn the_first_data_is_for_all_workers_and_forgotten_with_the_key() {
    let mut entries = AddressTable::default();
    let address = at("0.0.0.0:80");
    let with = |data: Option<&str>| ListenRequest {
        address: &address,
        rights: None,
        again: false,
        open_max: None,
        data: data.map(|text| text.as_bytes().to_vec()),
    };
    assert_eq!(entries.request_address(WorkerId(1), Some(1), 0, with(None)), Resolution::Bind(1));
    assert_eq!(entries.data(1), None);
    assert_eq!(
        entries.request_address(WorkerId(2), Some(2), 0, with(Some("first"))),
        Resolution::Wait
    );
    assert_eq!(
        entries.request_address(WorkerId(3), Some(3), 0, with(Some("second"))),
        Resolution::Wait
    );
    assert_eq!(entries.data(1), Some(&b"first"[..]));
    entries.bound(1, Err(98));
    assert_eq!(entries.data(1), None);
}

#[test]
fn only_a_datagram_address_can_be_held_twice_and_only_on_request() {
    let mut entries = AddressTable::default();
    let udp = Address::Udp { address: "0.0.0.0:53".parse().unwrap(), v6_only: false };
    let (tcp, mut twice) = (at("0.0.0.0:53"), |address: &Address, again| {
        let listen_request = |again| ListenRequest { again, ..self::listen_request(address) };
        entries.request_address(WorkerId(1), Some(1), 0, listen_request(again));
        entries.request_address(WorkerId(1), Some(1), 0, listen_request(again))
    });
    assert_eq!(twice(&tcp, true), Resolution::Refuse(EADDRINUSE));
    assert_eq!(twice(&udp, false), Resolution::Refuse(EADDRINUSE));
    assert_eq!(twice(&udp, true), Resolution::Wait);
}

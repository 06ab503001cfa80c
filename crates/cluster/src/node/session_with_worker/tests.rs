//! The messages of a Node worker, as a session of the primary answers them.

use super::*;

fn parse(text: &str) -> Message {
    serde_json::from_str(&format!(r#"{{"cmd":"NODE_CLUSTER",{text}}}"#)).unwrap()
}

fn text(message: &Message) -> String {
    serde_json::to_string(message).unwrap()
}

fn address() -> Address {
    Address::Tcp { address: "[::]:8124".parse().unwrap(), v6_only: false }
}

const QUERY: &str = r#""index":0,"data":null,"address":null,"port":8124,"addressType":4"#;

/// A worker that listens on key 5.
fn listening() -> SessionWithWorker<u32> {
    let mut session = SessionWithWorker::new();
    assert_eq!(session.receive(&parse(r#""act":"online","seq":0"#), true), FromWorker::Online);
    let query = format!(r#""act":"queryServer",{QUERY},"backlog":0,"seq":1"#);
    let (target, options) = (Target::Address(address()), ListenOptions::new());
    let requested = FromWorker::ListenRequested { request: 1, target, options };
    assert_eq!(session.receive(&parse(&query), true), requested);
    let reply = session.grant(1, 5, &address(), &mut None).unwrap();
    assert_eq!(
        text(&reply),
        concat!(
            r#"{"cmd":"NODE_CLUSTER","errno":0,"key":"5","ack":1,"data":null,"#,
            r#""sockname":{"address":"::","family":"IPv6","port":8124},"seq":0}"#
        )
    );
    let control = format!(r#""act":"listening",{QUERY},"seq":2"#);
    assert_eq!(session.receive(&parse(&control), true), FromWorker::Listening(5));
    session
}

/// Bun's servers of `http` bind by themselves, and their reports have no numbers.
#[test]
fn a_report_without_a_request_means_a_socket_of_the_workers_own() {
    let mut session = listening();
    let own = r#""act":"listening","port":80,"data":null,"address":"127.0.0.1","addressType":4"#;
    let address = Address::Tcp { address: "127.0.0.1:80".parse().unwrap(), v6_only: false };
    assert_eq!(session.receive(&parse(own), true), FromWorker::ListensAlone(address));
    // Node's report for a server that it has closed in the meantime.
    let late = format!(r#""act":"listening",{QUERY},"seq":9"#);
    session.receive(&parse(r#""act":"close","key":"5","seq":8"#), true);
    assert_eq!(session.receive(&parse(&late), true), FromWorker::Nothing);
    for nonsense in [r#""act":"listening""#, r#""act":"listening","addressType":4,"port":-7"#] {
        assert_eq!(session.receive(&parse(nonsense), true), FromWorker::Nothing, "{nonsense}");
    }
}

#[test]
fn a_worker_listens_gets_a_connection_and_takes_it() {
    let mut session = listening();
    let (message, ticket) = session.send(5, 77);
    assert_eq!(text(&message), r#"{"cmd":"NODE_CLUSTER","act":"newconn","key":"5","seq":1}"#);
    assert_eq!(session.acknowledged(ticket, true), FromWorker::Nothing);
    assert!(!session.is_empty(), "the connection is not answered");
    let taken = FromWorker::Answered { key: 5, nth: 0, answer: Answer::Taken };
    assert_eq!(session.receive(&parse(r#""ack":1,"accepted":true,"seq":3"#), true), taken);
    assert!(session.is_empty());
    let again = session.receive(&parse(r#""ack":1,"accepted":true,"seq":4"#), true);
    assert_eq!(again, FromWorker::Nothing, "answered once");
}

#[test]
fn an_answer_counts_the_unanswered_connections_of_its_key_alone() {
    let mut session = listening();
    for connection in [10, 11, 12] {
        session.send(5, connection);
        session.send(6, connection + 10);
    }
    // Numbers 1 to 6 in turn for both keys.
    let declined = FromWorker::Answered { key: 5, nth: 1, answer: Answer::Declined(11) };
    assert_eq!(session.receive(&parse(r#""ack":3,"accepted":false"#), true), declined);
    let lost = FromWorker::Answered { key: 6, nth: 2, answer: Answer::Lost(22) };
    assert_eq!(session.acknowledged(6, false), lost);
    let declined = FromWorker::Answered { key: 5, nth: 0, answer: Answer::Declined(10) };
    assert_eq!(session.receive(&parse(r#""ack":1"#), true), declined, "nothing is no yes");
    assert_eq!((session.reclaim(6), session.reclaim(5)), (vec![20, 21], vec![12]));
    assert_eq!(session.acknowledged(6, false), FromWorker::Nothing);
}

#[test]
fn a_worker_is_asked_to_disconnect_or_acknowledged_and_only_once() {
    for suicide in [false, true] {
        let mut session = listening();
        let request =
            if suicide { r#""act":"suicide""# } else { r#""act":"exitedAfterDisconnect","seq":9"# };
        let FromWorker::DisconnectRequested(reply) = session.receive(&parse(request), true) else {
            panic!()
        };
        let reply = reply.map(|reply| text(&reply));
        let expected = r#"{"cmd":"NODE_CLUSTER","ack":9,"seq":1}"#.to_owned();
        assert_eq!(reply, (!suicide).then_some(expected));
        assert_eq!(session.disconnect(), None);
    }
    let mut session = listening();
    let message = session.disconnect().map(|message| text(&message));
    assert_eq!(message.unwrap(), r#"{"cmd":"NODE_CLUSTER","act":"disconnect","seq":1}"#);
    assert_eq!(session.disconnect(), None);
    let request = session.receive(&parse(r#""act":"exitedAfterDisconnect","seq":9"#), true);
    assert_eq!(request, FromWorker::DisconnectRequested(None), "its answer is on the way");
}

#[test]
fn a_request_that_fails_is_answered_with_the_reason_unless_the_worker_is_to_end() {
    let mut session: SessionWithWorker<u32> = SessionWithWorker::new();
    for seq in [4, 5] {
        session.receive(&parse(&format!(r#""act":"queryServer",{QUERY},"seq":{seq}"#)), true);
    }
    let reply = session.refuse(1, 98).unwrap();
    assert_eq!(text(&reply), r#"{"cmd":"NODE_CLUSTER","errno":-98,"ack":4,"data":null,"seq":0}"#);
    assert_eq!(session.refuse(2, ECANCELED), None);
    assert_eq!(session.refuse(2, 98), None, "answered once");
    let late = session.receive(&parse(&format!(r#""act":"listening",{QUERY}"#)), true);
    assert_eq!(late, FromWorker::Nothing);
}

#[test]
fn a_query_that_names_no_address_is_refused_at_once() {
    let mut session: SessionWithWorker<u32> = SessionWithWorker::new();
    let query = r#""act":"queryServer","address":"a host","port":1,"addressType":4,"seq":3"#;
    let FromWorker::InvalidRequest(reply) = session.receive(&parse(query), true) else { panic!() };
    assert_eq!((reply.errno, reply.ack), (Some(-22), Some(3)));
    assert_eq!(session.refuse(1, 98), None, "the request is answered");
}

/// The primary keeps the path and the data, so both have a limit.
#[test]
fn a_query_with_a_path_or_data_over_the_limit_is_refused_at_once() {
    for (length, data, expected) in [
        (4096, ListenOptions::DATA_BYTES_MAX - 2, None),
        (4097, 0, Some(-36)),
        (1, ListenOptions::DATA_BYTES_MAX - 1, Some(-90)),
    ] {
        let mut session: SessionWithWorker<u32> = SessionWithWorker::new();
        let (path, data) = ("/".repeat(length), "d".repeat(data));
        let query = format!(
            r#""act":"queryServer","address":"{path}","addressType":-1,"data":"{data}","seq":3"#
        );
        match session.receive(&parse(&query), true) {
            FromWorker::InvalidRequest(reply) => assert_eq!(reply.errno, expected),
            FromWorker::ListenRequested { .. } => assert_eq!(expected, None),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_shared_socket_that_does_not_arrive_is_a_refusal() {
    let mut session: SessionWithWorker<u32> = SessionWithWorker::new();
    let query = QUERY.replace("\"data\":null", r#""data":{"ticketKeys":"00"}"#);
    session.receive(&parse(&format!(r#""act":"queryServer",{query},"seq":0"#)), true);
    let mut data = None;
    let (message, ticket) = session.grant_socket(1, 3, &mut data).unwrap();
    assert_eq!(data, Some(serde_json::json!({ "ticketKeys": "00" })), "the first decides");
    assert_eq!(
        text(&message),
        concat!(
            r#"{"cmd":"NODE_CLUSTER","errno":0,"key":"3","ack":0,"#,
            r#""data":{"ticketKeys":"00"},"seq":0}"#
        )
    );
    let FromWorker::SocketNotTaken { key: 3, message } = session.acknowledged(ticket, false) else {
        panic!()
    };
    assert_eq!((message.errno, message.ack), (Some(-24), Some(0)));
    assert_eq!(session.acknowledged(ticket, false), FromWorker::Nothing);
}

#[test]
fn sockets_of_one_address_have_names_of_their_own() {
    let mut session: SessionWithWorker<u32> = SessionWithWorker::new();
    let mut bind = |seq: u32, request| {
        let query = QUERY.replace("4\"", "\"udp4\"");
        session.receive(&parse(&format!(r#""act":"queryServer",{query},"seq":{seq}"#)), true);
        let (message, ticket) = session.grant_socket(request, 3, &mut None).unwrap();
        session.acknowledged(ticket, true);
        message.key.unwrap()
    };
    assert_eq!([bind(0, 1), bind(1, 2), bind(2, 3)], ["3", "3.2", "3.3"]);
    for name in ["3.2", "3"] {
        let closed = session.receive(&parse(&format!(r#""act":"close","key":"{name}""#)), true);
        assert_eq!(closed, FromWorker::ListenerClosed(3));
    }
    let again = session.receive(&parse(r#""act":"close","key":"3""#), true);
    assert_eq!(again, FromWorker::Nothing, "the socket is closed");
}

#[test]
fn a_server_that_was_closed_and_opened_again_is_another() {
    let mut session = listening();
    assert_eq!(
        session.receive(&parse(r#""act":"close","key":"5""#), true),
        FromWorker::ListenerClosed(5)
    );
    let control = format!(r#""act":"listening",{QUERY}"#);
    assert_eq!(session.receive(&parse(&control), true), FromWorker::Nothing);
    session.receive(&parse(&format!(r#""act":"queryServer",{QUERY},"seq":7"#)), true);
    session.grant(2, 6, &address(), &mut None).unwrap();
    assert_eq!(session.receive(&parse(&control), true), FromWorker::Listening(6));
}

#[test]
fn nonsense_changes_nothing() {
    let mut session = listening();
    for nonsense in [
        r#""act":"close""#,
        r#""act":"close","key":"x""#,
        r#""act":"queryServer","port":1"#,
        r#""act":"unknown","seq":1"#,
        r#""ack":99,"accepted":true"#,
        r#""seq":1"#,
    ] {
        assert_eq!(session.receive(&parse(nonsense), true), FromWorker::Nothing, "{nonsense}");
    }
    let foreign = serde_json::from_str(r#"{"cmd":"NODE_DEBUG_ENABLED"}"#).unwrap();
    assert_eq!(session.receive(&foreign, true), FromWorker::Nothing);
}

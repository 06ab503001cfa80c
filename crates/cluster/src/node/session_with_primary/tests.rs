//! The messages of a Rust worker to a Node primary, byte for byte.

use super::*;

fn tcp(text: &str) -> Address {
    Address::Tcp { address: text.parse().unwrap(), v6_only: false }
}

fn udp(text: &str, v6_only: bool) -> Address {
    Address::Udp { address: text.parse().unwrap(), v6_only }
}

fn receive(session: &mut SessionWithPrimary, text: &str) -> FromPrimary {
    session.receive(&serde_json::from_str(&format!(r#"{{"cmd":"NODE_CLUSTER",{text}}}"#)).unwrap())
}

fn request_listen(session: &mut SessionWithPrimary, request: u32, address: &Address) -> String {
    let message = session
        .request_listen(request, address, &ListenOptions::new(), Path::new("/here"))
        .unwrap();
    serde_json::to_string(&message).unwrap()
}

fn text<T: Serialize>(message: T) -> String {
    serde_json::to_string(&message).unwrap()
}

#[test]
fn a_worker_sends_the_messages_of_a_node_worker() {
    let mut session = SessionWithPrimary::default();
    assert_eq!(text(session.online()), r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#);
    assert_eq!(
        request_listen(&mut session, 1, &tcp("[::]:8124")),
        concat!(
            r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"#,
            r#""address":null,"port":8124,"addressType":4,"backlog":511,"seq":1}"#
        )
    );
    let granted =
        FromPrimary::Granted { request: 1, key: 1, address: tcp("[::]:8124"), backlog: 511 };
    let reply = r#""errno":null,"key":"null:8124:4:undefined:0","ack":1,"data":null,
        "sockname":{"address":"::","family":"IPv6","port":8124},"seq":0"#;
    assert_eq!(receive(&mut session, reply), granted);
    let listening = text(session.listening(1).unwrap());
    assert!(
        listening.starts_with(r#"{"cmd":"NODE_CLUSTER","act":"listening","index":0,"#),
        "{listening}"
    );
    let connection = r#""act":"newconn","key":"null:8124:4:undefined:0","seq":7"#;
    assert_eq!(
        receive(&mut session, connection),
        FromPrimary::Connection { key: Some(1), number: 7 }
    );
    assert_eq!(
        text(session.answer(7, true)),
        r#"{"cmd":"NODE_CLUSTER","ack":7,"accepted":true,"seq":3}"#
    );
    assert_eq!(
        text(session.close(1).unwrap()),
        r#"{"cmd":"NODE_CLUSTER","act":"close","key":"null:8124:4:undefined:0","seq":4}"#
    );
    assert_eq!(session.close(1), None);
    assert_eq!(receive(&mut session, connection), FromPrimary::Connection { key: None, number: 7 });
}

#[test]
fn every_kind_of_address_is_written_as_node_writes_it() {
    for (address, fields) in [
        (tcp("127.0.0.1:0"), r#""address":"127.0.0.1","port":0,"addressType":4,"flags":0"#),
        (tcp("[::1]:80"), r#""address":"::1","port":80,"addressType":6,"flags":0"#),
        (
            Address::Tcp { address: "[::]:80".parse().unwrap(), v6_only: true },
            r#""address":"::","port":80,"addressType":6,"flags":1"#,
        ),
        (
            udp("0.0.0.0:0", false),
            r#""address":"0.0.0.0","port":0,"addressType":"udp4","fd":-1,"flags":0,"seq""#,
        ),
        (
            Address::UnixPath("x.sock".into()),
            r#""address":"/here/x.sock","port":-1,"addressType":-1,"backlog""#,
        ),
        (
            Address::UnixAbstract(b"name".to_vec()),
            r#""address":"\u0000name","port":-1,"addressType":-1,"backlog""#,
        ),
    ] {
        let message = request_listen(&mut SessionWithPrimary::default(), 1, &address);
        assert!(message.contains(fields), "{message}");
    }
    let options = ListenOptions::new().backlog(5).readable_all(true).reuse_address(true);
    let path = Address::UnixPath("/x.sock".into());
    let message = text(
        SessionWithPrimary::default().request_listen(1, &path, &options, Path::new("/")).unwrap(),
    );
    assert!(
        message.contains(r#""addressType":-1,"backlog":5,"readableAll":true,"seq""#),
        "{message}"
    );
    let message = text(SessionWithPrimary::default().request_listen(
        1,
        &udp("[::]:0", true),
        &options,
        Path::new("/"),
    ));
    assert!(message.contains(r#""addressType":"udp6","fd":-1,"flags":5,"seq""#), "{message}");
    let odd = Address::UnixAbstract(vec![0xff]);
    let refused = SessionWithPrimary::default().request_listen(
        1,
        &odd,
        &ListenOptions::new(),
        Path::new("/"),
    );
    assert_eq!(refused, Err(EINVAL));
}

#[test]
fn indexes_go_on_until_all_listeners_are_closed_and_then_begin_again() {
    let mut session = SessionWithPrimary::default();
    let port_0 = tcp("127.0.0.1:0");
    assert!(request_listen(&mut session, 1, &port_0).contains(r#""index":0,"#));
    assert!(request_listen(&mut session, 2, &port_0).contains(r#""index":1,"#));
    assert!(request_listen(&mut session, 3, &tcp("127.0.0.1:80")).contains(r#""index":0,"#));
    receive(&mut session, r#""key":"a","ack":0"#);
    receive(&mut session, r#""key":"b","ack":1"#);
    session.close(1);
    assert!(request_listen(&mut session, 4, &port_0).contains(r#""index":2,"#));
    session.close(2);
    assert_eq!(
        receive(&mut session, r#""errno":-98,"ack":4"#),
        FromPrimary::Refused { request: 4, errno: 98 }
    );
    assert!(request_listen(&mut session, 5, &port_0).contains(r#""index":0,"#));
}

#[test]
fn a_disconnecting_worker_closes_first_and_takes_connections_until_the_acknowledgement() {
    let mut session = SessionWithPrimary::default();
    request_listen(&mut session, 1, &tcp("127.0.0.1:80"));
    receive(&mut session, r#""key":"k","ack":0"#);
    let (closes, request) = session.request_disconnect().unwrap();
    let closes: Vec<String> = closes.into_iter().map(text).collect();
    assert_eq!(closes, [r#"{"cmd":"NODE_CLUSTER","act":"close","key":"k","seq":1}"#]);
    assert_eq!(text(request), r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":2}"#);
    let connection = r#""act":"newconn","key":"k","seq":3"#;
    assert_eq!(
        receive(&mut session, connection),
        FromPrimary::Connection { key: Some(1), number: 3 }
    );
    assert_eq!(receive(&mut session, r#""ack":2"#), FromPrimary::DisconnectAcknowledged);
    assert_eq!(session.request_disconnect(), None);
    assert_eq!(session.close(1), None, "the message was sent before");
}

#[test]
fn nonsense_changes_nothing() {
    let mut session = SessionWithPrimary::default();
    for nonsense in [r#""ack":9"#, r#""act":"newconn""#, r#""act":"unknown","seq":1"#, r#""seq":1"#]
    {
        assert_eq!(receive(&mut session, nonsense), FromPrimary::Nothing, "{nonsense}");
    }
    assert_eq!(receive(&mut session, r#""act":"disconnect","seq":1"#), FromPrimary::Disconnect);
    request_listen(&mut session, 1, &tcp("127.0.0.1:80"));
    let keyless = receive(&mut session, r#""ack":0,"errno":0"#);
    assert_eq!(keyless, FromPrimary::Refused { request: 1, errno: EINVAL });
}

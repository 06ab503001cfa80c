//! A Rust worker in a Node primary's cluster: what its runtime wants becomes messages, and what
//! the primary says becomes news.
//!
//! Listeners have numbers of our own here; the primary's keys are its own words and may be any.
//! The wish for an IPv6 wildcard is put as Node puts a `listen` without a host, so that workers of
//! both kinds share it.
//!
//! Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;
use sys::errno::{EINVAL, EOPNOTSUPP};

use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

use super::query::{IPV6_ONLY, REUSE_ADDRESS};
use super::wire::{CLUSTER, Message};

/// The worker's side of the conversation.
#[derive(Debug, Default)]
pub(crate) struct WorkerSession {
    /// Of our next message.
    seq: i64,
    /// Wishes without an answer, by their `seq`.
    asked: BTreeMap<i64, (u32, Wish)>,
    last_key: u32,
    open: BTreeMap<u32, Open>,
    /// For each address: its next index, and how many listeners hold one.
    indexes: HashMap<Address, (i64, u32)>,
    /// The `seq` of the wish to leave.
    leaving: Option<i64>,
}

/// What a listener was asked for by.
#[derive(Clone, Debug, PartialEq)]
struct Wish {
    address: Address,
    index: i64,
    options: ListenOptions,
}

/// A listener.
#[derive(Debug)]
struct Open {
    /// The primary's name for it.
    theirs: String,
    wish: Wish,
    /// Where the kernel or the primary chose it.
    port: Option<u16>,
    told_close: bool,
}

/// What the primary said.
#[derive(Debug, PartialEq)]
pub(crate) enum FromPrimary {
    /// Nothing that matters here.
    Nothing,
    /// The listener has this number, and this address as far as the primary says.
    Granted {
        request: u32,
        key: u32,
        address: Address,
        backlog: u32,
    },
    Refused {
        request: u32,
        errno: i32,
    },
    /// A connection for this listener, to be answered by this number.
    Connection {
        key: Option<u32>,
        number: i64,
    },
    /// Finish what you have, then end.
    Disconnect,
    /// It knows that we leave, and has sent all it will.
    MayLeave,
}

/// A wish to listen, or news that it came true.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ask {
    cmd: &'static str,
    act: &'static str,
    index: i64,
    data: (),
    /// Always there: to Node a missing one is another than none.
    address: Option<String>,
    port: i64,
    address_type: AddressType,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backlog: Option<u32>,
    #[serde(skip_serializing_if = "is_false")]
    readable_all: bool,
    #[serde(skip_serializing_if = "is_false")]
    writable_all: bool,
    seq: i64,
}

/// 4, 6, or -1 for a path; `udp4` or `udp6`.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum AddressType {
    Stream(i64),
    Datagram(&'static str),
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_false(it: &bool) -> bool {
    !it
}

impl WorkerSession {
    /// The first message.
    pub(crate) fn online(&mut self) -> Message {
        Message::act("online", self.next())
    }

    /// Asks to listen; relative paths are meant from `here`.
    ///
    /// # Errors
    ///
    /// An errno when Node's words cannot say it.
    pub(crate) fn ask(
        &mut self,
        request: u32,
        address: &Address,
        options: &ListenOptions,
        here: &Path,
    ) -> Result<Ask, i32> {
        let address = match address {
            Address::UnixPath(path) => Address::UnixPath(here.join(path)),
            other => other.clone(),
        };
        let (next, held) = self.indexes.entry(address.clone()).or_default();
        let wish = Wish { address, index: *next, options: options.clone() };
        let seq = self.seq;
        let ask = ask("queryServer", &wish, None, seq)?;
        (*next, *held) = (*next + 1, *held + 1);
        self.seq += 1;
        self.asked.insert(seq, (request, wish));
        Ok(ask)
    }

    /// Tells that the listener is in use, with its real port.
    pub(crate) fn listening(&mut self, key: u32) -> Option<Ask> {
        let seq = self.next();
        let open = self.open.get(&key)?;
        ask("listening", &open.wish, open.port, seq).ok()
    }

    /// The listener turned out to have this port.
    pub(crate) fn bound(&mut self, key: u32, port: u16) {
        if let Some(open) = self.open.get_mut(&key) {
            open.port = Some(port);
        }
    }

    /// Tells that the listener is closed.
    pub(crate) fn close(&mut self, key: u32) -> Option<Message> {
        let open = self.open.remove(&key)?;
        self.release(&open.wish);
        (!open.told_close).then(|| self.closed(open.theirs))
    }

    /// Answers for a connection.
    pub(crate) fn answer(&mut self, seq: i64, accepted: bool) -> Message {
        let mut message = Message::answer(seq, self.next());
        message.accepted = Some(accepted);
        message
    }

    /// Tells that this worker leaves, after `close` for each of its listeners; only the first time.
    pub(crate) fn leave(&mut self) -> Option<(Vec<Message>, Message)> {
        if self.leaving.is_some() {
            return None;
        }
        let mut closing = Vec::new();
        for open in self.open.values_mut() {
            // They stay known: what is on its way to them is still taken.
            if !std::mem::replace(&mut open.told_close, true) {
                closing.push(open.theirs.clone());
            }
        }
        let closes = closing.into_iter().map(|theirs| self.closed(theirs)).collect();
        let seq = self.next();
        self.leaving = Some(seq);
        Some((closes, Message::act("exitedAfterDisconnect", seq)))
    }

    /// Takes a message of the primary.
    pub(crate) fn receive(&mut self, message: &Message) -> FromPrimary {
        if !message.is_cluster() {
            return FromPrimary::Nothing;
        }
        match (message.ack, message.act.as_deref()) {
            (Some(ack), _) if self.leaving == Some(ack) => FromPrimary::MayLeave,
            (Some(ack), _) => self.answered(ack, message),
            (None, Some("newconn")) => {
                let Some(seq) = message.seq else { return FromPrimary::Nothing };
                let theirs = message.key.as_deref();
                let open = self.open.iter().find(|(_, open)| Some(open.theirs.as_str()) == theirs);
                FromPrimary::Connection { key: open.map(|(key, _)| *key), number: seq }
            }
            (None, Some("disconnect")) => FromPrimary::Disconnect,
            (None, _) => FromPrimary::Nothing,
        }
    }

    fn answered(&mut self, ack: i64, message: &Message) -> FromPrimary {
        let Some((request, wish)) = self.asked.remove(&ack) else { return FromPrimary::Nothing };
        let errno = message.errno.unwrap_or(0);
        let Some(theirs) = message.key.clone().filter(|_| errno == 0) else {
            self.release(&wish);
            let errno = i32::try_from(errno.unsigned_abs()).ok().filter(|errno| *errno != 0);
            return FromPrimary::Refused { request, errno: errno.unwrap_or(EINVAL) };
        };
        self.last_key += 1;
        let key = self.last_key;
        let port = message.sockname.as_ref().and_then(|name| u16::try_from(name.port?).ok());
        let mut address = wish.address.clone();
        if let (Address::Tcp { address, .. }, Some(port)) = (&mut address, port) {
            address.set_port(port);
        }
        let backlog = wish.options.backlog;
        self.open.insert(key, Open { theirs, wish, port, told_close: false });
        FromPrimary::Granted { request, key, address, backlog }
    }

    fn closed(&mut self, theirs: String) -> Message {
        let mut message = Message::act("close", self.next());
        message.key = Some(theirs);
        message
    }

    fn release(&mut self, wish: &Wish) {
        if let Some((_, held)) = self.indexes.get_mut(&wish.address) {
            *held -= 1;
            if *held == 0 {
                self.indexes.remove(&wish.address);
            }
        }
    }

    fn next(&mut self) -> i64 {
        self.seq += 1;
        self.seq - 1
    }
}

/// Puts a wish into Node's words.
fn ask(act: &'static str, wish: &Wish, real_port: Option<u16>, seq: i64) -> Result<Ask, i32> {
    let Wish { address, index, options } = wish;
    let mut ask = Ask {
        cmd: CLUSTER,
        act,
        index: *index,
        data: (),
        address: None,
        port: -1,
        address_type: AddressType::Stream(-1),
        fd: None,
        flags: None,
        backlog: Some(options.backlog),
        readable_all: false,
        writable_all: false,
        seq,
    };
    match address {
        Address::Tcp { address, v6_only } => {
            ask.port = real_port.unwrap_or(address.port()).into();
            ask.address_type = AddressType::Stream(if address.is_ipv6() { 6 } else { 4 });
            ask.flags = Some(i64::from(*v6_only) * IPV6_ONLY);
            ask.address = Some(host(address));
            if address.is_ipv6() && address.ip().is_unspecified() && !v6_only {
                ask.address_type = AddressType::Stream(4);
                (ask.address, ask.flags) = (None, None);
            }
        }
        Address::Udp { address, v6_only } => {
            ask.port = real_port.unwrap_or(address.port()).into();
            let kind = if address.is_ipv6() { "udp6" } else { "udp4" };
            ask.address_type = AddressType::Datagram(kind);
            (ask.address, ask.fd, ask.backlog) = (Some(host(address)), Some(-1), None);
            let reuse = i64::from(options.reuse_address) * REUSE_ADDRESS;
            ask.flags = Some((i64::from(*v6_only) * IPV6_ONLY) | reuse);
        }
        Address::UnixPath(path) => {
            ask.address = Some(path.to_str().ok_or(EINVAL)?.to_owned());
            (ask.readable_all, ask.writable_all) = (options.readable_all, options.writable_all);
        }
        Address::UnixAbstract(name) => {
            let name = std::str::from_utf8(name).map_err(|_| EINVAL)?;
            ask.address = Some(format!("\0{name}"));
        }
        Address::DatagramPath(_) | Address::DatagramAbstract(_) | Address::Inherited(_) => {
            // Node knows neither Unix datagrams nor names for sockets.
            return Err(EOPNOTSUPP);
        }
    }
    Ok(ask)
}

fn host(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.ip().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Address {
        Address::Tcp { address: text.parse().unwrap(), v6_only: false }
    }

    fn udp(text: &str, v6_only: bool) -> Address {
        Address::Udp { address: text.parse().unwrap(), v6_only }
    }

    fn say(session: &mut WorkerSession, text: &str) -> FromPrimary {
        session
            .receive(&serde_json::from_str(&format!(r#"{{"cmd":"NODE_CLUSTER",{text}}}"#)).unwrap())
    }

    fn asks(session: &mut WorkerSession, request: u32, address: &Address) -> String {
        let ask = session.ask(request, address, &ListenOptions::new(), Path::new("/here")).unwrap();
        serde_json::to_string(&ask).unwrap()
    }

    fn text<T: Serialize>(message: T) -> String {
        serde_json::to_string(&message).unwrap()
    }

    #[test]
    fn a_worker_says_what_a_node_worker_says() {
        let mut session = WorkerSession::default();
        assert_eq!(text(session.online()), r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#);
        assert_eq!(
            asks(&mut session, 1, &tcp("[::]:8124")),
            concat!(
                r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"#,
                r#""address":null,"port":8124,"addressType":4,"backlog":511,"seq":1}"#
            )
        );
        let granted =
            FromPrimary::Granted { request: 1, key: 1, address: tcp("[::]:8124"), backlog: 511 };
        let reply = r#""errno":null,"key":"null:8124:4:undefined:0","ack":1,"data":null,
            "sockname":{"address":"::","family":"IPv6","port":8124},"seq":0"#;
        assert_eq!(say(&mut session, reply), granted);
        let control = text(session.listening(1).unwrap());
        assert!(
            control.starts_with(r#"{"cmd":"NODE_CLUSTER","act":"listening","index":0,"#),
            "{control}"
        );
        let come = r#""act":"newconn","key":"null:8124:4:undefined:0","seq":7"#;
        assert_eq!(say(&mut session, come), FromPrimary::Connection { key: Some(1), number: 7 });
        assert_eq!(
            text(session.answer(7, true)),
            r#"{"cmd":"NODE_CLUSTER","ack":7,"accepted":true,"seq":3}"#
        );
        assert_eq!(
            text(session.close(1).unwrap()),
            r#"{"cmd":"NODE_CLUSTER","act":"close","key":"null:8124:4:undefined:0","seq":4}"#
        );
        assert_eq!(session.close(1), None);
        assert_eq!(say(&mut session, come), FromPrimary::Connection { key: None, number: 7 });
    }

    #[test]
    fn every_address_has_its_words() {
        for (address, words) in [
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
            let said = asks(&mut WorkerSession::default(), 1, &address);
            assert!(said.contains(words), "{said}");
        }
        let options = ListenOptions::new().backlog(5).readable_all(true).reuse_address(true);
        let path = Address::UnixPath("/x.sock".into());
        let said = text(WorkerSession::default().ask(1, &path, &options, Path::new("/")).unwrap());
        assert!(
            said.contains(r#""addressType":-1,"backlog":5,"readableAll":true,"seq""#),
            "{said}"
        );
        let said =
            text(WorkerSession::default().ask(1, &udp("[::]:0", true), &options, Path::new("/")));
        assert!(said.contains(r#""addressType":"udp6","fd":-1,"flags":5,"seq""#), "{said}");
        let odd = Address::UnixAbstract(vec![0xff]);
        let refused = WorkerSession::default().ask(1, &odd, &ListenOptions::new(), Path::new("/"));
        assert_eq!(refused, Err(EINVAL));
    }

    #[test]
    fn indexes_go_on_until_all_are_closed_and_then_begin_anew() {
        let mut session = WorkerSession::default();
        let port_0 = tcp("127.0.0.1:0");
        assert!(asks(&mut session, 1, &port_0).contains(r#""index":0,"#));
        assert!(asks(&mut session, 2, &port_0).contains(r#""index":1,"#));
        assert!(asks(&mut session, 3, &tcp("127.0.0.1:80")).contains(r#""index":0,"#));
        say(&mut session, r#""key":"a","ack":0"#);
        say(&mut session, r#""key":"b","ack":1"#);
        session.close(1);
        assert!(asks(&mut session, 4, &port_0).contains(r#""index":2,"#));
        session.close(2);
        assert_eq!(
            say(&mut session, r#""errno":-98,"ack":4"#),
            FromPrimary::Refused { request: 4, errno: 98 }
        );
        assert!(asks(&mut session, 5, &port_0).contains(r#""index":0,"#));
    }

    #[test]
    fn who_leaves_closes_first_and_takes_what_is_on_its_way_until_the_answer() {
        let mut session = WorkerSession::default();
        asks(&mut session, 1, &tcp("127.0.0.1:80"));
        say(&mut session, r#""key":"k","ack":0"#);
        let (closes, leave) = session.leave().unwrap();
        let closes: Vec<String> = closes.into_iter().map(text).collect();
        assert_eq!(closes, [r#"{"cmd":"NODE_CLUSTER","act":"close","key":"k","seq":1}"#]);
        assert_eq!(text(leave), r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":2}"#);
        let come = r#""act":"newconn","key":"k","seq":3"#;
        assert_eq!(say(&mut session, come), FromPrimary::Connection { key: Some(1), number: 3 });
        assert_eq!(say(&mut session, r#""ack":2"#), FromPrimary::MayLeave);
        assert_eq!(session.leave(), None);
        assert_eq!(session.close(1), None, "that was said");
    }

    #[test]
    fn nonsense_changes_nothing() {
        let mut session = WorkerSession::default();
        for nonsense in
            [r#""ack":9"#, r#""act":"newconn""#, r#""act":"unknown","seq":1"#, r#""seq":1"#]
        {
            assert_eq!(say(&mut session, nonsense), FromPrimary::Nothing, "{nonsense}");
        }
        assert_eq!(say(&mut session, r#""act":"disconnect","seq":1"#), FromPrimary::Disconnect);
        asks(&mut session, 1, &tcp("127.0.0.1:80"));
        let keyless = say(&mut session, r#""ack":0,"errno":0"#);
        assert_eq!(keyless, FromPrimary::Refused { request: 1, errno: EINVAL });
    }
}

//! The primary's desk for one Node worker: what the worker says becomes news for the core, and
//! what the core wants becomes messages.
//!
//! A connection rides on the channel and stays on the desk, as `H`, until it is answered for:
//! taken or declined by the worker, lost by its system, or taken back when the worker is gone.
//!
//! A worker leaves by one word only: it is told to disconnect, or its own wish to leave is
//! acknowledged. Told twice, a Node process fails.
//!
//! Pure.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use sys::errno::{ECANCELED, EMFILE};

use crate::contract::{Answer, Key};
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

use super::query::{Place, Query};
use super::wire::{Message, SockName};

/// A message with a number, under which the channel tells what became of its descriptor.
pub(crate) type Ticket = u64;

/// One worker.
#[derive(Debug)]
pub(crate) struct PrimarySession<H> {
    /// Of our next message.
    seq: i64,
    last_request: u32,
    /// Wishes that have no answer: with the number the answer must name.
    asked: BTreeMap<u32, Wish>,
    granted: Vec<Held>,
    /// Shared sockets on their way: which wish they answer.
    sockets: Vec<(Ticket, String, i64)>,
    /// Oldest first.
    unanswered: VecDeque<Unanswered<H>>,
    parted: bool,
}

#[derive(Debug)]
struct Wish {
    seq: i64,
    query: Query,
    /// What workers of one address share, offered by this one.
    data: Option<Value>,
}

/// A socket that the worker has.
#[derive(Debug)]
struct Held {
    /// What the two sides call it: a Node process fails over one name for two sockets.
    name: String,
    key: Key,
    query: Query,
}

#[derive(Debug)]
struct Unanswered<H> {
    seq: i64,
    key: Key,
    connection: H,
}

/// What a worker said.
#[derive(Debug, PartialEq)]
pub(crate) enum FromWorker<H> {
    /// Nothing that matters here.
    Nothing,
    Online,
    /// It wants to listen.
    Asked {
        request: u32,
        place: Place,
        options: ListenOptions,
    },
    /// The request to listen means no address; this message refuses it.
    Invalid(Box<Message>),
    Listening(Key),
    Closed(Key),
    /// It leaves, and waits for this message if there is one.
    Leaving(Option<Box<Message>>),
    /// It answered for the `nth` of the connections on this key.
    Answered {
        key: Key,
        nth: usize,
        answer: Answer<H>,
    },
    /// It could not take the socket it was granted, and is told so by this message.
    Refused {
        key: Key,
        message: Box<Message>,
    },
}

impl<H> PrimarySession<H> {
    pub(crate) fn new() -> Self {
        Self {
            seq: 0,
            last_request: 0,
            asked: BTreeMap::new(),
            granted: Vec::new(),
            sockets: Vec::new(),
            unanswered: VecDeque::new(),
            parted: false,
        }
    }

    /// Takes a message of the worker.
    pub(crate) fn receive(&mut self, message: &Message, ipv6: bool) -> FromWorker<H> {
        if !message.is_cluster() {
            return FromWorker::Nothing;
        }
        if let Some(ack) = message.ack {
            return self.answered(ack, message.accepted == Some(true));
        }
        match message.act.as_deref() {
            Some("online") => FromWorker::Online,
            Some("queryServer") => self.asked(message, ipv6),
            Some("listening") => {
                let control = Query::of(message);
                // The youngest: an older one of the same words was closed.
                let held = self.granted.iter().rev().find(|held| held.query.is_meant_by(&control));
                held.map_or(FromWorker::Nothing, |held| FromWorker::Listening(held.key))
            }
            Some("close") => {
                let name = message.key.as_deref();
                let at = self.granted.iter().position(|held| Some(held.name.as_str()) == name);
                at.map_or(FromWorker::Nothing, |at| FromWorker::Closed(self.granted.remove(at).key))
            }
            Some("exitedAfterDisconnect") => self.leaving(message.seq),
            // As the first versions of Node said it, without waiting for an answer.
            Some("suicide") => self.leaving(None),
            _ => FromWorker::Nothing,
        }
    }

    fn asked(&mut self, message: &Message, ipv6: bool) -> FromWorker<H> {
        // Without a number there is no way to answer.
        let Some(seq) = message.seq else { return FromWorker::Nothing };
        self.last_request += 1;
        let request = self.last_request;
        let query = Query::of(message);
        let place = match query.place(ipv6) {
            Ok(place) => place,
            Err(errno) => return FromWorker::Invalid(Box::new(self.refusal(seq, errno))),
        };
        let options = query.options();
        self.asked.insert(request, Wish { seq, query, data: message.data.clone() });
        FromWorker::Asked { request, place, options }
    }

    fn leaving(&mut self, seq: Option<i64>) -> FromWorker<H> {
        if std::mem::replace(&mut self.parted, true) {
            // It was told to disconnect, and that is its answer.
            return FromWorker::Leaving(None);
        }
        FromWorker::Leaving(seq.map(|seq| Box::new(Message::answer(seq, self.next()))))
    }

    fn answered(&mut self, seq: i64, accepted: bool) -> FromWorker<H> {
        let Some((key, nth, connection)) = self.settle(seq) else { return FromWorker::Nothing };
        let answer = if accepted { Answer::Taken } else { Answer::Declined(connection) };
        FromWorker::Answered { key, nth, answer }
    }

    /// What became of the descriptor of a message.
    pub(crate) fn acknowledged(&mut self, ticket: Ticket, taken: bool) -> FromWorker<H> {
        if let Some(at) = self.sockets.iter().position(|(sent, ..)| *sent == ticket) {
            let (_, name, ack) = self.sockets.remove(at);
            let held = self.granted.iter().position(|held| !taken && held.name == name);
            let Some(held) = held else { return FromWorker::Nothing };
            let key = self.granted.remove(held).key;
            let message = Box::new(self.refusal(ack, EMFILE));
            return FromWorker::Refused { key, message };
        }
        if taken {
            // Its own answer follows.
            return FromWorker::Nothing;
        }
        let seq = i64::try_from(ticket).unwrap_or(-1);
        let Some((key, nth, connection)) = self.settle(seq) else { return FromWorker::Nothing };
        FromWorker::Answered { key, nth, answer: Answer::Lost(connection) }
    }

    fn settle(&mut self, seq: i64) -> Option<(Key, usize, H)> {
        let at = self.unanswered.iter().position(|it| it.seq == seq)?;
        let Unanswered { key, connection, .. } = self.unanswered.remove(at)?;
        let nth = self.unanswered.iter().take(at).filter(|it| it.key == key).count();
        Some((key, nth, connection))
    }

    /// The answer to a wish: it gets its connections one by one. `data` is what the workers of
    /// this address share: the first who offers something decides.
    pub(crate) fn grant(
        &mut self,
        request: u32,
        key: Key,
        address: &Address,
        data: &mut Option<Value>,
    ) -> Option<Message> {
        let (_, mut message) = self.reply(request, key, data)?;
        message.sockname = sock_name(address);
        Some(message)
    }

    /// The answer to a wish: the socket itself goes with it.
    pub(crate) fn grant_socket(
        &mut self,
        request: u32,
        key: Key,
        data: &mut Option<Value>,
    ) -> Option<(Message, Ticket)> {
        let (ack, message) = self.reply(request, key, data)?;
        let ticket = ticket_of(&message);
        self.sockets.push((ticket, message.key.clone().unwrap_or_default(), ack));
        Some((message, ticket))
    }

    /// The answer to a wish that cannot be granted. None to a worker that is to leave anyway: its
    /// server would fail where all it has to do is go.
    pub(crate) fn refuse(&mut self, request: u32, errno: i32) -> Option<Message> {
        let ack = self.asked.remove(&request)?.seq;
        (errno != ECANCELED).then(|| self.refusal(ack, errno))
    }

    fn refusal(&mut self, ack: i64, errno: i32) -> Message {
        let mut message = Message::answer(ack, self.next());
        message.errno = Some(-i64::from(errno));
        message.data = Some(Value::Null);
        message
    }

    fn reply(
        &mut self,
        request: u32,
        key: Key,
        data: &mut Option<Value>,
    ) -> Option<(i64, Message)> {
        let wish = self.asked.remove(&request)?;
        let name = self.name(key);
        let mut message = Message::answer(wish.seq, self.next());
        message.errno = Some(0);
        message.key = Some(name.clone());
        self.granted.push(Held { name, key, query: wish.query });
        // TLS servers fail without the data they asked for.
        *data = data.take().or(wish.data);
        message.data = Some(data.clone().unwrap_or(Value::Null));
        Some((wish.seq, message))
    }

    /// A name that no socket of the worker has: datagram sockets may be had more than once.
    fn name(&self, key: Key) -> String {
        let is_free = |name: &String| self.granted.iter().all(|held| held.name != *name);
        let more = (2_u32..).map(|count| format!("{key}.{count}"));
        std::iter::once(key.to_string()).chain(more).find(is_free).expect("there are many")
    }

    /// Puts a connection on the desk; the message goes out with a copy of it.
    pub(crate) fn give(&mut self, key: Key, connection: H) -> (Message, Ticket) {
        let mut message = Message::act("newconn", self.next());
        message.key = Some(key.to_string());
        let ticket = ticket_of(&message);
        let seq = message.seq.unwrap_or_default();
        self.unanswered.push_back(Unanswered { seq, key, connection });
        (message, ticket)
    }

    /// The connection that was put there last did not get out.
    pub(crate) fn take_last(&mut self) -> Option<H> {
        self.unanswered.pop_back().map(|it| it.connection)
    }

    /// All that the worker will not answer any more, oldest first.
    pub(crate) fn reclaim(&mut self, key: Key) -> Vec<H> {
        let mut taken = Vec::new();
        for it in std::mem::take(&mut self.unanswered) {
            if it.key == key {
                taken.push(it.connection);
            } else {
                self.unanswered.push_back(it);
            }
        }
        taken
    }

    /// Tells the worker to leave; nothing when it does already.
    pub(crate) fn farewell(&mut self) -> Option<Message> {
        let parted = std::mem::replace(&mut self.parted, true);
        (!parted).then(|| Message::act("disconnect", self.next()))
    }

    /// No connection is on the desk.
    pub(crate) fn is_empty(&self) -> bool {
        self.unanswered.is_empty()
    }

    fn next(&mut self) -> i64 {
        self.seq += 1;
        self.seq - 1
    }
}

fn ticket_of(message: &Message) -> Ticket {
    message.seq.and_then(|seq| u64::try_from(seq).ok()).expect("ours are counted from 0")
}

/// What `server.address()` is to show; nothing for a socket with a path.
fn sock_name(address: &Address) -> Option<SockName> {
    match address {
        Address::Tcp { address, .. } => Some((*address).into()),
        Address::UnixPath(_)
        | Address::UnixAbstract(_)
        | Address::Udp { .. }
        | Address::DatagramPath(_)
        | Address::DatagramAbstract(_)
        | Address::Inherited(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Message {
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
    fn listening() -> PrimarySession<u32> {
        let mut session = PrimarySession::new();
        assert_eq!(session.receive(&said(r#""act":"online","seq":0"#), true), FromWorker::Online);
        let ask = format!(r#""act":"queryServer",{QUERY},"backlog":0,"seq":1"#);
        let (place, options) = (Place::At(address()), ListenOptions::new());
        let asked = FromWorker::Asked { request: 1, place, options };
        assert_eq!(session.receive(&said(&ask), true), asked);
        let reply = session.grant(1, 5, &address(), &mut None).unwrap();
        assert_eq!(
            text(&reply),
            concat!(
                r#"{"cmd":"NODE_CLUSTER","errno":0,"key":"5","ack":1,"data":null,"#,
                r#""sockname":{"address":"::","family":"IPv6","port":8124},"seq":0}"#
            )
        );
        let control = format!(r#""act":"listening",{QUERY},"seq":2"#);
        assert_eq!(session.receive(&said(&control), true), FromWorker::Listening(5));
        session
    }

    #[test]
    fn a_worker_listens_gets_a_connection_and_takes_it() {
        let mut session = listening();
        let (message, ticket) = session.give(5, 77);
        assert_eq!(text(&message), r#"{"cmd":"NODE_CLUSTER","act":"newconn","key":"5","seq":1}"#);
        assert_eq!(session.acknowledged(ticket, true), FromWorker::Nothing);
        assert!(!session.is_empty(), "it was not used yet");
        let taken = FromWorker::Answered { key: 5, nth: 0, answer: Answer::Taken };
        assert_eq!(session.receive(&said(r#""ack":1,"accepted":true,"seq":3"#), true), taken);
        assert!(session.is_empty());
        let again = session.receive(&said(r#""ack":1,"accepted":true,"seq":4"#), true);
        assert_eq!(again, FromWorker::Nothing, "answered once");
    }

    #[test]
    fn answers_name_which_of_those_on_the_key_they_mean() {
        let mut session = listening();
        for connection in [10, 11, 12] {
            session.give(5, connection);
            session.give(6, connection + 10);
        }
        // Numbers 1 to 6 in turn for both keys.
        let declined = FromWorker::Answered { key: 5, nth: 1, answer: Answer::Declined(11) };
        assert_eq!(session.receive(&said(r#""ack":3,"accepted":false"#), true), declined);
        let lost = FromWorker::Answered { key: 6, nth: 2, answer: Answer::Lost(22) };
        assert_eq!(session.acknowledged(6, false), lost);
        let declined = FromWorker::Answered { key: 5, nth: 0, answer: Answer::Declined(10) };
        assert_eq!(session.receive(&said(r#""ack":1"#), true), declined, "nothing is no yes");
        assert_eq!((session.reclaim(6), session.reclaim(5)), (vec![20, 21], vec![12]));
        assert_eq!(session.acknowledged(6, false), FromWorker::Nothing);
    }

    #[test]
    fn who_leaves_is_told_once() {
        for suicide in [false, true] {
            let mut session = listening();
            let leaving = if suicide {
                r#""act":"suicide""#
            } else {
                r#""act":"exitedAfterDisconnect","seq":9"#
            };
            let FromWorker::Leaving(reply) = session.receive(&said(leaving), true) else {
                panic!()
            };
            let reply = reply.map(|reply| text(&reply));
            let expected = r#"{"cmd":"NODE_CLUSTER","ack":9,"seq":1}"#.to_owned();
            assert_eq!(reply, (!suicide).then_some(expected));
            assert_eq!(session.farewell(), None);
        }
        let mut session = listening();
        let message = session.farewell().map(|message| text(&message));
        assert_eq!(message.unwrap(), r#"{"cmd":"NODE_CLUSTER","act":"disconnect","seq":1}"#);
        assert_eq!(session.farewell(), None);
        let leaving = session.receive(&said(r#""act":"exitedAfterDisconnect","seq":9"#), true);
        assert_eq!(leaving, FromWorker::Leaving(None), "its answer is on the way");
    }

    #[test]
    fn a_wish_that_fails_is_answered_with_the_reason_unless_the_worker_is_to_leave() {
        let mut session: PrimarySession<u32> = PrimarySession::new();
        for seq in [4, 5] {
            session.receive(&said(&format!(r#""act":"queryServer",{QUERY},"seq":{seq}"#)), true);
        }
        let reply = session.refuse(1, 98).unwrap();
        assert_eq!(
            text(&reply),
            r#"{"cmd":"NODE_CLUSTER","errno":-98,"ack":4,"data":null,"seq":0}"#
        );
        assert_eq!(session.refuse(2, ECANCELED), None);
        assert_eq!(session.refuse(2, 98), None, "answered once");
        let slow = session.receive(&said(&format!(r#""act":"listening",{QUERY}"#)), true);
        assert_eq!(slow, FromWorker::Nothing);
    }

    #[test]
    fn a_query_that_names_no_address_is_refused_at_once() {
        let mut session: PrimarySession<u32> = PrimarySession::new();
        let query = r#""act":"queryServer","address":"a host","port":1,"addressType":4,"seq":3"#;
        let FromWorker::Invalid(reply) = session.receive(&said(query), true) else { panic!() };
        assert_eq!((reply.errno, reply.ack), (Some(-22), Some(3)));
        assert_eq!(session.refuse(1, 98), None, "it is answered");
    }

    #[test]
    fn a_shared_socket_that_does_not_arrive_is_a_refusal() {
        let mut session: PrimarySession<u32> = PrimarySession::new();
        let query = QUERY.replace("\"data\":null", r#""data":{"ticketKeys":"00"}"#);
        session.receive(&said(&format!(r#""act":"queryServer",{query},"seq":0"#)), true);
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
        let FromWorker::Refused { key: 3, message } = session.acknowledged(ticket, false) else {
            panic!()
        };
        assert_eq!((message.errno, message.ack), (Some(-24), Some(0)));
        assert_eq!(session.acknowledged(ticket, false), FromWorker::Nothing);
    }

    #[test]
    fn sockets_of_one_address_have_names_of_their_own() {
        let mut session: PrimarySession<u32> = PrimarySession::new();
        let mut bind = |seq: u32, request| {
            let query = QUERY.replace("4\"", "\"udp4\"");
            session.receive(&said(&format!(r#""act":"queryServer",{query},"seq":{seq}"#)), true);
            let (message, ticket) = session.grant_socket(request, 3, &mut None).unwrap();
            session.acknowledged(ticket, true);
            message.key.unwrap()
        };
        assert_eq!([bind(0, 1), bind(1, 2), bind(2, 3)], ["3", "3.2", "3.3"]);
        for name in ["3.2", "3"] {
            let closed = session.receive(&said(&format!(r#""act":"close","key":"{name}""#)), true);
            assert_eq!(closed, FromWorker::Closed(3));
        }
        let again = session.receive(&said(r#""act":"close","key":"3""#), true);
        assert_eq!(again, FromWorker::Nothing, "it is closed");
    }

    #[test]
    fn a_server_that_was_closed_and_opened_again_is_another() {
        let mut session = listening();
        assert_eq!(
            session.receive(&said(r#""act":"close","key":"5""#), true),
            FromWorker::Closed(5)
        );
        let control = format!(r#""act":"listening",{QUERY}"#);
        assert_eq!(session.receive(&said(&control), true), FromWorker::Nothing);
        session.receive(&said(&format!(r#""act":"queryServer",{QUERY},"seq":7"#)), true);
        session.grant(2, 6, &address(), &mut None).unwrap();
        assert_eq!(session.receive(&said(&control), true), FromWorker::Listening(6));
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
            assert_eq!(session.receive(&said(nonsense), true), FromWorker::Nothing, "{nonsense}");
        }
        let foreign = serde_json::from_str(r#"{"cmd":"NODE_DEBUG_ENABLED"}"#).unwrap();
        assert_eq!(session.receive(&foreign, true), FromWorker::Nothing);
    }
}

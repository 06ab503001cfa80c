//! The primary's session with one Node worker: messages of the worker become events, and outputs
//! of the supervisor become messages.
//!
//! A connection travels on the channel, and the session keeps its own copy `H` until the worker
//! takes or declines the connection, the worker's system loses it, or the worker is gone and the
//! supervisor reclaims it.
//!
//! A worker gets only one of two messages that end it: the request to disconnect, or the
//! acknowledgement of its own request. A Node process that gets both fails.
//!
//! Pure.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use sys::errno::{ECANCELED, EMFILE, EMSGSIZE, ENAMETOOLONG};

use crate::contract::{Answer, Key};
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::protocol::violation::too_long;

use super::query::{Query, Target};
use super::wire::{Message, SockName};

/// The number of a message, under which the channel reports whether its descriptor was taken.
pub(crate) type Ticket = u64;

/// The session with one worker.
#[derive(Debug)]
pub(crate) struct SessionWithWorker<H> {
    /// The number of the next message of this side.
    seq: i64,
    last_request: u32,
    /// The requests to listen that are not answered, by number.
    requests: BTreeMap<u32, Request>,
    granted: Vec<GrantedSocket>,
    /// The shared sockets whose messages are not acknowledged.
    in_flight: Vec<SocketInFlight>,
    /// The connections that the worker has not answered, oldest first.
    unanswered: VecDeque<Unanswered<H>>,
    /// Whether the worker was asked to disconnect, or has asked for it.
    is_disconnecting: bool,
}

/// A request to listen that is not answered.
#[derive(Debug)]
struct Request {
    seq: i64,
    query: Query,
    /// The value that this worker proposes to share with all workers of the address.
    data: Option<Value>,
}

/// A socket that the worker was granted.
#[derive(Debug)]
struct GrantedSocket {
    /// The name of the socket in messages. A Node process fails over one name for two sockets.
    name: String,
    key: Key,
    query: Query,
}

/// A socket on its way to the worker.
#[derive(Debug)]
struct SocketInFlight {
    ticket: Ticket,
    name: String,
    /// The `seq` of the request that the message answers.
    request_seq: i64,
}

#[derive(Debug)]
struct Unanswered<H> {
    seq: i64,
    key: Key,
    connection: H,
}

/// A message of the worker, as an event.
#[derive(Debug, PartialEq)]
pub(crate) enum FromWorker<H> {
    /// The message does not matter here.
    Nothing,
    Online,
    /// The worker requests to listen.
    ListenRequested {
        request: u32,
        target: Target,
        options: ListenOptions,
    },
    /// The worker requests to listen at something that is no address. The message is the refusal.
    InvalidRequest(Box<Message>),
    Listening(Key),
    /// The worker listens on a socket of its own at this address. Only Bun reports that, for its
    /// servers of `http`.
    ListensAlone(Address),
    ListenerClosed(Key),
    /// The worker is about to disconnect. The message is the acknowledgement, if the worker waits
    /// for one.
    DisconnectRequested(Option<Box<Message>>),
    /// The worker answered the `nth` connection of this key that it had not answered.
    Answered {
        key: Key,
        nth: usize,
        answer: Answer<H>,
    },
    /// The worker could not take the socket that it was granted. The message refuses the request.
    SocketNotTaken {
        key: Key,
        message: Box<Message>,
    },
}

impl<H> SessionWithWorker<H> {
    /// Creates the session with a worker that has just been started.
    pub(crate) fn new() -> Self {
        Self {
            seq: 0,
            last_request: 0,
            requests: BTreeMap::new(),
            granted: Vec::new(),
            in_flight: Vec::new(),
            unanswered: VecDeque::new(),
            is_disconnecting: false,
        }
    }

    /// Handles a message of the worker. `ipv6` says whether this host has IPv6.
    pub(crate) fn receive(&mut self, message: &Message, ipv6: bool) -> FromWorker<H> {
        if !message.is_cluster() {
            return FromWorker::Nothing;
        }
        if let Some(ack) = message.ack {
            return self.answered(ack, message.accepted == Some(true));
        }
        match message.act.as_deref() {
            Some("online") => FromWorker::Online,
            Some("queryServer") => self.listen_requested(message, ipv6),
            Some("listening") => {
                let query = Query::of(message);
                // The newest one is meant: an older socket with an equal query has been closed.
                let mut newest_first = self.granted.iter().rev();
                let socket = newest_first.find(|socket| socket.query.is_repeated_by(&query));
                match (socket, message.index, query.target(ipv6)) {
                    (Some(socket), ..) => FromWorker::Listening(socket.key),
                    // A report without the number of a request.
                    (None, None, Ok(Target::Address(address))) if too_long(&address).is_none() => {
                        FromWorker::ListensAlone(address)
                    }
                    (None, ..) => FromWorker::Nothing,
                }
            }
            Some("close") => {
                let name = message.key.as_deref();
                let at = self.granted.iter().position(|it| Some(it.name.as_str()) == name);
                at.map_or(FromWorker::Nothing, |at| {
                    FromWorker::ListenerClosed(self.granted.remove(at).key)
                })
            }
            Some("exitedAfterDisconnect") => self.disconnect_requested(message.seq),
            // The first versions of Node sent this command, and waited for no acknowledgement.
            Some("suicide") => self.disconnect_requested(None),
            _ => FromWorker::Nothing,
        }
    }

    fn listen_requested(&mut self, message: &Message, ipv6: bool) -> FromWorker<H> {
        // A message without a number cannot be answered.
        let Some(seq) = message.seq else { return FromWorker::Nothing };
        self.last_request += 1;
        let request = self.last_request;
        let query = Query::of(message);
        // The data is kept for all workers of the address.
        let data = message.data.as_ref().map_or(0, |data| data.to_string().len());
        let target = match query.target(ipv6) {
            Ok(_) if data > ListenOptions::DATA_BYTES_MAX => {
                return FromWorker::InvalidRequest(Box::new(self.refusal(seq, EMSGSIZE)));
            }
            Ok(Target::Address(address)) if too_long(&address).is_some() => {
                return FromWorker::InvalidRequest(Box::new(self.refusal(seq, ENAMETOOLONG)));
            }
            Ok(target) => target,
            Err(errno) => return FromWorker::InvalidRequest(Box::new(self.refusal(seq, errno))),
        };
        let options = query.options();
        self.requests.insert(request, Request { seq, query, data: message.data.clone() });
        FromWorker::ListenRequested { request, target, options }
    }

    fn disconnect_requested(&mut self, seq: Option<i64>) -> FromWorker<H> {
        if std::mem::replace(&mut self.is_disconnecting, true) {
            // The primary's request to disconnect is on its way, and serves as the acknowledgement:
            // a Node process that gets both fails.
            return FromWorker::DisconnectRequested(None);
        }
        let acknowledgement = seq.map(|seq| Box::new(Message::answer(seq, self.next_seq())));
        FromWorker::DisconnectRequested(acknowledgement)
    }

    fn answered(&mut self, seq: i64, accepted: bool) -> FromWorker<H> {
        let Some((key, nth, connection)) = self.take_unanswered(seq) else {
            return FromWorker::Nothing;
        };
        let answer = if accepted { Answer::Taken } else { Answer::Declined(connection) };
        FromWorker::Answered { key, nth, answer }
    }

    /// Handles the report of the channel on the descriptor of a message.
    pub(crate) fn acknowledged(&mut self, ticket: Ticket, taken: bool) -> FromWorker<H> {
        if let Some(at) = self.in_flight.iter().position(|socket| socket.ticket == ticket) {
            let SocketInFlight { name, request_seq, .. } = self.in_flight.remove(at);
            let at = self.granted.iter().position(|socket| !taken && socket.name == name);
            let Some(at) = at else { return FromWorker::Nothing };
            let key = self.granted.remove(at).key;
            let message = Box::new(self.refusal(request_seq, EMFILE));
            return FromWorker::SocketNotTaken { key, message };
        }
        if taken {
            // The worker's own answer follows.
            return FromWorker::Nothing;
        }
        let seq = i64::try_from(ticket).unwrap_or(-1);
        let Some((key, nth, connection)) = self.take_unanswered(seq) else {
            return FromWorker::Nothing;
        };
        FromWorker::Answered { key, nth, answer: Answer::Lost(connection) }
    }

    /// Removes an unanswered connection. Returns its position among those of its key, too.
    fn take_unanswered(&mut self, seq: i64) -> Option<(Key, usize, H)> {
        let at = self.unanswered.iter().position(|it| it.seq == seq)?;
        let Unanswered { key, connection, .. } = self.unanswered.remove(at)?;
        let nth = self.unanswered.iter().take(at).filter(|it| it.key == key).count();
        Some((key, nth, connection))
    }

    /// Returns the answer that grants a request whose connections are sent one by one; `None` if
    /// the request is answered already.
    ///
    /// `data` is the value that all workers of the address share. The first worker that proposes
    /// one decides.
    pub(crate) fn grant(
        &mut self,
        request: u32,
        key: Key,
        address: &Address,
        data: &mut Option<Value>,
    ) -> Option<Message> {
        let (_, mut message) = self.grant_message(request, key, data)?;
        message.sockname = sock_name(address);
        Some(message)
    }

    /// Returns the answer that grants a request, and that the listening socket itself goes with;
    /// `None` if the request is answered already. `data` as for [`grant`](Self::grant).
    pub(crate) fn grant_socket(
        &mut self,
        request: u32,
        key: Key,
        data: &mut Option<Value>,
    ) -> Option<(Message, Ticket)> {
        let (request_seq, message) = self.grant_message(request, key, data)?;
        let ticket = ticket_of(&message);
        let name = message.key.clone().unwrap_or_default();
        self.in_flight.push(SocketInFlight { ticket, name, request_seq });
        Some((message, ticket))
    }

    /// Returns the answer that refuses a request; `None` if the request is answered already.
    ///
    /// A request that is canceled because the worker is to end gets no answer: an error would
    /// make its server fail, although the worker only has to end.
    pub(crate) fn refuse(&mut self, request: u32, errno: i32) -> Option<Message> {
        let seq = self.requests.remove(&request)?.seq;
        (errno != ECANCELED).then(|| self.refusal(seq, errno))
    }

    fn refusal(&mut self, request_seq: i64, errno: i32) -> Message {
        let mut message = Message::answer(request_seq, self.next_seq());
        message.errno = Some(-i64::from(errno));
        message.data = Some(Value::Null);
        message
    }

    fn grant_message(
        &mut self,
        request: u32,
        key: Key,
        data: &mut Option<Value>,
    ) -> Option<(i64, Message)> {
        let request = self.requests.remove(&request)?;
        let name = self.unused_name(key);
        let mut message = Message::answer(request.seq, self.next_seq());
        message.errno = Some(0);
        message.key = Some(name.clone());
        self.granted.push(GrantedSocket { name, key, query: request.query });
        // A TLS server of Node fails without the data that it proposed.
        *data = data.take().or(request.data);
        message.data = Some(data.clone().unwrap_or(Value::Null));
        Some((request.seq, message))
    }

    /// Returns a name that no socket of the worker has: a worker may bind a datagram address more
    /// than once.
    fn unused_name(&self, key: Key) -> String {
        let is_unused = |name: &String| self.granted.iter().all(|it| it.name != *name);
        let further = (2_u32..).map(|count| format!("{key}.{count}"));
        std::iter::once(key.to_string()).chain(further).find(is_unused).expect("there are many")
    }

    /// Keeps a connection until it is answered. Returns the message with which a copy is sent.
    pub(crate) fn send(&mut self, key: Key, connection: H) -> (Message, Ticket) {
        let mut message = Message::act("newconn", self.next_seq());
        message.key = Some(key.to_string());
        let ticket = ticket_of(&message);
        let seq = message.seq.unwrap_or_default();
        self.unanswered.push_back(Unanswered { seq, key, connection });
        (message, ticket)
    }

    /// Returns the last connection, whose message could not be sent.
    pub(crate) fn take_unsent(&mut self) -> Option<H> {
        self.unanswered.pop_back().map(|it| it.connection)
    }

    /// Returns all connections of a key that the worker will not answer any more, oldest first.
    pub(crate) fn reclaim(&mut self, key: Key) -> Vec<H> {
        let mut reclaimed = Vec::new();
        for it in std::mem::take(&mut self.unanswered) {
            if it.key == key {
                reclaimed.push(it.connection);
            } else {
                self.unanswered.push_back(it);
            }
        }
        reclaimed
    }

    /// Returns the request to disconnect; `None` if the worker is disconnecting already.
    pub(crate) fn disconnect(&mut self) -> Option<Message> {
        let is_first = !std::mem::replace(&mut self.is_disconnecting, true);
        is_first.then(|| Message::act("disconnect", self.next_seq()))
    }

    /// Returns whether every connection is answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.unanswered.is_empty()
    }

    fn next_seq(&mut self) -> i64 {
        self.seq += 1;
        self.seq - 1
    }
}

fn ticket_of(message: &Message) -> Ticket {
    message.seq.and_then(|seq| u64::try_from(seq).ok()).expect("this side counts from 0")
}

/// Returns the value that `server.address()` shows; `None` for a socket with a path.
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
mod tests;

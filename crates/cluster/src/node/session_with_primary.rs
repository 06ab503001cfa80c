//! A Rust worker's session with a Node primary: messages of the runtime become Node's messages,
//! and messages of the primary become events.
//!
//! The worker numbers its listeners itself, because a key of the primary may be any text. A
//! request for the IPv6 wildcard address is written as Node writes a `listen` without a host, so
//! that workers of both kinds share the socket.
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

/// The session with the primary.
#[derive(Debug, Default)]
pub(crate) struct SessionWithPrimary {
    /// The number of the next message of this side.
    seq: i64,
    /// The requests to listen that are not answered, by their `seq`, with their numbers in the
    /// runtime.
    requests: BTreeMap<i64, (u32, RequestedListener)>,
    last_key: u64,
    open: BTreeMap<u64, OpenListener>,
    /// The next index of each address, and the number of listeners that have one.
    indexes: HashMap<Address, (i64, u32)>,
    /// The `seq` of the request to disconnect.
    disconnect_seq: Option<i64>,
}

/// The arguments with which a listener was requested.
#[derive(Clone, Debug, PartialEq)]
struct RequestedListener {
    address: Address,
    index: i64,
    options: ListenOptions,
}

/// A listener that the primary granted.
#[derive(Debug)]
struct OpenListener {
    /// The name of the listener in messages, chosen by the primary.
    primary_key: String,
    requested: RequestedListener,
    /// The port that the kernel or the primary chose, once it is known.
    port: Option<u16>,
    close_sent: bool,
}

/// A message of the primary, as an event.
#[derive(Debug, PartialEq)]
pub(crate) enum FromPrimary {
    /// The message does not matter here.
    Nothing,
    /// The request is granted. The listener gets this number, and this address as far as the
    /// primary sends it.
    Granted {
        request: u32,
        key: u64,
        address: Address,
        backlog: u32,
    },
    Refused {
        request: u32,
        errno: i32,
    },
    /// A connection for this listener, or for one that is closed. The worker answers with this
    /// number.
    Connection {
        key: Option<u64>,
        number: i64,
    },
    /// The worker is to finish its connections, then end.
    Disconnect,
    /// The primary acknowledges the request to disconnect, and sends no more connections.
    DisconnectAcknowledged,
}

/// A request to listen, or the message that the listener is in use: both have these fields.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListenMessage {
    cmd: &'static str,
    act: &'static str,
    index: i64,
    data: (),
    /// The host or path; without one `null` is written, which Node distinguishes from a missing
    /// field.
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

/// The type of an address: 4, 6, or -1 for a path; `udp4` or `udp6`.
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

impl SessionWithPrimary {
    /// Returns the first message of a worker.
    pub(crate) fn online(&mut self) -> Message {
        Message::act("online", self.next_seq())
    }

    /// Returns the request to listen. A relative path is resolved in the folder `here`.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for a kind of address that Node does not know, `EINVAL` for a path or name
    /// that is not UTF-8.
    pub(crate) fn request_listen(
        &mut self,
        request: u32,
        address: &Address,
        options: &ListenOptions,
        here: &Path,
    ) -> Result<ListenMessage, i32> {
        let address = match address {
            Address::UnixPath(path) => Address::UnixPath(here.join(path)),
            other => other.clone(),
        };
        let (next, count) = self.indexes.entry(address.clone()).or_default();
        let requested = RequestedListener { address, index: *next, options: options.clone() };
        let seq = self.seq;
        let message = listen_message("queryServer", &requested, None, seq)?;
        (*next, *count) = (*next + 1, *count + 1);
        self.seq += 1;
        self.requests.insert(seq, (request, requested));
        Ok(message)
    }

    /// Returns the message that a listener is in use, with its real port.
    pub(crate) fn listening(&mut self, key: u64) -> Option<ListenMessage> {
        let seq = self.next_seq();
        let open = self.open.get(&key)?;
        listen_message("listening", &open.requested, open.port, seq).ok()
    }

    /// Sets the port that the socket of a listener turned out to have.
    pub(crate) fn set_port(&mut self, key: u64, port: u16) {
        if let Some(open) = self.open.get_mut(&key) {
            open.port = Some(port);
        }
    }

    /// Removes a listener. Returns the message that it is closed, unless the message was sent before.
    pub(crate) fn close(&mut self, key: u64) -> Option<Message> {
        let open = self.open.remove(&key)?;
        self.release_index(&open.requested);
        (!open.close_sent).then(|| self.close_message(open.primary_key))
    }

    /// Returns the answer to a connection.
    pub(crate) fn answer(&mut self, seq: i64, accepted: bool) -> Message {
        let mut message = Message::answer(seq, self.next_seq());
        message.accepted = Some(accepted);
        message
    }

    /// Returns the request to disconnect, and the messages that precede it: one `close` for each
    /// listener. `None` after the first time.
    pub(crate) fn request_disconnect(&mut self) -> Option<(Vec<Message>, Message)> {
        if self.disconnect_seq.is_some() {
            return None;
        }
        let mut closing = Vec::new();
        for open in self.open.values_mut() {
            // The listener stays known: connections on their way to it are still accepted.
            if !std::mem::replace(&mut open.close_sent, true) {
                closing.push(open.primary_key.clone());
            }
        }
        let closes = closing.into_iter().map(|key| self.close_message(key)).collect();
        let seq = self.next_seq();
        self.disconnect_seq = Some(seq);
        Some((closes, Message::act("exitedAfterDisconnect", seq)))
    }

    /// Handles a message of the primary.
    pub(crate) fn receive(&mut self, message: &Message) -> FromPrimary {
        if !message.is_cluster() {
            return FromPrimary::Nothing;
        }
        match (message.ack, message.act.as_deref()) {
            (Some(ack), _) if self.disconnect_seq == Some(ack) => {
                FromPrimary::DisconnectAcknowledged
            }
            (Some(ack), _) => self.answered(ack, message),
            (None, Some("newconn")) => {
                let Some(seq) = message.seq else { return FromPrimary::Nothing };
                let name = message.key.as_deref();
                let is_meant = |open: &OpenListener| Some(open.primary_key.as_str()) == name;
                let open = self.open.iter().find(|(_, open)| is_meant(open));
                FromPrimary::Connection { key: open.map(|(key, _)| *key), number: seq }
            }
            (None, Some("disconnect")) => FromPrimary::Disconnect,
            (None, _) => FromPrimary::Nothing,
        }
    }

    fn answered(&mut self, ack: i64, message: &Message) -> FromPrimary {
        let Some((request, requested)) = self.requests.remove(&ack) else {
            return FromPrimary::Nothing;
        };
        let errno = message.errno.unwrap_or(0);
        let Some(primary_key) = message.key.clone().filter(|_| errno == 0) else {
            self.release_index(&requested);
            let errno = i32::try_from(errno.unsigned_abs()).ok().filter(|errno| *errno != 0);
            return FromPrimary::Refused { request, errno: errno.unwrap_or(EINVAL) };
        };
        self.last_key += 1;
        let key = self.last_key;
        let port = message.sockname.as_ref().and_then(|name| u16::try_from(name.port?).ok());
        let mut address = requested.address.clone();
        if let (Address::Tcp { address, .. }, Some(port)) = (&mut address, port) {
            address.set_port(port);
        }
        let backlog = requested.options.backlog;
        self.open.insert(key, OpenListener { primary_key, requested, port, close_sent: false });
        FromPrimary::Granted { request, key, address, backlog }
    }

    fn close_message(&mut self, primary_key: String) -> Message {
        let mut message = Message::act("close", self.next_seq());
        message.key = Some(primary_key);
        message
    }

    /// Counts one listener of the address less. The indexes begin again after the last one.
    fn release_index(&mut self, requested: &RequestedListener) {
        if let Some((_, count)) = self.indexes.get_mut(&requested.address) {
            *count -= 1;
            if *count == 0 {
                self.indexes.remove(&requested.address);
            }
        }
    }

    fn next_seq(&mut self) -> i64 {
        self.seq += 1;
        self.seq - 1
    }
}

/// Writes a request, or the message that its listener is in use with its real port.
fn listen_message(
    act: &'static str,
    requested: &RequestedListener,
    real_port: Option<u16>,
    seq: i64,
) -> Result<ListenMessage, i32> {
    let RequestedListener { address, index, options } = requested;
    let mut message = ListenMessage {
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
            message.port = real_port.unwrap_or(address.port()).into();
            message.address_type = AddressType::Stream(if address.is_ipv6() { 6 } else { 4 });
            message.flags = Some(i64::from(*v6_only) * IPV6_ONLY);
            message.address = Some(host(address));
            if address.is_ipv6() && address.ip().is_unspecified() && !v6_only {
                message.address_type = AddressType::Stream(4);
                (message.address, message.flags) = (None, None);
            }
        }
        Address::Udp { address, v6_only } => {
            message.port = real_port.unwrap_or(address.port()).into();
            let kind = if address.is_ipv6() { "udp6" } else { "udp4" };
            message.address_type = AddressType::Datagram(kind);
            message.address = Some(host(address));
            (message.fd, message.backlog) = (Some(-1), None);
            let reuse = i64::from(options.reuse_address) * REUSE_ADDRESS;
            message.flags = Some((i64::from(*v6_only) * IPV6_ONLY) | reuse);
        }
        Address::UnixPath(path) => {
            message.address = Some(path.to_str().ok_or(EINVAL)?.to_owned());
            message.readable_all = options.readable_all;
            message.writable_all = options.writable_all;
        }
        Address::UnixAbstract(name) => {
            let name = std::str::from_utf8(name).map_err(|_| EINVAL)?;
            message.address = Some(format!("\0{name}"));
        }
        // Node has neither Unix datagram sockets nor names for inherited sockets.
        Address::DatagramPath(_) | Address::DatagramAbstract(_) | Address::Inherited(_) => {
            return Err(EOPNOTSUPP);
        }
    }
    Ok(message)
}

fn host(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => address.ip().to_string(),
    }
}

#[cfg(test)]
mod tests;
